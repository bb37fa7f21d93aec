"""Labels as pictures, and pictures side by side."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tilesegment.colours import BACKGROUND, OKABE_ITO, RGB

Picture = npt.NDArray[np.uint8]
"""(y, x, 3)"""

UNKNOWN: RGB = (128, 128, 128)
"""Where nobody annotated."""
GAP = 4
"""Pixels between two pictures."""


def coloured(labels: npt.NDArray[np.integer], unknown: npt.NDArray[np.bool_]) -> Picture:
    """(y, x) labels to (y, x, 3): the colours of classes, in turn; grey where `unknown`."""
    palette = np.array([BACKGROUND, *OKABE_ITO], np.uint8)
    picture: Picture = palette[np.where(labels > 0, (labels - 1) % len(OKABE_ITO) + 1, 0)]
    picture[unknown] = UNKNOWN
    return picture


def beside(pictures: Sequence[Picture]) -> Picture:
    """Pictures of one height in a row, each with a gap on its right."""
    return np.concatenate([np.pad(item, ((0, 0), (0, GAP), (0, 0))) for item in pictures], axis=1)


def stacked(rows: Sequence[Picture]) -> Picture:
    """Pictures one above the other, each with a gap below; narrower ones are filled with black."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0))) for row in rows]
    )
