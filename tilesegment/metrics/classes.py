"""Agreement of classes, from a confusion matrix: pixels by (true, predicted) class."""

import numpy as np
import numpy.typing as npt

from tilesegment.metrics.overlaps import Counts


def pixel_error(matrix: Counts) -> float:
    """Share of pixels with another class; NaN without pixels.

    For two classes it is the squared difference of the ISBI 2012 challenge.

    >>> pixel_error(np.array([[8, 1], [1, 2]])).__round__(3)
    0.167
    """
    pixels = int(matrix.sum())
    return float(1 - np.trace(matrix) / pixels) if pixels else float("nan")


def dice(matrix: Counts) -> npt.NDArray[np.float64]:
    """Dice coefficient per class, 2 |T and P| / (|T| + |P|); NaN for classes that do not occur.

    >>> dice(np.array([[8, 1], [1, 2]])).round(3)
    array([0.889, 0.667])
    """
    return _share(2 * np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1))


def iou(matrix: Counts) -> npt.NDArray[np.float64]:
    """Intersection over union (Jaccard index) per class; NaN for classes that do not occur.

    >>> iou(np.array([[8, 1], [1, 2]])).round(3)
    array([0.8, 0.5])
    """
    common = np.diag(matrix)
    return _share(common, matrix.sum(axis=0) + matrix.sum(axis=1) - common)


def _share(part: Counts, whole: Counts) -> npt.NDArray[np.float64]:
    return part / np.where(whole > 0, whole, np.nan)
