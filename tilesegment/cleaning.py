"""Small regions away and small holes filled, in a map of classes that is looked at by blocks.

A region is a 4-connected component of one class other than 0. A hole is a 4-connected component
of background, once small regions have become background, that does not touch the image's rim.
A hole gets the class of the pixel above its first pixel (in the order of rows): where several
classes surround it, that one.

Whether a component is small is known once all blocks have been looked at: `Joining` adds up
the parts, and each block is told which of its open components are.
"""

from dataclasses import dataclass

import numpy as np

from tilesegment.components import (
    BlockComponents,
    Classes,
    Identities,
    Joins,
    Numbers,
    find_components,
    on_rim,
    same_class,
)
from tilesegment.errors import OptionError
from tilesegment.tiling import TileGrid, Window

BORDER = 1
"""Pixels around a block that are read."""


@dataclass(frozen=True)
class Cleaning:
    """What is cleaned away; both in pixels, 0 for nothing.

    Raises:
        OptionError: if a number is negative.
    """

    min_area: int = 0
    """Regions of fewer pixels become background."""
    fill_holes: int = 0
    """Holes of fewer pixels get the class around them."""

    def __post_init__(self) -> None:
        if min(self.min_area, self.fill_holes) < 0:
            raise OptionError("--min-area and --fill-holes are numbers of pixels, 0 or more")

    def __bool__(self) -> bool:
        return bool(self.min_area or self.fill_holes)


def find_regions(
    classes: Classes, around: Window, window: Window, grid: TileGrid
) -> BlockComponents:
    """The regions of a block.

    Args:
        classes: of the window `around`, which is the block with its border, inside the image.
        around: where they are.
        window: of the block.
        grid: of all blocks.
    """
    return find_components(same_class(classes).cut(window.seen_from(around)), window, grid)


def remove_small(
    classes: Classes, regions: BlockComponents, min_area: int, small: Identities
) -> Classes:
    """The classes of a block without its small regions.

    Args:
        classes: of the block, (y, x).
        regions: of the block.
        min_area: pixels that a region has at least.
        small: labels of those open regions that are small as a whole.
    """
    removed = np.concatenate([[False], ~regions.open & (regions.areas < min_area)])
    removed[small] = True
    return np.where(removed[regions.labels], 0, classes).astype(classes.dtype)


def find_holes(classes: Classes, window: Window, grid: TileGrid) -> BlockComponents:
    """The components of background of a block, holes or not."""
    joins = same_class((classes == 0).astype(np.uint8))
    right, down = joins.right.copy(), joins.down.copy()
    # Background that faces background is joined: the other side says whether it is.
    right[:, -1], down[-1] = joins.inside[:, -1], joins.inside[-1]
    return find_components(Joins(joins.inside, right, down), window, grid)


def classes_above(classes: Classes, above: Classes, holes: BlockComponents) -> Numbers:
    """The class above the first pixel of each component of background, (count,).

    Args:
        classes: of the block, without small regions.
        above: (width,): the row above the block; zeros beyond the rim.
        holes: of the block.
    """
    rows, columns = np.divmod(holes.firsts, holes.window.width)
    return np.where(rows > 0, classes[rows - 1, columns], above[columns]).astype(np.int64)


def fill_holes(
    classes: Classes,
    holes: BlockComponents,
    marks: Numbers,
    most: int,
    grid: TileGrid,
    filled: Identities,
    fillings: Numbers,
) -> Classes:
    """The classes of a block with its holes filled.

    Args:
        classes: of the block, without small regions.
        holes: its components of background.
        marks: (count,): the class above each.
        most: pixels that a hole has too many.
        grid: of all blocks.
        filled: labels of those open components that are small holes as a whole.
        fillings: the class that each of these gets.
    """
    gets = np.zeros(holes.count + 1, np.int64)
    closed = ~holes.open & (holes.areas < most) & ~on_rim(holes, grid)
    gets[1:][closed] = marks[closed]
    gets[filled] = fillings
    return np.where(classes == 0, gets[holes.labels], classes).astype(classes.dtype)
