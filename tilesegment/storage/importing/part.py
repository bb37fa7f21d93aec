"""A part of a source, which is a source itself: a rectangle, a coarser level, some channels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tilesegment.errors import OptionError
from tilesegment.geometry import YX
from tilesegment.storage.geozarr import Affine, Georeferencing
from tilesegment.storage.importing.pyramid import halve, level_scale, level_sizes, quarters, twice
from tilesegment.storage.importing.source import (
    ClosesItself,
    ImageInfo,
    Pixels,
    PixelSize,
    Plane,
    Source,
    Window,
)


@dataclass(frozen=True)
class Part:
    """What is wanted of a file; everything by default."""

    region: Window | None = None
    """Rectangle, in pixels of the file."""
    level: int = 0
    """How often the pixels are averaged two by two."""
    bands: tuple[int, ...] | None = None
    """Channels, counted from 1 as GDAL does, in the order in which they are stored."""


def cut(source: Source, part: Part, path: Path) -> Source:
    """The part of a source, which stays the one to be closed.

    Raises:
        OptionError: if it is not in the source.
    """
    if part.region is not None:
        source = _Rectangle(source, _checked_region(part.region, source.info, path))
    for _ in range(_checked_level(part.level, source.info, path)):
        source = Halved(source)
    if part.bands is not None:
        source = _Bands(source, _checked_bands(part.bands, source.info, path))
    return source


def _checked_region(region: Window, info: ImageInfo, path: Path) -> Window:
    (y, x), (height, width) = region.origin, region.size
    fits = 0 <= y < y + height <= info.shape.y and 0 <= x < x + width <= info.shape.x
    if not fits:
        raise OptionError(
            f"the region of {height} x {width} pixels at row {y}, column {x} is not inside {path}, "
            f"which has {info.shape.y} x {info.shape.x}"
        )
    return region


def _checked_level(level: int, info: ImageInfo, path: Path) -> int:
    levels = len(level_sizes(YX(info.shape.y, info.shape.x)))
    if not 0 <= level < levels:
        raise OptionError(
            f"level {level} of {path} does not exist: there would be 0 to {levels - 1}"
        )
    return level


def _checked_bands(bands: Sequence[int], info: ImageInfo, path: Path) -> list[int]:
    if not bands or not all(1 <= band <= info.shape.c for band in bands):
        wanted = ", ".join(map(str, bands)) or "none"
        raise OptionError(
            f"{path} has the bands 1 to {info.shape.c} ({', '.join(info.channel_names)}); "
            f"wanted were {wanted}"
        )
    return [band - 1 for band in bands]


class _Rectangle(ClosesItself):
    def __init__(self, source: Source, region: Window) -> None:
        self._source, self._region = source, region
        (y, x), (height, width) = region.origin, region.size
        info = source.info
        self.info = replace(
            info,
            shape=info.shape._replace(y=height, x=width),
            georeferencing=_moved(info.georeferencing, y, x),
        )

    def read(self, plane: Plane, window: Window) -> Pixels:
        y, x = (a + b for a, b in zip(self._region.origin, window.origin, strict=True))
        return self._source.read(plane, Window(YX(y, x), window.size))


class Halved(ClosesItself):
    """The means of 2 x 2 pixels of a source, as the next level of a pyramid has them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        info = source.info
        self._fine = YX(info.shape.y, info.shape.x)
        coarse = level_sizes(self._fine)[1]
        self.info = replace(
            info,
            shape=info.shape._replace(y=coarse.y, x=coarse.x),
            pixel_size=_enlarged(info.pixel_size),
            georeferencing=_coarser(info.georeferencing),
        )

    def read(self, plane: Plane, window: Window) -> Pixels:
        info = self.info
        halved = np.empty((info.shape.c, *window.size), info.dtype)
        # In quarters, so that no window grows on the way down.
        for part in quarters(window.size):
            fine = self._source.read(plane, twice(window, part, self._fine))
            halved[:, *part.slices] = halve(fine, info.nodata)
        return halved


class _Bands(ClosesItself):
    def __init__(self, source: Source, bands: list[int]) -> None:
        self._source, self._bands = source, bands
        info = source.info
        self.info = replace(
            info,
            shape=info.shape._replace(c=len(bands)),
            channel_names=tuple(info.channel_names[band] for band in bands),
            is_colour=info.is_colour and bands == [0, 1, 2],
        )

    def read(self, plane: Plane, window: Window) -> Pixels:
        return self._source.read(plane, window)[self._bands]


def _moved(place: Georeferencing | None, y: int, x: int) -> Georeferencing | None:
    """Where a rectangle lies whose first pixel is at row y, column x."""
    if place is None:
        return None
    a, b, c, d, e, f = place.transform
    return replace(place, transform=Affine(a, b, a * x + b * y + c, d, e, d * x + e * y + f))


def _enlarged(size: PixelSize | None) -> PixelSize | None:
    factor = level_scale(1)
    return None if size is None else size._replace(y=size.y * factor, x=size.x * factor)


def _coarser(place: Georeferencing | None) -> Georeferencing | None:
    return place and replace(place, transform=place.transform.enlarged(level_scale(1)))
