"""Warping error: where the prediction differs in topology, not merely in the place of a border.

Jain et al. 2010, "Boundary learning by optimization with topological constraints": the truth is
warped towards the prediction by flipping one pixel after the other, but only simple points,
whose flip splits, merges, creates or removes neither an object nor a hole. What still differs
when no simple point is left is the error.

Objects are 4-connected, the background between them is 8-connected, and lies beyond the rim.
"""

from collections import deque
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]

_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Offsets (y, x); the position in this order is the neighbour's bit."""
_FOUR = ndimage.generate_binary_structure(2, 1)
_EIGHT = ndimage.generate_binary_structure(2, 2)


def warping_error(truth: Mask, predicted: Mask, mask: Mask | None = None) -> float:
    """Share of the pixels that differ after the truth was warped towards the prediction.

    Args:
        truth: (y, x), True inside objects.
        predicted: (y, x).
        mask: (y, x), where pixels may be flipped and are counted; None for everywhere.

    Returns:
        An upper bound of the least possible share: the order of the flips is that of a queue, as
        the paper's is greedy. NaN if the mask is empty.
    """
    allowed = np.ones(truth.shape, bool) if mask is None else mask
    differs = (warp(truth, predicted, mask) != predicted) & allowed
    return float(differs.sum() / allowed.sum()) if allowed.any() else float("nan")


def warp(truth: Mask, predicted: Mask, mask: Mask | None = None) -> Mask:
    """The truth, flipped at simple points until none is left at which it differs.

    A pixel comes into the queue when one of its neighbours was flipped, for only then can it have
    become simple. Each pixel is flipped once at most, so the time grows with the number of
    pixels that differ.
    """
    differs = truth != predicted
    if mask is not None:
        differs &= mask
    padded = np.pad(truth, 1)
    offsets = [y * padded.shape[1] + x for y, x in _NEIGHBOURS]
    codes = _codes(padded).ravel().tolist()
    pending = np.pad(differs, 1).ravel().tolist()
    state = padded.ravel().tolist()
    simple = simple_points()
    queue = deque(np.flatnonzero(np.pad(differs, 1)).tolist())
    queued = pending.copy()
    while queue:
        pixel = queue.popleft()
        queued[pixel] = False
        if not simple[codes[pixel]]:
            continue
        state[pixel] = not state[pixel]
        pending[pixel] = False
        for bit, offset in enumerate(offsets):
            neighbour = pixel - offset  # the one that sees this pixel at `offset`
            if pending[neighbour]:
                codes[neighbour] ^= 1 << bit
                if not queued[neighbour]:
                    queued[neighbour] = True
                    queue.append(neighbour)
    return np.array(state).reshape(padded.shape)[1:-1, 1:-1]


def _codes(padded: Mask) -> npt.NDArray[np.int64]:
    """The neighbourhood of each pixel as a number of eight bits; 0 on the rim."""
    codes = np.zeros(padded.shape, np.int64)
    inner = codes[1:-1, 1:-1]
    height, width = padded.shape
    for bit, (y, x) in enumerate(_NEIGHBOURS):
        inner |= padded[1 + y : height - 1 + y, 1 + x : width - 1 + x].astype(np.int64) << bit
    return codes


@cache
def simple_points() -> tuple[bool, ...]:
    """For each of the 256 neighbourhoods, whether a pixel in its centre is simple.

    It is if exactly one 4-connected part of the objects and exactly one 8-connected part of the
    background touch it (Kong and Rosenfeld 1989, "Digital topology").

    >>> left, right = 1 << 3, 1 << 4
    >>> simple_points()[left], simple_points()[left | right], simple_points()[0]
    (True, False, False)
    """
    return tuple(_is_simple(code) for code in range(256))


def _is_simple(code: int) -> bool:
    around = np.zeros((3, 3), bool)
    for bit, (y, x) in enumerate(_NEIGHBOURS):
        around[1 + y, 1 + x] = code >> bit & 1
    beside = _FOUR.copy()
    beside[1, 1] = False
    background = ~around
    background[1, 1] = False
    objects = ndimage.label(around, _FOUR)[0][beside & around]
    return len(np.unique(objects)) == 1 and ndimage.label(background, _EIGHT)[1] == 1
