"""Warping error: where the prediction differs in topology, not merely in the place of a border.

Jain et al. 2010, "Boundary learning by optimization with topological constraints": the truth is
warped towards the prediction by flipping one pixel after the other, but only simple points,
whose flip splits, merges, creates or removes neither an object nor a hole. What still differs
when no simple point is left is the error.

Objects are 4-connected, the background between them is 8-connected, and lies beyond the rim.
"""

from collections import deque
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]

_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Offsets (y, x); the position in this order is the neighbour's bit."""
_FOUR = ndimage.generate_binary_structure(2, 1)
_EIGHT = ndimage.generate_binary_structure(2, 2)


@dataclass(frozen=True)
class WarpingScores:
    """Shares of the pixels in the mask; NaN if it is empty.

    Upper bounds of the least possible shares: the order of the flips is that of a queue, as the
    paper's is greedy.
    """

    error: float
    """Pixels that differ after the truth was warped towards the prediction."""
    splits_and_mergers: float
    """Those of them whose flip would split an object or merge two."""


def score_warping(truth: Mask, predicted: Mask, mask: Mask | None = None) -> WarpingScores:
    """Compare the topology of two pictures.

    Args:
        truth: (y, x), True inside objects.
        predicted: (y, x).
        mask: (y, x), where pixels may be flipped and are counted; None for everywhere.
    """
    allowed = np.ones(truth.shape, bool) if mask is None else mask
    warped = warp(truth, predicted, mask)
    differs = (warped != predicted) & allowed
    if not allowed.any():
        return WarpingScores(float("nan"), float("nan"))
    severe = splits_and_mergers(warped, differs)
    return WarpingScores(float(differs.sum() / allowed.sum()), float(severe.sum() / allowed.sum()))


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


def splits_and_mergers(picture: Mask, pixels: Mask) -> Mask:
    """Of some pixels those whose flip, by itself, would split an object or merge two.

    Where k parts of the background touch an object's pixel, its flip joins them. Each two that
    were one already close a ring around a part of the object, which it cuts off.
    """
    padded = np.pad(picture, 1)
    objects, background = ndimage.label(padded, _FOUR)[0], ndimage.label(~padded, _EIGHT)[0]
    parts = [_parts(code)[1] for code in range(256)]
    codes = _codes(padded)[1:-1, 1:-1]
    found = np.zeros(picture.shape, bool)
    for y, x in np.argwhere(pixels):
        around = slice(y, y + 3), slice(x, x + 3)
        if picture[y, x]:
            touching = np.count_nonzero(np.unique(background[around]))
            found[y, x] = parts[codes[y, x]] > touching
        else:
            found[y, x] = np.count_nonzero(np.unique(objects[around][_FOUR])) > 1
    return found


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
    return tuple(_parts(code) == (1, 1) for code in range(256))


def _parts(code: int) -> tuple[int, int]:
    """How many parts of the objects, and of the background, touch the centre of a neighbourhood."""
    around = np.zeros((3, 3), bool)
    for bit, (y, x) in enumerate(_NEIGHBOURS):
        around[1 + y, 1 + x] = code >> bit & 1
    background = ~around
    background[1, 1] = False
    objects = ndimage.label(around, _FOUR)[0]
    return int(np.count_nonzero(np.unique(objects[_FOUR]))), ndimage.label(background, _EIGHT)[1]
