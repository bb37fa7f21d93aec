"""What an image file offers to the import: its shape and meaning, and windows of pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tilesegment.errors import InputError
from tilesegment.geometry import YX
from tilesegment.storage.geozarr import Georeferencing

Pixels = NDArray[Any]
"""Pixels of one plane, (c, y, x), uint8, uint16 or float32."""

DTYPES = ("uint8", "uint16", "float32")
"""Types of pixels that are imported."""

LARGEST_DECODE_BYTES = 2**30
"""What has to be decoded at once (a strip, a whole picture) may not be larger than this."""

_COARSEST_SCAN_UM = 20.0
"""A coarser resolution tag is the 72 to 600 dpi of a screen or printer, not a measurement."""


class TCZYX(NamedTuple):
    """One number per axis, in the order of OME: time, channel, z, y, x."""

    t: int
    c: int
    z: int
    y: int
    x: int


class PixelSize(NamedTuple):
    """Distance between pixel centres in micrometres."""

    y: float
    x: float
    z: float | None = None


class Plane(NamedTuple):
    """One image of a stack: its time point and its section."""

    t: int
    z: int


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels inside the image."""

    origin: YX
    """First row and column."""
    size: YX
    """Rows and columns, at least one each."""

    @classmethod
    def at(cls, y: int, x: int, height: int, width: int) -> "Window":
        """The rectangle of this size whose first pixel is at row y, column x."""
        return cls(YX(y, x), YX(height, width))

    @property
    def slices(self) -> tuple[slice, slice]:
        (y, x), (height, width) = self.origin, self.size
        return slice(y, y + height), slice(x, x + width)

    @property
    def pixels(self) -> int:
        return self.size.y * self.size.x


@dataclass(frozen=True)
class ImageInfo:
    """What is known of an image before a pixel is read."""

    format: str
    """What the file is, for people: "aperio slide", "OME-TIFF", "PNG"."""
    shape: TCZYX
    """Pixels per axis; 1 for an axis that the file does not have."""
    dtype: np.dtype[Any]
    """One of `DTYPES`, in native byte order."""
    pixel_size: PixelSize | None
    """As the file states it; None where it does not, or not believably."""
    channel_names: tuple[str, ...]
    """One name for each channel."""
    is_colour: bool = False
    """The three channels are red, green and blue, and are looked at together."""
    decodes_whole_rows: bool = False
    """A narrow window costs as much as one over the full width (strips of a TIFF)."""
    tile: YX | None = None
    """What the file decodes as one piece; None where it has no tiles, or nobody has told."""
    georeferencing: Georeferencing | None = None
    """Where on the Earth the image lies."""
    nodata: float | None = None
    """Value of pixels that hold nothing; NaN is one."""


class Source(Protocol):
    """An open image file. Windows may be read from several threads at once."""

    @property
    def info(self) -> ImageInfo: ...

    def read(self, plane: Plane, window: Window) -> Pixels:
        """The pixels of a window, (c, y, x), of the type of `info`.

        Raises InputError where the file is damaged.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class ClosesItself:
    """Gives a source with a `close` the `with` statement."""

    def close(self) -> None:
        """Release the file; sources that hold none open have nothing to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def checked_dtype(dtype: np.dtype[Any] | None, path: Path) -> np.dtype[Any]:
    """The type in native byte order. Raises InputError for one that is not imported."""
    if dtype is None or dtype.newbyteorder("=").name not in DTYPES:
        raise InputError(
            f"{path}: its pixels are {dtype or 'of an unknown type'}, but only uint8, uint16 and "
            "float32 are imported; convert the file to one of them first"
        )
    return dtype.newbyteorder("=")


def check_decode_bytes(needed: int, what: str, path: Path) -> None:
    """Raises InputError if a part that can only be decoded at once does not fit in memory."""
    if needed > LARGEST_DECODE_BYTES:
        raise InputError(
            f"{path}: its {what} takes {needed / 2**30:.1f} GiB decoded at once, more than the "
            f"{LARGEST_DECODE_BYTES / 2**30:.0f} GiB that are allowed; "
            "convert it to a tiled TIFF first (vips tiffsave IN OUT.tif --tile --bigtiff)"
        )


def scanned_size(y: float, x: float) -> PixelSize | None:
    """A pixel size from resolution tags in micrometres, if a scanner can have meant it.

    Files that were never measured state the 72 or 300 dots per inch of a screen or printer.

    >>> scanned_size(0.5, 0.5)
    PixelSize(y=0.5, x=0.5, z=None)
    >>> scanned_size(25400 / 72, 25400 / 72)
    """
    believable = all(math.isfinite(size) and 0 < size <= _COARSEST_SCAN_UM for size in (y, x))
    return PixelSize(y, x) if believable else None


def channel_names(count: int, *, is_colour: bool = False) -> tuple[str, ...]:
    """Names of channels where the file has none."""
    if is_colour:
        return ("Red", "Green", "Blue")
    return tuple(f"Channel {number}" for number in range(1, count + 1))


def flatten(colour: Pixels, alpha: Pixels, background: Sequence[float], *, ready: bool) -> Pixels:
    """Lay pixels over a background, as a viewer shows them.

    `colour` is (c, y, x), `alpha` (y, x) of the same type, 0 where transparent; `ready` says
    that the colour was multiplied by alpha already. Opaque pixels are returned unchanged.
    """
    opaque = opaque_value(colour.dtype)
    clear = alpha != opaque
    if not clear.any():
        return colour
    share = alpha[clear] / np.float64(opaque)
    shown = colour[:, clear] * (1.0 if ready else share)
    shown += np.asarray(background, np.float64)[:, np.newaxis] * (1 - share)
    flat = colour.copy()
    flat[:, clear] = shown if colour.dtype.kind == "f" else np.rint(shown).clip(0, opaque)
    return flat


def opaque_value(dtype: np.dtype[Any]) -> float:
    """The alpha value of an opaque pixel, which is also the value of white."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
