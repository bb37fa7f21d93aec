"""Slides of pathology scanners (SVS, NDPI, MRXS, SCN, ...), through OpenSlide."""

from pathlib import Path

import numpy as np
import openslide

from tilesegment.errors import InputError
from tilesegment.geometry import YX
from tilesegment.storage.importing.source import (
    TCZYX,
    ClosesItself,
    ImageInfo,
    Pixels,
    PixelSize,
    Plane,
    Window,
    channel_names,
    flatten,
)

_NOT_A_SLIDE = (None, "generic-tiff")
"""OpenSlide reads plain TIFF as 8-bit colour whatever it holds; `tiff.py` keeps what is there."""


def is_slide(path: Path) -> bool:
    """Whether OpenSlide knows the scanner that wrote the file."""
    return openslide.OpenSlide.detect_format(path) not in _NOT_A_SLIDE


class SlideSource(ClosesItself):
    """The finest level of a slide: 8-bit colour, with fields that were not scanned in white."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._slide = openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            raise self._damaged(error) from error
        self._background = _background(self._slide)
        width, height = self._slide.dimensions
        vendor = self._slide.properties[openslide.PROPERTY_NAME_VENDOR]
        self.info = ImageInfo(
            format=f"{vendor} slide",
            shape=TCZYX(1, 3, 1, height, width),
            dtype=np.dtype("uint8"),
            pixel_size=_pixel_size(self._slide),
            channel_names=channel_names(3, is_colour=True),
            is_colour=True,
            tile=_tile(self._slide),
        )

    def read(self, plane: Plane, window: Window) -> Pixels:
        (y, x), (height, width) = window.origin, window.size
        try:
            picture = self._slide.read_region((x, y), 0, (width, height))
        except openslide.OpenSlideError as error:
            raise self._damaged(error) from error
        pixels = np.asarray(picture).transpose(2, 0, 1)
        return flatten(pixels[:3], pixels[3], self._background, ready=False)

    def close(self) -> None:
        self._slide.close()

    def _damaged(self, error: openslide.OpenSlideError) -> InputError:
        return InputError(
            f"{self._path}: OpenSlide cannot read it, it is damaged or cut short ({error}); "
            "copy it again from the scanner or the archive"
        )


def _background(slide: openslide.OpenSlide) -> tuple[int, ...]:
    """Colour of fields that were not scanned, (red, green, blue)."""
    return tuple(
        bytes.fromhex(slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "FFFFFF"))
    )


def _pixel_size(slide: openslide.OpenSlide) -> PixelSize | None:
    try:
        return PixelSize(
            y=float(slide.properties[openslide.PROPERTY_NAME_MPP_Y]),
            x=float(slide.properties[openslide.PROPERTY_NAME_MPP_X]),
        )
    except (KeyError, ValueError):
        return None


def _tile(slide: openslide.OpenSlide) -> YX | None:
    sides = (
        slide.properties.get(f"openslide.level[0].tile-{side}") for side in ("height", "width")
    )
    known = [int(side) for side in sides if side is not None]
    return YX(*known) if len(known) == 2 else None
