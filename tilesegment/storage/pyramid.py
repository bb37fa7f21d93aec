"""Label pyramids: the most frequent label of each block, never an interpolated one."""

from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]

_MOST_CLASSES = 255
_FEW_VALUES = 16
"""Up to which each is counted apart, which is many times faster."""


def count_labels(labels: Labels, values: Sequence[int]) -> list[int]:
    """How many pixels hold each of some values, which are 0 or more."""
    if len(values) <= _FEW_VALUES:
        return [int(np.count_nonzero(labels == value)) for value in values]
    counts = np.bincount(labels.ravel(), minlength=max(values) + 1)
    return [int(counts[value]) for value in values]


def pool_by_mode(labels: Labels, factors: tuple[int, ...]) -> Labels:
    """The most frequent label of each block; the smallest of them on a tie.

    Args:
        labels: any number of axes, integer, 0 or more.
        factors: block size per axis; blocks are cut at the far end of an axis.

    Returns:
        ceil(size / factor) per axis, of the same dtype.

    >>> pool_by_mode(np.array([[1, 1, 2], [0, 1, 2], [3, 0, 0]], np.uint8), (2, 2))
    array([[1, 2],
           [0, 0]], dtype=uint8)
    """
    blocks = tuple(-(-size // factor) for size, factor in zip(labels.shape, factors, strict=True))
    largest = int(labels.max(initial=0))
    if largest > _MOST_CLASSES:
        return _pool_identities(labels, blocks, factors)
    winner = np.zeros(blocks, labels.dtype)
    votes = np.zeros(blocks, _count_type(factors))
    values = range(largest + 1)
    for value, pixels in zip(values, count_labels(labels, values), strict=True):
        if pixels:
            count = _count_blocks(labels == value, factors)
            np.copyto(winner, value, where=count > votes)
            np.maximum(votes, count, out=votes)
    return winner


def _pool_identities(labels: Labels, blocks: tuple[int, ...], factors: tuple[int, ...]) -> Labels:
    """The same where labels are too many to be counted one by one: those of a block are sorted."""
    beyond = np.iinfo(np.int64).max
    sides = [block * factor for block, factor in zip(blocks, factors, strict=True)]
    whole = np.full(sides, beyond, np.int64)
    whole[tuple(slice(size) for size in labels.shape)] = labels
    split = whole.reshape([size for pair in zip(blocks, factors, strict=True) for size in pair])
    inner = tuple(range(1, split.ndim, 2))
    rows = np.sort(np.moveaxis(split, inner, range(-len(inner), 0)).reshape(*blocks, -1))
    winner, votes, run = rows[..., 0].copy(), np.ones(blocks, np.uint32), np.ones(blocks, np.uint32)
    for position in range(1, rows.shape[-1]):
        here = rows[..., position]
        run = np.where(here == rows[..., position - 1], run + 1, 1)
        better = (run > votes) & (here != beyond)
        winner[better] = here[better]
        votes[better] = run[better]
    return winner.astype(labels.dtype)


def _count_type(factors: tuple[int, ...]) -> type[np.unsignedinteger]:
    """Of the number of pixels in a block."""
    return np.uint8 if prod(factors) < 256 else np.uint32


def _count_blocks(
    mask: npt.NDArray[np.bool_], factors: tuple[int, ...]
) -> npt.NDArray[np.unsignedinteger]:
    """How many pixels of each block are set; pixels beyond the far end count as unset.

    Axis by axis it adds the first pixels of all blocks, the second ones, and so on: many times
    faster than summing over axes of two or four pixels.
    """
    count: npt.NDArray[np.unsignedinteger] = mask.astype(_count_type(factors))
    for axis, factor in enumerate(factors):
        before = (slice(None),) * axis
        total = count[(*before, slice(0, None, factor))].copy()
        for offset in range(1, factor):
            pixels = count[(*before, slice(offset, None, factor))]
            total[(*before, slice(pixels.shape[axis]))] += pixels
        count = total
    return count


def repeat(labels: Labels, factors: tuple[int, ...]) -> Labels:
    """Each label `factor` times along each axis: the nearest neighbour on a finer grid."""
    for axis, factor in enumerate(factors):
        labels = labels.repeat(factor, axis=axis)
    return labels


def level_factors(
    coarse_shape: tuple[int, ...],
    coarse_scale: tuple[float, ...],
    fine_shape: tuple[int, ...],
    fine_scale: tuple[float, ...],
) -> tuple[int, ...]:
    """Whole-number size of a coarse pixel in fine ones, per axis.

    Taken from the scales; from the shapes where the scales do not differ.

    >>> level_factors((3, 1483), (1.0, 1.0), (3, 2967), (1.0, 0.5))
    (1, 2)
    """
    return tuple(
        max(1, round(scale / finer if scale != finer else fine / size))
        for size, scale, fine, finer in zip(
            coarse_shape, coarse_scale, fine_shape, fine_scale, strict=True
        )
    )
