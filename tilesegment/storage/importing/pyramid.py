"""Levels of a pyramid by area averaging, as pure arithmetic on shapes and pixels."""

import numpy as np

from tilesegment.geometry import YX
from tilesegment.storage.importing.source import Pixels

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


def halve(pixels: Pixels) -> Pixels:
    """Means of 2 x 2 pixels, (c, y, x) to (c, ceil(y / 2), ceil(x / 2)), of the same type.

    Halves of integers round up; at an odd end the mean is over the pixels that there are.

    >>> halve(np.array([[[0, 1, 9], [1, 0, 8], [7, 7, 5]]], np.uint8))
    array([[[1, 9],
            [7, 5]]], dtype=uint8)
    """
    height, width = pixels.shape[-2:]
    if height % 2 or width % 2:
        # Repeating the last row leaves the mean as it is: (a + a + b + b) / 4 = (a + b) / 2.
        pixels = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    total: Pixels = pixels[:, ::2, ::2].astype(_sum_type(pixels))
    for row, column in ((0, 1), (1, 0), (1, 1)):
        np.add(total, pixels[:, row::2, column::2], out=total)
    if pixels.dtype.kind == "f":
        return np.divide(total, 4).astype(pixels.dtype)
    return np.right_shift(np.add(total, 2, out=total), 2, out=total).astype(pixels.dtype)


def _sum_type(pixels: Pixels) -> type[np.uint16] | type[np.uint32] | type[np.float64]:
    """A type that holds the sum of four pixels."""
    if pixels.dtype == np.uint8:
        return np.uint16
    return np.uint32 if pixels.dtype == np.uint16 else np.float64
