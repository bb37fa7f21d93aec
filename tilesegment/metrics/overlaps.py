"""How many pixels hold each pair of labels: what most metrics are computed from.

A pixel belongs to one pair, whatever block it is looked at in: the counts of blocks add up to
those of the whole, for classes and for objects that reach over many blocks alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

_MERGE_ROWS = 1 << 20


@dataclass(frozen=True)
class Overlaps:
    """A sparse table of pixel counts; every pair of labels occurs once at most."""

    truth: Counts
    """(n,), label in the truth."""
    predicted: Counts
    """(n,), label in the prediction."""
    pixels: Counts
    """(n,), pixels with this pair of labels, above 0."""

    def matrix(self, values: Sequence[int]) -> Counts:
        """Pixels by (true, predicted) value, (k, k); all labels must be among the k `values`."""
        order = np.argsort(values)
        rising = np.asarray(values)[order]
        rows = order[np.searchsorted(rising, self.truth)]
        columns = order[np.searchsorted(rising, self.predicted)]
        table = np.zeros((len(values), len(values)), np.int64)
        np.add.at(table, (rows, columns), self.pixels)
        return table

    def renamed(self, truth: Mapping[int, int], predicted: Mapping[int, int]) -> "Overlaps":
        """The table with other labels; what gets the same label is one afterwards."""
        return _merged(renamed(self.truth, truth), renamed(self.predicted, predicted), self.pixels)

    def foreground(self) -> "Overlaps":
        """With label 1 for every label but 0."""
        return _merged((self.truth != 0) * 1, (self.predicted != 0) * 1, self.pixels)


NOTHING = Overlaps(*np.zeros((3, 0), np.int64))


def count_overlaps(
    truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], ignore: int | None = None
) -> Overlaps:
    """Count the pairs of labels in two arrays of one shape.

    >>> count_overlaps(np.array([0, 7, 7, 9]), np.array([0, 1, 1, 1]), ignore=9)
    Overlaps(truth=array([0, 7]), predicted=array([0, 1]), pixels=array([1, 2]))

    Args:
        truth: integer.
        predicted: integer, of the same shape.
        ignore: label of the truth where nobody annotated; such pixels are left out.
    """
    if ignore is not None:
        known = truth != ignore
        truth, predicted = truth[known], predicted[known]
    truth, predicted = truth.ravel(), predicted.ravel()
    if not truth.size:
        return NOTHING
    # Neighbours mostly hold the same pair: sorting the runs is much quicker than the pixels.
    starts = _starts(truth, predicted)
    lengths = np.diff(starts, append=truth.size)
    return _merged(truth[starts].astype(np.int64), predicted[starts].astype(np.int64), lengths)


def _starts(
    truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer]
) -> npt.NDArray[np.intp]:
    """Where the pair of labels differs from the one before."""
    differs = (truth[1:] != truth[:-1]) | (predicted[1:] != predicted[:-1])
    return np.flatnonzero(np.concatenate([[True], differs]))


def renamed(labels: npt.NDArray[np.integer], names: Mapping[int, int]) -> Counts:
    """Labels by their new names, int64; those without one become 0."""
    found, position = np.unique(labels, return_inverse=True)
    new = np.array([names.get(label, 0) for label in found.tolist()], np.int64)
    return new[position].reshape(labels.shape)


def add_up(tables: Iterable[Overlaps]) -> Overlaps:
    """The table of all blocks together; holds little more than the result at any time."""
    total, waiting, rows = NOTHING, [], 0
    for table in tables:
        waiting.append(table)
        rows += len(table.pixels)
        if rows > _MERGE_ROWS + len(total.pixels):
            total, waiting, rows = _sum([total, *waiting]), [], 0
    return _sum([total, *waiting])


def _sum(tables: Sequence[Overlaps]) -> Overlaps:
    return _merged(
        np.concatenate([table.truth for table in tables]),
        np.concatenate([table.predicted for table in tables]),
        np.concatenate([table.pixels for table in tables]),
    )


def _merged(truth: Counts, predicted: Counts, pixels: Counts) -> Overlaps:
    """Rows of the same pair become one."""
    if not len(pixels):
        return NOTHING
    order = np.lexsort((predicted, truth))
    truth, predicted, pixels = truth[order], predicted[order], pixels[order]
    starts = _starts(truth, predicted)
    return Overlaps(truth[starts], predicted[starts], np.add.reduceat(pixels, starts))
