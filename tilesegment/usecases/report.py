"""The report of a finished run: one HTML file that needs nothing but itself."""

import base64
import platform
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tilesegment.errors import InputError, OptionError, OutputError
from tilesegment.reporting import facts
from tilesegment.storage.exporting.labelled import labelled_by
from tilesegment.storage.exporting.overview import write_overview
from tilesegment.storage.image import open_image
from tilesegment.storage.labels import published_provenance
from tilesegment.storage.objects import write_document, write_failed
from tilesegment.storage.remote import Location, locate

_PICTURE_SIDE = 1200
"""Pixels of the longer side."""


def make_report_folder(folder: str | Path) -> Path:
    """The folder for reports, made before there is anything to report.

    Raises:
        OptionError: if it would be in an object store.
        OutputError: if it cannot be.
    """
    path = locate(str(folder))
    if not isinstance(path, Path):
        raise OptionError(f"--report {path} is no folder on a disk, where reports are written")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"{path} is a file; give --report a folder") from error
    except OSError as error:
        raise write_failed(error, path) from error
    return path


def write_report(
    image: str | Path, labels: str | Path, folder: str | Path, command: str, verified: int = 0
) -> Path:
    """Write what was done, and what came of it.

    Args:
        image: the OME-Zarr image, or the file, that was segmented.
        labels: path of the label image.
        folder: where the report goes, as IMAGE-LABELS.html; an earlier one is replaced.
        command: what to type to do the same again.
        verified: windows that were computed again and found equal.

    Returns:
        The file.

    Raises:
        InputError: there are no such labels, or tilesegment has not made them.
        OutputError: the report cannot be written.
    """
    directory = locate(str(labels))
    made = published_provenance(directory)
    if not made or "plan" not in made:
        raise InputError(f"{directory} does not say how it was made; run `tilesegment run` again")
    path = make_report_folder(folder) / f"{PurePath(str(image)).stem}-{directory.name}.html"
    page = Environment(
        loader=PackageLoader("tilesegment.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
    ).get_template("page.html")
    told = _told(image, directory, made, command, verified)
    write_document(path, page.render(**told))
    return path


def _told(
    image: str | Path, directory: Location, made: Mapping[str, Any], command: str, verified: int
) -> dict[str, Any]:
    """All that the page shows."""
    labelled = labelled_by(open_image(str(image)), directory)
    level, summary = made["plan"]["level"], made["summary"]
    shape, size = labelled.labels.plane_shape(level), labelled.labels.pixel_size_um(level)
    pixels = shape.y * shape.x * labelled.labels.planes(level)
    classes = labelled.classes.values()
    planes = labelled.labels.planes(level)
    return {
        "title": f"{PurePath(str(image)).name}: {directory.name}",
        "subtitle": f"{shape.y} x {shape.x} px{f', {planes} planes' if planes > 1 else ''}",
        "facts": facts.headline(summary, pixels),
        "warnings": facts.warnings(summary),
        "picture": _picture(labelled),
        "classes": facts.class_rows(
            summary["shares"], {item.name: item.colour for item in classes}, pixels, size
        ),
        "has_areas": size is not None,
        "sections": [
            facts.tile_section(summary),
            facts.seam_section(verified, made["workers"]),
            facts.plan_section(made, size),
            facts.version_section(made, _versions()),
        ],
        "command": command,
    }


def _picture(labelled: Any) -> str:
    """A JPEG with overlay, legend and scale bar, in base64."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.jpg"
        write_overview(labelled, 0, _PICTURE_SIDE, path)
        return base64.b64encode(path.read_bytes()).decode()


def _versions() -> dict[str, str]:
    """Of what the numbers depend on, here."""
    return {
        "Python": platform.python_version(),
        **{name: version(name) for name in ("dask", "zarr", "numpy")},
        "system": platform.platform(),
    }
