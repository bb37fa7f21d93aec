"""The measures of the ISBI 2012 challenge, for pictures of cells with membranes between them.

They look at a section as a whole, and were made for sections of 512 x 512 pixels. Cells are
4-connected, membranes 8-connected.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tilesegment.metrics.overlaps import count_overlaps
from tilesegment.metrics.partitions import PartitionScores, compare_partitions
from tilesegment.metrics.warping import Mask, score_warping


@dataclass(frozen=True)
class BoundaryScores:
    """Of one section; NaN where it has no cell, or nothing is annotated."""

    pixel_error: float
    """Share of the pixels that differ."""
    rand_error: float
    """1 - F-score of the foreground-restricted Rand index, as the challenge of 2012 ranked by."""
    v_rand: float
    """The same F-score after the predicted membranes were thinned; 1 is best."""
    v_info: float
    """The foreground-restricted information score after thinning; 1 is best."""
    warping_error: float
    """See `tilesegment.metrics.warping`."""
    splits_and_mergers: float
    """The part of the warping error that the challenge's table of 2012 shows."""


def score_boundaries(truth: Mask, predicted: Mask, known: Mask | None = None) -> BoundaryScores:
    """Compare one section.

    Args:
        truth: (y, x), True inside cells.
        predicted: (y, x).
        known: (y, x), where somebody annotated; None for everywhere.
    """
    known = np.ones(truth.shape, bool) if known is None else known
    true_cells, predicted_cells = label_objects(truth), label_objects(predicted)
    plain = _compare(true_cells, predicted_cells, known)
    thinned = _compare(true_cells, thin_membranes(predicted_cells), known)
    warping = score_warping(truth, predicted, known)
    return BoundaryScores(
        pixel_error=float((truth != predicted)[known].mean()) if known.any() else float("nan"),
        rand_error=1 - plain.rand,
        v_rand=thinned.rand,
        v_info=thinned.information,
        warping_error=warping.error,
        splits_and_mergers=warping.splits_and_mergers,
    )


def _compare(
    truth: npt.NDArray[np.int32], predicted: npt.NDArray[np.int32], known: Mask
) -> PartitionScores:
    return compare_partitions(count_overlaps(truth[known], predicted[known]))


def label_objects(foreground: Mask) -> npt.NDArray[np.int32]:
    """The 4-connected parts of the foreground, numbered from 1; (y, x) int32.

    >>> label_objects(np.array([[True, True, False, True]]))
    array([[1, 1, 0, 2]], dtype=int32)
    """
    labels: npt.NDArray[np.int32] = ndimage.label(foreground)[0]
    return labels


def thin_membranes(cells: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Numbered cells, grown until they meet: each membrane pixel goes to the nearest cell.

    So the membrane's width does not count, and nothing is split or merged.

    >>> thin_membranes(np.array([[1, 0, 0, 0, 0, 2]], np.int32))
    array([[1, 1, 1, 2, 2, 2]], dtype=int32)
    """
    if not cells.any():
        return cells
    nearest = ndimage.distance_transform_edt(
        cells == 0, return_distances=False, return_indices=True
    )
    grown: npt.NDArray[np.int32] = cells[tuple(nearest)]
    return grown
