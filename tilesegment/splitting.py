r"""Objects that touch are cut at their necks: which neighbours of one class are one object.

Each pixel has a depth: its distance to the nearest pixel of another class, counted up to
`DEPTH`. It leans on the neighbour that leads to the deepest pixel within `reach` steps; what
leans on one pixel in the end is one object (hill climbing to peaks that are more than `reach`
apart). Two neighbours are also joined where the object is nearly as thick as at its thickest
place within reach: a bar, or what is thicker than `DEPTH`, is not cut::

     ____        ____
    /    \__/  /    \     depth 9 on the left, 4 in the neck, 8 on the right:
    |  9   4      8  |     4 < 0.75 * 8, so here it is cut
    \____/  \__/____/

All this is whole numbers and comparisons of pixels within `border`, so that it is the same in
every block that sees so far. What is joined over longer ways, `Joining` finds out.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tilesegment.components import Classes, Joins, Numbers, same_class
from tilesegment.errors import OptionError

SplitKind = Literal["none", "distance"]

DEPTH = 32
"""Pixels beyond which depths are not told apart."""
REACH = 8
"""Pixels between two peaks, at least, if nobody says."""
MOST_REACH = 64
_NECK = (3, 4)
"""A neck is thinner than this share of the thickest place within reach."""


@dataclass(frozen=True)
class Split:
    """How objects that touch are told apart.

    Raises:
        OptionError: if it cannot be done.
    """

    kind: SplitKind = "none"
    reach: int = REACH
    """Pixels: peaks of one object are no farther apart."""

    def __post_init__(self) -> None:
        if not 1 <= self.reach <= MOST_REACH:
            raise OptionError(f"--reach {self.reach} is not a number of pixels, 1 to {MOST_REACH}")

    @property
    def border(self) -> int:
        """Pixels around a block on which its objects depend beyond what is joined."""
        return 1 if self.kind == "none" else DEPTH + self.reach + 1


def join(classes: Classes, split: Split) -> Joins:
    """Which neighbours are of one object, for all pixels farther than `split.border` from a cut.

    Args:
        classes: (y, x), 0 is background.
        split: how.
    """
    joins = same_class(classes)
    if split.kind == "none" or not joins.inside.any():
        return joins
    depths = _squared_depths(classes)
    peaks, leads = _climb(depths, joins, split.reach)
    right, down = joins.right.copy(), joins.down.copy()
    right[:, :-1] &= (
        (leads[:, :-1] == _RIGHT)
        | (leads[:, 1:] == _LEFT)
        | _thick(depths[:, :-1], depths[:, 1:], peaks[:, :-1], peaks[:, 1:])
    )
    down[:-1] &= (
        (leads[:-1] == _DOWN)
        | (leads[1:] == _UP)
        | _thick(depths[:-1], depths[1:], peaks[:-1], peaks[1:])
    )
    return Joins(joins.inside, right, down)


def _squared_depths(classes: Classes) -> Numbers:
    """Squared distance to the nearest pixel of another class, at most `DEPTH` squared."""
    depths = np.zeros(classes.shape, np.int64)
    for value in np.unique(classes[classes != 0]):
        pixels = classes == value
        if pixels.all():
            return np.full(classes.shape, DEPTH**2, np.int64)
        squares = np.rint(ndimage.distance_transform_edt(pixels) ** 2)
        depths[pixels] = np.minimum(squares[pixels], DEPTH**2)
    return depths


_STAY, _RIGHT, _LEFT, _DOWN, _UP = range(5)


def _climb(depths: Numbers, joins: Joins, reach: int) -> tuple[Numbers, npt.NDArray[np.uint8]]:
    """The largest squared depth within `reach` steps of each pixel, and where the way begins.

    Of equally deep pixels the first in the order of rows is the peak.
    """
    size = depths.size
    keys = np.where(joins.inside, depths * size + np.arange(size)[::-1].reshape(depths.shape), 0)
    leads = np.full(depths.shape, _STAY, np.uint8)
    for _ in range(reach):
        best, found = keys.copy(), leads.copy()
        for direction, seen in _neighbours(keys, joins):
            better = seen > best
            best[better] = seen[better]
            found[better] = direction
        keys, leads = best, found
    return keys // size, leads


def _neighbours(keys: Numbers, joins: Joins) -> list[tuple[int, Numbers]]:
    """For each direction what a pixel sees there; 0 where that is of another class."""
    right, left, down, up = (np.zeros_like(keys) for _ in range(4))
    across, along = joins.right[:, :-1], joins.down[:-1]
    right[:, :-1] = keys[:, 1:] * across
    left[:, 1:] = keys[:, :-1] * across
    down[:-1] = keys[1:] * along
    up[1:] = keys[:-1] * along
    return [(_RIGHT, right), (_LEFT, left), (_DOWN, down), (_UP, up)]


def _thick(
    depth: Numbers, other_depth: Numbers, peak: Numbers, other_peak: Numbers
) -> npt.NDArray[np.bool_]:
    """Whether there is no neck between two neighbours; all squared."""
    part, whole = _NECK
    here, there = np.minimum(depth, other_depth), np.minimum(peak, other_peak)
    thick: npt.NDArray[np.bool_] = whole**2 * here >= part**2 * there
    return thick
