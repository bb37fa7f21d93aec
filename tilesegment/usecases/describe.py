"""What a person wants to know of an image before working with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tilesegment.errors import InputError, OptionError
from tilesegment.storage.exporting.labelled import Labelled, open_labelled
from tilesegment.storage.exporting.overview import write_thumbnail
from tilesegment.storage.geozarr import read_georeferencing
from tilesegment.storage.image import Image, Level, open_image
from tilesegment.tiling import Window
from tilesegment.view.channels import channel_names

_COUNTED_SIDE = 1024
"""Pixels of the longer side of a level on which the shares of classes are counted, at least."""
_LARGEST_COUNT = 2**27
"""Pixels of a level on which they are counted."""


@dataclass(frozen=True)
class LevelFacts:
    """One resolution level."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    """What is decoded as one piece."""
    shards: tuple[int, ...] | None
    """What is stored as one object, where that holds several chunks."""
    bytes: int
    """Before compression."""


@dataclass(frozen=True)
class LabelFacts:
    """One label image."""

    name: str
    shares: Mapping[str, float]
    """Share of the area of each class; empty for numbered objects."""
    exact: bool
    """Whether they were counted by `run`, and not on a coarser level."""
    fault: str | None = None
    """Why it cannot be read."""


@dataclass(frozen=True)
class ImageFacts:
    """An image, described."""

    location: str
    format: str
    axes: tuple[str, ...]
    type: str
    """Of the pixels."""
    channels: tuple[str, ...]
    """Their names."""
    planes: int
    """Times and sections."""
    pixel_size_um: tuple[float, float] | None
    """(y, x) of the finest level."""
    crs: str | None
    affine: tuple[float, ...] | None
    """a, b, c, d, e, f, from pixel corners to coordinates."""
    nodata: float | None
    levels: tuple[LevelFacts, ...]
    stored_bytes: int | None
    """Of the image without its labels, as it is stored; None where nobody can tell quickly."""
    labels: tuple[LabelFacts, ...]


def describe_image(location: str | Path, axes: str | None = None) -> ImageFacts:
    """Read the metadata of an image, and some pixels of its labels.

    Args:
        location: of an OME-Zarr image, a Zarr array, or a slide, TIFF or picture.
        axes: of an array that does not name them.

    Raises:
        InputError: if it cannot be opened.
    """
    image = open_image(location, axes)
    place = read_georeferencing(dict(image.group.attrs), image.location)
    return ImageFacts(
        location=image.location,
        format=image.format,
        axes=tuple(axis.name for axis in image.axes),
        type=str(image.levels[0].dtype),
        channels=tuple(channel_names(image)),
        planes=image.planes(0),
        pixel_size_um=image.pixel_size_um(0),
        crs=None if place is None else place.crs,
        affine=None if place is None else tuple(place.transform),
        nodata=image.nodata(0),
        levels=tuple(_level_facts(image, level) for level in image.levels),
        stored_bytes=_stored_bytes(image),
        labels=tuple(_label_facts(image, name) for name in image.label_names()),
    )


def draw_thumbnail(
    location: str | Path, out: str | Path, largest: int, axes: str | None = None
) -> None:
    """A picture of an image, without its labels.

    Args:
        location: of the image.
        out: the file, .png, .jpg or .jpeg; replaced if it is there.
        largest: pixels of its longer side.
        axes: as for `describe_image`.

    Raises:
        OptionError: if it is to be another kind of file.
    """
    path = Path(out)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise OptionError(f"a thumbnail is a .png or .jpg, not {path.name}")
    write_thumbnail(open_image(location, axes), largest, path)


def _level_facts(image: Image, level: Level) -> LevelFacts:
    array: Any = image.group[level.path]
    return LevelFacts(
        level.shape, level.chunks, array.shards, prod(level.shape) * level.dtype.itemsize
    )


def _stored_bytes(image: Image) -> int | None:
    root = Path(image.location)
    if root.is_file():
        return root.stat().st_size
    if not root.is_dir():
        return None
    folders = [root / level.path for level in image.levels]
    files = (file for folder in folders for file in folder.rglob("*"))
    return sum(file.stat().st_size for file in files if file.is_file())


def _label_facts(image: Image, name: str) -> LabelFacts:
    try:
        labelled = open_labelled(image.location, name)
        counted = labelled.counted_shares
        return LabelFacts(name, counted or _shares(labelled), exact=bool(counted))
    except InputError as error:
        return LabelFacts(name, {}, exact=False, fault=str(error))


def _shares(labelled: Labelled) -> Mapping[str, float]:
    """Shares of the classes on the coarsest level that shows enough."""
    sizes = [labelled.labels.plane_shape(n) for n in range(len(labelled.labels.levels))]
    level = max((n for n, size in enumerate(sizes) if max(size) >= _COUNTED_SIDE), default=0)
    if not labelled.classes or prod(sizes[level]) > _LARGEST_COUNT:
        return {}
    found = labelled.read(0, Window(0, 0, *sizes[level]), level)
    values, counts = np.unique(found, return_counts=True)
    shares = dict(zip(values.tolist(), (counts / found.size).tolist(), strict=True))
    return {item.name: shares.get(item.value, 0.0) for item in labelled.classes.values()}
