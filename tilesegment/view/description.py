"""What the page is told of an image, its label images and its unfinished runs.

The page reads the pixels itself, from the stores' own files; everything that asks for knowledge
of OME-Zarr is worked out here.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tilesegment.errors import InputError
from tilesegment.storage.image import Image, Level, open_image
from tilesegment.storage.labels import beside_labels, published_provenance, read_classes
from tilesegment.storage.ledger import read_unfinished
from tilesegment.storage.measurements import has_measurements, open_measurements
from tilesegment.storage.probabilities import (
    PROBABILITIES_NAME,
    class_channels,
    find_probabilities,
)
from tilesegment.storage.remote import locate, on_disk
from tilesegment.tiling import TileGrid
from tilesegment.view.channels import describe_channels

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """A label image, or an unfinished run that will become one."""

    name: str
    directory: Path
    url: str
    """Relative to the page."""


@dataclass(frozen=True)
class Scene:
    """What one page shows: an image, the labels in its store, and label stores elsewhere."""

    image: Image
    label_stores: tuple[Path, ...] = ()

    @property
    def stores(self) -> tuple[Path, ...]:
        """The directories that are served, as ``stores/0/``, ``stores/1/`` and so on."""
        return (
            on_disk(locate(self.image.location), "view").resolve(),
            *(store.resolve() for store in self.label_stores),
        )

    @property
    def label_folder(self) -> Path:
        """Where the image's own labels are, served as ``stores/0/labels/``."""
        return on_disk(self.image.label_folder, "view").resolve()

    def places(self) -> Iterator[Place]:
        """Where there are, or will be, label images."""
        others = self.stores[1:]
        inside = self.label_folder
        if inside.is_dir():
            for directory in sorted(inside.iterdir()):
                name = directory.name
                # A link could lead out of the store, and the server would refuse its pixels.
                is_own = directory.is_dir() and directory.resolve() == directory
                if is_own and not name.startswith("."):
                    yield Place(name, directory, f"stores/0/labels/{name}")
        for number, directory in enumerate(others, start=1):
            yield Place(directory.name, directory, f"stores/{number}")

    def published(self) -> Iterator[Place]:
        """The places with a label image; in the image's own store, one that it lists."""
        listed = self.image.label_names()
        inside = self.label_folder
        for place in self.places():
            is_listed = place.directory.parent != inside or place.name in listed
            if is_listed and _revision(place.directory) is not None:
                yield place


def open_scene(image: str | Path, label_stores: Sequence[str | Path] = ()) -> Scene:
    """What a page shall show.

    Args:
        image: path of an OME-Zarr image.
        label_stores: paths of label images, or of runs that have not finished theirs, outside of
            the image's store.

    Raises:
        InputError: if one of them is absent or something else.
    """
    stores = tuple(Path(store) for store in label_stores)
    for store in stores:
        if read_unfinished(store) is None:
            open_image(store)
    return Scene(open_image(image), stores)


def describe(scene: Scene) -> dict[str, Any]:
    """Everything that the page must know before it reads pixels; JSON."""
    image = scene.image
    return {
        "name": image.name,
        "image": {
            **_picture(image, "stores/0", image),
            "channels": describe_channels(image),
            "pixelSizeUm": image.pixel_size_um(0),
        },
        "labels": list(_labels(scene)),
    }


def progress(scene: Scene) -> dict[str, Any]:
    """The unfinished runs, and the revisions of the label images that are there; JSON."""
    runs = (_run(scene.image, place) for place in scene.places())
    return {
        "labels": {place.name: _revision(place.directory) for place in scene.published()},
        "runs": [run for run in runs if run is not None],
    }


def measurements(scene: Scene, labels: str, identity: str) -> dict[str, Any]:
    """What is known of one object, by column; nothing of what is no object. JSON.

    Raises:
        InputError: if the measurements are damaged.
    """
    for place in scene.published():
        stored = open_measurements(place.directory) if place.name == labels else None
        if stored is not None:
            return stored.of(int(identity)) or {}
    return {}


def _picture(picture: Image, url: str, reference: Image) -> dict[str, Any]:
    """What the page needs to read an image or label image of the extent of `reference`."""
    return {
        "url": url,
        "zarrFormat": 3 if picture.version == "0.5" else 2,
        "axes": [axis.name for axis in picture.axes],
        "bytes": picture.levels[0].dtype == np.uint8,
        "levels": [
            {
                "path": level.path,
                "shape": level.shape,
                "chunk": level.chunks[-2:],
                "factor": level_factor(reference.levels[0], level),
            }
            for level in picture.levels
        ],
    }


def level_factor(finest: Level, level: Level) -> float:
    """Pixels of the finest level per pixel of another one, along a row.

    As the scales say, if that fits the widths; some writers leave the scales out.
    """
    full, width = finest.shape[-1], level.shape[-1]
    stated = level.scale[-1] / finest.scale[-1]
    return stated if stated > 0 and abs(full / stated - width) < 1 else full / width


def _labels(scene: Scene) -> Iterator[dict[str, Any]]:
    for place in scene.published():
        try:
            labels = open_image(place.directory)
        except InputError as error:
            _log.info("not shown: %s", error)
            continue
        classes = [
            {"value": item.value, "name": item.name, "colour": item.colour}
            for item in read_classes(labels.group)
        ]
        yield {
            **_picture(labels, place.url, scene.image),
            "name": place.name,
            "revision": _revision(place.directory),
            "classes": classes,
            "probabilities": _probabilities(scene, labels, place),
            "grid": _finished_grid(scene.image, place.directory),
            "measured": has_measurements(place.directory),
        }


def _probabilities(scene: Scene, labels: Image, place: Place) -> dict[str, Any] | None:
    """The probabilities of a label image; None if it has none, or they are damaged."""
    try:
        found = find_probabilities(labels)
        if found is None:
            return None
        return {
            **_picture(found, f"{place.url}/{PROBABILITIES_NAME}", scene.image),
            "classes": [item.name for item in class_channels(found)],
        }
    except InputError as error:
        _log.info("not shown: %s", error)
        return None


def _finished_grid(image: Image, directory: Path) -> dict[str, Any] | None:
    plan = (published_provenance(directory) or {}).get("plan")
    return _grid(image, plan["level"], plan["tile"]) if plan else None


def _run(image: Image, place: Place) -> dict[str, Any] | None:
    run = read_unfinished(place.directory) or read_unfinished(beside_labels(place.directory))
    if run is None:
        return None
    return {
        "name": place.name,
        "grid": _grid(image, run.fingerprint["level"], run.fingerprint["tile"]),
        "done": sorted(run.done),
        "idleSeconds": round(time.time() - run.updated, 1),
    }


def _grid(image: Image, level: int, tile: int) -> dict[str, Any]:
    """A grid of tiles in pixels of the finest level."""
    grid = TileGrid(image.plane_shape(level), image.planes(level), tile)
    factor = level_factor(image.levels[0], image.levels[level])
    full = image.plane_shape(0)
    return {
        "side": tile * factor,
        "rows": grid.rows,
        "columns": grid.columns,
        "tiles": len(grid),
        "height": full.y,
        "width": full.x,
    }


def _revision(directory: Path) -> str | None:
    """Changes when a label image is replaced; None while there is none."""
    for key in ("zarr.json", ".zattrs"):
        if (directory / key).is_file():
            return f"{(directory / key).stat().st_mtime_ns:x}"
    return None
