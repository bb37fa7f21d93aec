"""Polygons of labels, block by block, equal to those of the whole image.

A polygon is a 4-connected component of one label, with its holes, along the corners of pixels
in (x, y). Components inside a block are finished at once; what touches an inner border of the
block is a piece, and waits for its neighbours::

    +--------+--------+
    |  (a)   |        |   a  inside a block: finished at once
    |     (b | b)     |   b  pieces that share an edge across the border are one component,
    +-----|--+--------+      finished when no piece of it touches the blocks that are to come
    |     (b |        |
    +--------+--------+

In memory are one block, the pieces of unfinished components, and for each pixel along the
lower border of a row of blocks the number of the piece that owns it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely
from rasterio.transform import Affine

from tilesegment.geometry import YX
from tilesegment.tiling import TileGrid, Window

Labels = npt.NDArray[np.integer[Any]]

BLOCK = 2048
"""Pixels per side that are looked at at once."""

_NOBODY = -1
_READY_TYPES = ("uint8", "uint16", "int16", "int32")
"""Types that GDAL takes as they are."""


@dataclass(frozen=True)
class LabelPolygon:
    """One component of one label."""

    value: int
    shape: shapely.Polygon
    """In pixel corners, (x, y), of the finest level."""
    pixels: int
    """Its area, as counted before any simplification."""


def polygons(
    read: Callable[[Window], Labels],
    size: YX,
    wanted: Collection[int] | None = None,
    block: int = BLOCK,
) -> Iterator[LabelPolygon]:
    """The components of a plane of labels, in an order that depends on the block alone.

    Args:
        read: gives the labels of a window inside the plane, (y, x), of any integer type.
        size: of the plane.
        wanted: labels that get polygons; by default all but 0.
        block: pixels per side of a block.
    """
    grid = TileGrid(size, planes=1, tile=block)
    seams = _Seams(size, block)
    for tile in grid.tiles():
        window = grid.write_window(tile)
        if tile.column == 0:
            yield from seams.next_row(window)
        for value, shape in _components(read(window), window, wanted):
            if _touches_inner_border(shape, window, size):
                seams.add(value, shape)
            else:
                yield _finished(value, shape)
        seams.join(window)
    yield from seams.next_row(Window(size.y, 0, 0, size.x))


def _components(
    labels: Labels, window: Window, wanted: Collection[int] | None
) -> Iterator[tuple[int, shapely.Polygon]]:
    """Components of a block, at their place in the plane."""
    mask = labels != 0 if wanted is None else np.isin(labels, list(wanted))
    if not mask.any():
        return
    values = None
    if labels.dtype.name not in _READY_TYPES:
        values, labels = np.unique(labels, return_inverse=True)
        labels = labels.astype(np.int32)
    place = Affine.translation(window.x, window.y)
    for shape, value in rasterio.features.shapes(labels, mask, connectivity=4, transform=place):
        outer, *holes = shape["coordinates"]
        index = int(value)
        yield index if values is None else int(values[index]), shapely.Polygon(outer, holes)


def _finished(value: int, shape: shapely.Polygon) -> LabelPolygon:
    return LabelPolygon(value, shape, round(shape.area))


def _touches_inner_border(shape: shapely.Polygon, window: Window, size: YX) -> bool:
    left, top, right, bottom = shape.bounds
    return bool(
        (left == window.x > 0)
        or (top == window.y > 0)
        or (right == window.x + window.width < size.x)
        or (bottom == window.y + window.height < size.y)
    )


class _Seams:
    """Pieces that touch the borders of blocks, and which of them belong together."""

    def __init__(self, size: YX, block: int) -> None:
        self._size, self._block = size, block
        self._pieces: dict[int, tuple[int, shapely.Polygon]] = {}
        self._joined: dict[int, int] = {}
        """Piece -> another of its component; the last one names the component."""
        self._added: list[int] = []
        self._count = 0
        self._above = np.full(size.x, _NOBODY)
        self._below = self._above.copy()
        self._left = np.full(block, _NOBODY)

    def add(self, value: int, shape: shapely.Polygon) -> None:
        """Keep a piece of the block at hand."""
        self._pieces[self._count] = value, shape
        self._joined[self._count] = self._count
        self._added.append(self._count)
        self._count += 1

    def join(self, window: Window) -> None:
        """Join the pieces of the block at hand to those on its left and above it."""
        columns = slice(window.x, window.x + window.width)
        left, top, right, bottom = self._owners(window)
        self._meet(self._left[: window.height], left)
        self._meet(self._above[columns], top)
        self._left[: window.height] = right
        self._below[columns] = bottom
        self._added = []

    def next_row(self, window: Window) -> Iterator[LabelPolygon]:
        """Finish what does not reach the row of blocks that starts with `window`."""
        self._above, self._below = self._below, np.full(self._size.x, _NOBODY)
        self._left = np.full(self._block, _NOBODY)
        is_last = window.y >= self._size.y
        facing = set() if is_last else set(np.unique(self._above)) - {_NOBODY}
        unfinished = {self._component(piece) for piece in facing}
        finished = defaultdict(list)
        for piece in self._pieces:
            component = self._component(piece)
            if component not in unfinished:
                finished[component].append(piece)
        for pieces in finished.values():
            yield self._take(pieces)

    def _take(self, pieces: list[int]) -> LabelPolygon:
        """The pieces of a finished component as one polygon; they are forgotten here."""
        taken = [self._pieces.pop(piece) for piece in pieces]
        for piece in pieces:
            del self._joined[piece]
        return _finished(taken[0][0], _united([shape for _, shape in taken]))

    def _owners(self, window: Window) -> tuple[npt.NDArray[np.int_], ...]:
        """Which piece owns each pixel along the left, top, right and bottom of a block."""
        height, width = window.height, window.width
        sides = tuple(np.full(length, _NOBODY) for length in (height, width, height, width))
        borders = (
            (0, window.x, window.y),
            (1, window.y, window.x),
            (0, window.x + width, window.y),
            (1, window.y + height, window.x),
        )
        for piece in self._added:
            ring = shapely.get_coordinates(self._pieces[piece][1].exterior).astype(int)
            for side, (axis, border, origin) in zip(sides, borders, strict=True):
                for start, stop in _runs_on(ring, axis, border):
                    side[start - origin : stop - origin] = piece
        return sides

    def _meet(self, ours: npt.NDArray[np.int_], theirs: npt.NDArray[np.int_]) -> None:
        """Join the pieces that face each other across a border, where their labels are equal."""
        facing = (ours != _NOBODY) & (theirs != _NOBODY)
        for one, other in np.unique(np.stack([ours[facing], theirs[facing]]), axis=1).T.tolist():
            if self._pieces[one][0] == self._pieces[other][0]:
                self._joined[self._component(other)] = self._component(one)

    def _component(self, piece: int) -> int:
        while self._joined[piece] != piece:
            self._joined[piece] = self._joined[self._joined[piece]]
            piece = self._joined[piece]
        return piece


def _runs_on(ring: npt.NDArray[np.int_], axis: int, border: int) -> Iterator[tuple[int, int]]:
    """Where the edges of a ring, (n, 2), lie on a line: from and to along the other axis."""
    on_line = ring[:, axis] == border
    starts = np.flatnonzero(on_line[:-1] & on_line[1:])
    along = ring[:, 1 - axis]
    for start in starts:
        low, high = sorted((int(along[start]), int(along[start + 1])))
        yield low, high


def _united(pieces: list[shapely.Polygon]) -> shapely.Polygon:
    """The pieces as one polygon, without the corners that the borders of blocks have made.

    Exact: all edges run along rows or columns of whole numbers, so that no corner is computed.
    """
    if len(pieces) == 1:
        return pieces[0]
    whole = shapely.unary_union(pieces)
    return shapely.Polygon(_corners(whole.exterior), [_corners(hole) for hole in whole.interiors])


def _corners(ring: shapely.LinearRing) -> npt.NDArray[np.float64]:
    """The points of a ring at which it turns, (n, 2)."""
    points = shapely.get_coordinates(ring)[:-1]
    before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
    # All edges run along an axis: at a turn both coordinates change.
    turns: npt.NDArray[np.float64] = points[(before != after).all(axis=1)]
    return turns


def simplified(found: list[LabelPolygon], tolerance: float) -> list[LabelPolygon]:
    """The same polygons with fewer corners; neighbours keep their common borders.

    Args:
        found: polygons of one plane, which do not overlap.
        tolerance: about the length, in pixels, of what may be cut away.
    """
    if not found:
        return []
    # Neighbours must have the same points along their borders before any of them is moved.
    dense = shapely.segmentize([item.shape for item in found], 1.0)
    dense = shapely.transform(dense, np.rint)
    shapes = shapely.coverage_simplify(dense, tolerance)
    return [
        LabelPolygon(item.value, shape, item.pixels)
        for item, shape in zip(found, shapes, strict=True)
    ]
