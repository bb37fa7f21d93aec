"""``tilesegment info``."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesegment.errors import OptionError
from tilesegment_cli.options import crs_name, human_bytes, json_option, pixel_size_text

if TYPE_CHECKING:
    from tilesegment.model.file import ModelDescription
    from tilesegment.usecases.describe import ImageFacts, LabelFacts

_INDENT = "\n" + " " * 14


@click.command(
    epilog="""\b
Examples:
  tilesegment info slide.zarr
  tilesegment info scene.tif --thumbnail scene.png
  tilesegment info nuclei
  tilesegment info my.safetensors --json
"""
)
@click.argument("path", type=click.Path())
@click.option(
    "--thumbnail",
    type=click.Path(),
    metavar="FILE",
    help="Draw the image, too: a .png or .jpg, replaced if it is there.",
)
@click.option(
    "--largest",
    type=click.IntRange(16, 16384),
    default=1024,
    show_default=True,
    help="Pixels of the longer side of the thumbnail, at most.",
)
@click.option(
    "--axes", metavar="NAMES", help="Axes of a plain Zarr array that does not name them, as cyx."
)
@json_option
def info(path: str, thumbnail: str | None, largest: int, axes: str | None, as_json: bool) -> None:
    """Show what is in an image (OME-Zarr, slide, TIFF, picture) or a model."""
    from tilesegment.model import zoo

    if path.endswith(".safetensors") or (path in zoo.names() and not Path(path).exists()):
        from tilesegment.model.file import read_description

        if thumbnail is not None:
            raise OptionError("--thumbnail is for images")
        file = path if path.endswith(".safetensors") else zoo.find(path)
        model = read_description(file)
        click.echo(json.dumps(_model_facts(model)) if as_json else _rows(_model_rows(model)))
        return
    from tilesegment.usecases.describe import describe_image, draw_thumbnail

    image = describe_image(path, axes)
    if thumbnail is not None:
        draw_thumbnail(path, thumbnail, largest, axes)
    click.echo(json.dumps(asdict(image)) if as_json else _rows(_image_rows(image)))


def _image_rows(image: "ImageFacts") -> dict[str, Any]:
    size = image.pixel_size_um
    planes = {"planes": image.planes} if image.planes > 1 else {}
    place = (
        {"CRS": image.crs and crs_name(image.crs), "affine": image.affine} if image.affine else {}
    )
    nodata = {} if image.nodata is None else {"nodata": f"{image.nodata:g}"}
    return {
        "format": image.format,
        "axes": image.axes,
        "type": image.type,
        "channels": f"{len(image.channels)} ({_some(image.channels)})",
        **planes,
        "pixel size": "not known" if size is None else pixel_size_text(*size),
        **place,
        **nodata,
        "bytes": _bytes(image),
        "levels": _INDENT.join(
            f"{_size(level.shape)} in chunks of {_size(level.chunks)}"
            + (f", shards of {_size(level.shards)}" if level.shards else "")
            for level in image.levels
        ),
        "labels": _INDENT.join(map(_label_line, image.labels)),
    }


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _bytes(image: "ImageFacts") -> str:
    unpacked = human_bytes(sum(level.bytes for level in image.levels))
    if image.stored_bytes is None:
        return f"{unpacked} unpacked"
    return f"{human_bytes(image.stored_bytes)} stored, {unpacked} unpacked"


def _label_line(labels: "LabelFacts") -> str:
    if labels.fault is not None:
        return f"{labels.name}: cannot be read: {labels.fault}"
    about = "" if labels.exact else "about "
    shares = ", ".join(f"{name} {about}{share:.1%}" for name, share in labels.shares.items())
    return f"{labels.name}: {shares or 'numbered objects'}"


def _model_facts(model: "ModelDescription") -> dict[str, Any]:
    geometry = model.geometry
    return {
        "architecture": dict(model.arguments),
        "classes": [asdict(item) for item in model.classes],
        "pixel size": None if model.pixel_size_um is None else f"{model.pixel_size_um:g} um",
        "border": geometry.border,
        "alignment": geometry.alignment,
        "halo": geometry.halo,
        "training": dict(model.training),
    }


def _model_rows(model: "ModelDescription") -> dict[str, Any]:
    """The facts as people read them; how it was trained in full is for `--json`."""
    network, training = model.arguments, model.training
    kept = training.get("kept") or {}
    pictures = training.get("training_pictures")
    trained = [
        str(training.get("data") or training.get("dataset") or ""),
        f"{pictures} pictures" if pictures else "",
        f"step {kept['step']}" if "step" in kept else "",
        f"score {kept['score']:.3f} in validation" if "score" in kept else "",
    ]
    return {
        **_model_facts(model),
        "architecture": ", ".join(f"{name} {value}" for name, value in network.items()),
        "classes": ", ".join(f"{item.value} {item.name}" for item in model.classes),
        "training": ", ".join(filter(None, trained)),
    }


def _rows(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"{name + ':':<14}{_value(value)}" for name, value in facts.items())


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict | list):
        return json.dumps(value)
    return "none" if value in (None, "") else str(value)
