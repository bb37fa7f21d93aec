"""Levels of a pyramid by area averaging, as pure arithmetic on shapes and pixels."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tilesegment.geometry import YX
from tilesegment.storage.importing.source import Pixels, Window

COARSEST_SIDE = 512
"""Halving goes on until the smaller side is below this."""


def level_sizes(size: YX) -> list[YX]:
    """Sizes of all levels, the image itself first; an odd size rounds up, so no pixel is lost.

    >>> level_sizes(YX(2967, 2220))
    [YX(y=2967, x=2220), YX(y=1484, x=1110), YX(y=742, x=555), YX(y=371, x=278)]
    """
    sizes = [size]
    while min(sizes[-1]) >= COARSEST_SIDE:
        sizes.append(YX(-(-sizes[-1].y // 2), -(-sizes[-1].x // 2)))
    return sizes


def level_scale(level: int) -> float:
    """Pixel size of a level in pixels of the image."""
    return float(1 << level)


def level_translation(level: int) -> float:
    """Centre of the first pixel of a level, in pixels of the image; OME counts from centres.

    >>> [level_translation(level) for level in range(3)]
    [0.0, 0.5, 1.5]
    """
    return (level_scale(level) - 1) / 2


def halve(pixels: Pixels, nodata: float | None = None) -> Pixels:
    """Means of 2 x 2 pixels, (c, y, x) to (c, ceil(y / 2), ceil(x / 2)), of the same type.

    Halves of integers round up; at an odd end the mean is over the pixels that there are. So it
    is beside pixels that hold nothing: those that have the value `nodata` in all channels.

    >>> halve(np.array([[[0, 1, 9], [1, 0, 8], [7, 7, 5]]], np.uint8))
    array([[[1, 9],
            [7, 5]]], dtype=uint8)
    >>> halve(np.array([[[0, 6, 0, 0], [0, 4, 0, 0]]], np.uint8), nodata=0)
    array([[[5, 0]]], dtype=uint8)
    """
    height, width = pixels.shape[-2:]
    if height % 2 or width % 2:
        # Repeating the last row leaves the mean as it is: (a + a + b + b) / 4 = (a + b) / 2.
        pixels = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    if nodata is not None:
        holds = (pixels != nodata).any(axis=0)
        if not holds.all():
            return _mean_of_data(pixels, holds, nodata)
    total = _sums(pixels, _sum_type(pixels))
    is_float = pixels.dtype.kind == "f"
    mean: Pixels = (
        np.divide(total, 4)
        if is_float
        else np.right_shift(np.add(total, 2, out=total), 2, out=total)
    )
    return mean.astype(pixels.dtype)


def _mean_of_data(pixels: Pixels, holds: NDArray[np.bool_], nodata: float) -> Pixels:
    """Means of those of 2 x 2 pixels that hold data, (y, x); nodata where none does."""
    counts = _sums(holds, np.uint8)
    if pixels.dtype.kind == "f":
        total = _sums(np.where(holds, pixels, 0), np.float64)
        mean = total / np.maximum(counts, 1)
    else:
        total = _sums(pixels * holds, np.uint32)
        mean = (2 * total + counts) // np.maximum(2 * counts, 1)
    return np.where(counts > 0, mean, nodata).astype(pixels.dtype)


def _sums(pixels: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Sums of 2 x 2 pixels, (..., y, x), of even height and width."""
    # Rows first: they lie together in memory.
    rows: NDArray[Any] = pixels[..., ::2, :].astype(dtype)
    rows += pixels[..., 1::2, :]
    sums: NDArray[Any] = rows[..., ::2] + rows[..., 1::2]
    return sums


def _sum_type(pixels: Pixels) -> type[np.uint16] | type[np.uint32] | type[np.float64]:
    """A type that holds the sum of four pixels."""
    if pixels.dtype == np.uint8:
        return np.uint16
    return np.uint32 if pixels.dtype == np.uint16 else np.float64


def quarters(size: YX) -> Iterator[Window]:
    """Up to four windows that make up a block of this size."""
    half = YX(-(-size.y // 2), -(-size.x // 2))
    for y in range(0, size.y, half.y):
        for x in range(0, size.x, half.x):
            yield Window(YX(y, x), YX(min(half.y, size.y - y), min(half.x, size.x - x)))


def twice(window: Window, part: Window, image: YX) -> Window:
    """The pixels of the level below, of size `image`, behind a part of a window."""
    y = 2 * (window.origin.y + part.origin.y)
    x = 2 * (window.origin.x + part.origin.x)
    return Window(
        YX(y, x), YX(min(2 * part.size.y, image.y - y), min(2 * part.size.x, image.x - x))
    )
