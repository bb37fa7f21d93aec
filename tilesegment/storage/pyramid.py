"""Label pyramids: the most frequent label of each block, never an interpolated one."""

import itertools
from math import prod

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]

_MOST_CLASSES = 255


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
    if labels.max(initial=0) > _MOST_CLASSES:
        return _pool_identities(labels, blocks, factors)
    winner = np.zeros(blocks, labels.dtype)
    votes = np.zeros(blocks, np.uint32)
    for value in np.flatnonzero(np.bincount(labels.ravel())):
        count = _count_blocks(labels == value, blocks, factors)
        better = count > votes
        winner[better] = value
        votes[better] = count[better]
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


def _count_blocks(
    mask: npt.NDArray[np.bool_], blocks: tuple[int, ...], factors: tuple[int, ...]
) -> npt.NDArray[np.unsignedinteger]:
    """How many pixels of each block are set; pixels beyond the far end count as unset.

    Adds the first pixels of all blocks, the second ones, and so on: many times faster than
    summing over axes of two or four pixels.
    """
    count = np.zeros(blocks, np.uint8 if prod(factors) < 256 else np.uint32)
    for offsets in itertools.product(*(range(factor) for factor in factors)):
        steps = zip(offsets, factors, strict=True)
        pixels = mask[tuple(slice(offset, None, factor) for offset, factor in steps)]
        count[tuple(slice(size) for size in pixels.shape)] += pixels
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
