"""PNG and JPEG pictures, through Pillow. They are decoded as a whole, so their size is limited."""

import math
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tilesegment.errors import InputError
from tilesegment.storage.importing.source import (
    TCZYX,
    ClosesItself,
    ImageInfo,
    Pixels,
    PixelSize,
    Plane,
    Window,
    channel_names,
    check_decode_bytes,
    checked_dtype,
    flatten,
    opaque_value,
    scanned_size,
)

_UM_PER_INCH = 25400.0


class PictureSource(ClosesItself):
    """A PNG or JPEG: grey or colour, uint8, or uint16 for grey; transparency shown on white."""

    def __init__(self, path: Path) -> None:
        try:
            with warnings.catch_warnings():
                # Pillow warns long before the limit that `_check` sets in bytes.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                picture = Image.open(path, formats=("PNG", "JPEG"))
            with picture:
                _check(picture, path)
                self._pixels = _pixels(picture)
                pixel_size, kind = _pixel_size(picture), str(picture.format)
        except Image.DecompressionBombError as error:
            raise _too_large(path) from error
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
            raise InputError(
                f"{path}: the picture is damaged or cut short ({error}); copy or export it again"
            ) from error
        channels, height, width = self._pixels.shape
        is_colour = channels == 3
        self.info = ImageInfo(
            format=kind,
            shape=TCZYX(1, channels, 1, height, width),
            dtype=checked_dtype(self._pixels.dtype, path),
            pixel_size=pixel_size,
            channel_names=channel_names(channels, is_colour=is_colour),
            is_colour=is_colour,
        )

    def read(self, plane: Plane, window: Window) -> Pixels:
        return self._pixels[:, *window.slices]


def _check(picture: Image.Image, path: Path) -> None:
    """Raises InputError for what would lose bits or not fit in memory."""
    if picture.mode == "1":
        checked_dtype(np.dtype(bool), path)
    if picture.mode != "I;16" and _decodes_from_16_bits(picture):
        raise InputError(
            f"{path}: it is a PNG of 16 bits per colour, of which only 8 would be read; "
            "convert it to TIFF first (vips copy IN.png OUT.tif)"
        )
    check_decode_bytes(math.prod(picture.size) * len(picture.getbands()), "picture", path)


def _decodes_from_16_bits(picture: Image.Image) -> bool:
    return any("16" in str(tile[3]) for tile in getattr(picture, "tile", ()))


def _pixels(picture: Image.Image) -> Pixels:
    """All pixels, (c, y, x): colour stays colour, palettes and CMYK become colour."""
    if picture.mode in ("P", "PA", "CMYK", "YCbCr"):
        has_alpha = picture.mode == "PA" or "transparency" in picture.info
        picture = picture.convert("RGBA" if has_alpha else "RGB")
    pixels = np.asarray(picture)
    if pixels.ndim == 2:
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)[np.newaxis]
    pixels = np.moveaxis(pixels, 2, 0)
    if picture.mode not in ("LA", "RGBA"):
        return pixels
    white = [opaque_value(pixels.dtype)] * (len(pixels) - 1)
    return flatten(pixels[:-1], pixels[-1], white, ready=False)


def _pixel_size(picture: Image.Image) -> PixelSize | None:
    """From the dots per inch, which for most pictures mean nothing."""
    dots_x, dots_y = (float(dots) for dots in picture.info.get("dpi", (0, 0)))
    if not (dots_x > 0 and dots_y > 0):
        return None
    return scanned_size(_UM_PER_INCH / dots_y, _UM_PER_INCH / dots_x)


def _too_large(path: Path) -> InputError:
    return InputError(
        f"{path}: the picture has too many pixels to be decoded at once; "
        "convert it to a tiled TIFF first (vips tiffsave IN OUT.tif --tile --bigtiff)"
    )
