"""Connected components of a volume that is looked at block by block, and numbers for them.

Two pixels that share an edge are joined or not; what is joined, directly or through others, is
one component. A block labels its own pixels. A component inside it is closed and never leaves
the block; one that touches the face of another block is open, and may go on there::

    +--------+--------+
    |  (a)   |        |   a  closed: the block counts it
    |     (b | b)     |   b  open: two nodes, which the face joins
    +-----|--+--------+
    |     (b |        |
    +--------+--------+

Who drives holds the open ones only, a few dozen bytes each, and one count for every row of
every block.

**Identities** go from 1 in the order of first pixels: by plane, row, column. They are those that
`scipy.ndimage.label` gives a whole picture, whatever the blocks are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tilesegment.errors import OutputError
from tilesegment.tiling import Tile, TileGrid, Window

Classes = npt.NDArray[np.integer[Any]]
Identities = npt.NDArray[np.int32]
Numbers = npt.NDArray[np.int64]

MOST_IDENTITIES = 2**31 - 1


@dataclass(frozen=True)
class Joins:
    """Which pixels count, and which of them are joined to a neighbour; (y, x) each."""

    inside: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]
    """Whether a pixel is joined to the one on its right."""
    down: npt.NDArray[np.bool_]
    """Whether it is joined to the one below."""

    def cut(self, window: Window) -> "Joins":
        """The joins of a part, with those that lead out of it to the right and below."""
        part = window.slices
        return Joins(self.inside[part], self.right[part], self.down[part])


def same_class(classes: Classes) -> Joins:
    """Joins between neighbours of one class other than 0.

    >>> same_class(np.array([[1, 1, 2]])).right
    array([[ True, False, False]])
    """
    inside = classes != 0
    right, down = np.zeros_like(inside), np.zeros_like(inside)
    right[:, :-1] = inside[:, 1:] & (classes[:, 1:] == classes[:, :-1])
    down[:-1] = inside[1:] & (classes[1:] == classes[:-1])
    return Joins(inside, right, down)


@dataclass(frozen=True)
class BlockComponents:
    """The components of one block."""

    labels: Identities
    """(y, x): 1 to `count` in the order of first pixels; 0 where nothing counts."""
    window: Window
    """Where the block lies in its plane."""
    firsts: Numbers
    """(count,): position of the first pixel of each, counted along the rows of the block."""
    areas: Numbers
    """(count,), pixels."""
    open: npt.NDArray[np.bool_]
    """(count,): whether it touches the face of another block."""
    joined_right: npt.NDArray[np.bool_]
    """(height,): whether the last pixel of a row is joined to the block on the right."""
    joined_down: npt.NDArray[np.bool_]
    """(width,): the same for the block below."""

    @property
    def count(self) -> int:
        return len(self.areas)

    @property
    def rows(self) -> Numbers:
        """(count,): row of the block in which each begins."""
        return self.firsts // self.window.width


def find_components(joins: Joins, window: Window, grid: TileGrid) -> BlockComponents:
    """Label one block.

    Args:
        joins: of the block alone, (window.height, window.width).
        window: of the block.
        grid: of all blocks.
    """
    labels = _label(joins)
    count = int(labels.max(initial=0))
    is_open = np.zeros(count + 1, bool)
    for face in _inner_faces(labels, window, grid):
        is_open[face] = True
    inside = np.flatnonzero(labels)
    firsts = np.zeros(count + 1, np.int64)
    firsts[labels.ravel()[inside][::-1]] = inside[::-1]
    return BlockComponents(
        labels=labels,
        window=window,
        firsts=firsts[1:],
        areas=np.bincount(labels.ravel(), minlength=count + 1)[1:],
        open=is_open[1:],
        joined_right=joins.right[:, -1],
        joined_down=joins.down[-1],
    )


def _label(joins: Joins) -> Identities:
    """Components by scipy, on a grid on which the joins lie between the pixels."""
    height, width = joins.inside.shape
    spread = np.zeros((2 * height - 1, 2 * width - 1), bool)
    spread[::2, ::2] = joins.inside
    spread[::2, 1::2] = joins.right[:, :-1]
    spread[1::2, ::2] = joins.down[:-1]
    labels, _ = ndimage.label(spread)
    return np.ascontiguousarray(labels[::2, ::2], np.int32)


def _inner_faces(labels: Identities, window: Window, grid: TileGrid) -> Iterable[Identities]:
    if window.y:
        yield labels[0]
    if window.x:
        yield labels[:, 0]
    if window.y + window.height < grid.image.y:
        yield labels[-1]
    if window.x + window.width < grid.image.x:
        yield labels[:, -1]


@dataclass(frozen=True)
class Faces:
    """What a block tells of its open components."""

    top: Identities
    """(width,): labels of the block along its first row."""
    left: Identities
    bottom: Identities
    """(width,): labels along its last row where that is joined to the block below, else 0."""
    right: Identities
    labels: Identities
    """(n,): of the open components, rising."""
    areas: Numbers
    firsts: Numbers
    """(n,): position of the first pixel, counted along the rows of the whole volume."""
    before: Numbers
    """(n,): closed components that begin in the same row of the block, on the left of it."""
    marks: Numbers
    """(n,): what else is known of the first pixel."""
    rim: npt.NDArray[np.bool_]
    """(n,): whether the component touches the rim of the image."""
    starts: npt.NDArray[np.int32]
    """(height,): closed components that begin in each row of the block."""


def describe_faces(
    found: BlockComponents, tile: Tile, grid: TileGrid, marks: Numbers | None = None
) -> Faces:
    """What the driver must know of a block.

    Args:
        found: its components.
        tile: which block it is.
        grid: of all blocks.
        marks: (count,): a number of the first pixel of each component.
    """
    labels, window = found.labels, found.window
    wanted = np.flatnonzero(found.open)
    rows, columns = np.divmod(found.firsts[wanted], window.width)
    row_in_volume = tile.plane * grid.image.y + window.y + rows
    closed = np.concatenate([[0], np.cumsum(~found.open)])
    starts = np.bincount(found.rows[~found.open], minlength=window.height)
    above = np.concatenate([[0], np.cumsum(starts)])
    return Faces(
        top=labels[0],
        left=np.ascontiguousarray(labels[:, 0]),
        bottom=labels[-1] * found.joined_down,
        right=labels[:, -1] * found.joined_right,
        labels=(wanted + 1).astype(np.int32),
        areas=found.areas[wanted],
        firsts=row_in_volume * grid.image.x + window.x + columns,
        before=closed[wanted] - above[rows],
        marks=np.zeros(len(wanted), np.int64) if marks is None else marks[wanted],
        rim=on_rim(found, grid)[wanted],
        starts=starts.astype(np.int32),
    )


def on_rim(found: BlockComponents, grid: TileGrid) -> npt.NDArray[np.bool_]:
    """(count,): whether a component touches the rim of the image."""
    labels, window = found.labels, found.window
    touches = np.zeros(found.count + 1, bool)
    if not window.y:
        touches[labels[0]] = True
    if not window.x:
        touches[labels[:, 0]] = True
    if window.y + window.height == grid.image.y:
        touches[labels[-1]] = True
    if window.x + window.width == grid.image.x:
        touches[labels[:, -1]] = True
    return touches[1:]


@dataclass(frozen=True)
class OpenComponents:
    """All open components of a volume, joined."""

    grid: TileGrid
    places: dict[int, slice]
    """By number of the block: where its components are in `labels`, `whole` and `before`."""
    labels: Identities
    """(nodes,): label in its block."""
    firsts: Numbers
    """(nodes,): position of the first pixel in the volume."""
    before: Numbers
    """(nodes,): closed components on the left that begin in the same row of the block."""
    whole: npt.NDArray[np.int32]
    """(nodes,): which component it is a part of: its position in what follows."""
    areas: Numbers
    """(components,), pixels."""
    marks: Numbers
    """(components,): of the first pixel."""
    rim: npt.NDArray[np.bool_]
    """(components,): whether it touches the rim of the image."""
    owners: Numbers
    """(components,): the node that holds the first pixel."""
    starts: npt.NDArray[np.int32]
    """(planes * rows, columns of blocks): closed components that begin there."""

    def labels_where(self, number: int, wanted: npt.NDArray[np.bool_]) -> Identities:
        """Labels in a block of the parts of those components that are wanted, (components,)."""
        place = self.places[number]
        return self.labels[place][wanted[self.whole[place]]]


class Joining:
    """Gathers what the blocks tell, in any order, and joins it at the end."""

    def __init__(self, grid: TileGrid) -> None:
        self._grid = grid
        self._count = 0
        self._places: dict[int, slice] = {}
        self._nodes: list[tuple[npt.NDArray[Any], ...]] = []
        self._pairs: list[npt.NDArray[np.int64]] = []
        self._facing: dict[tuple[int, int, int, str], Numbers] = {}
        """Nodes along faces whose other side has not been seen."""
        self._starts = np.zeros((grid.planes * grid.image.y, grid.columns), np.int32)

    def add(self, tile: Tile, faces: Faces) -> None:
        """Take note of one block."""
        grid, number = self._grid, self._grid.number(tile)
        self._places[number] = slice(self._count, self._count + len(faces.labels))
        self._nodes.append(
            (faces.labels, faces.firsts, faces.before, faces.areas, faces.marks, faces.rim)
        )
        top = tile.plane * grid.image.y + tile.row * grid.tile
        self._starts[top : top + len(faces.starts), tile.column] = faces.starts
        plane, row, column = tile
        for labels, place, exists in (
            (faces.left, (plane, row, column, "left"), column > 0),
            (faces.right, (plane, row, column + 1, "left"), column + 1 < grid.columns),
            (faces.top, (plane, row, column, "top"), row > 0),
            (faces.bottom, (plane, row + 1, column, "top"), row + 1 < grid.rows),
        ):
            if exists:
                self._meet(place, self._to_nodes(faces.labels, labels))
        self._count += len(faces.labels)

    def _to_nodes(self, known: Identities, labels: Identities) -> Numbers:
        """Nodes by label; -1 where there is none."""
        nodes = np.searchsorted(known, labels).astype(np.int64) + self._count
        nodes[labels == 0] = -1
        return nodes

    def _meet(self, place: tuple[int, int, int, str], nodes: Numbers) -> None:
        other = self._facing.pop(place, None)
        if other is None:
            self._facing[place] = nodes
            return
        facing = (nodes >= 0) & (other >= 0)
        self._pairs.append(np.unique(np.stack([nodes[facing], other[facing]]), axis=1))

    def finish(self) -> OpenComponents:
        """Join everything; all blocks must have been added."""
        kinds = (np.int32, np.int64, np.int64, np.int64, np.int64, bool)
        empty = tuple(np.zeros(0, kind) for kind in kinds)
        columns = map(np.concatenate, zip(empty, *self._nodes, strict=True))
        labels, firsts, before, areas, marks, rim = columns
        pairs = np.concatenate([np.zeros((2, 0), np.int64), *self._pairs], axis=1)
        graph = coo_array((np.ones(pairs.shape[1], bool), pairs), shape=(self._count,) * 2)
        count, whole = connected_components(graph, directed=False) if self._count else (0, [])
        whole = np.asarray(whole, np.int32)
        order = np.argsort(firsts)[::-1]
        owners = np.zeros(count, np.int64)
        owners[whole[order]] = order
        total = np.zeros(count, np.int64)
        np.add.at(total, whole, areas)
        touches = np.zeros(count, bool)
        touches[whole[rim]] = True
        return OpenComponents(
            self._grid, self._places, labels, firsts, before, whole, total, marks[owners],
            touches, owners, self._starts,
        )  # fmt: skip


@dataclass(frozen=True)
class BlockNumbers:
    """What a block needs to give its components their identities."""

    labels: Identities
    """(n,): of its open components, rising."""
    identities: Identities
    """(n,): theirs."""
    owned: npt.NDArray[np.bool_]
    """(n,): whether the component begins in this block."""
    starts: Identities
    """(height,): identity of the first component that begins in each row of the block."""


class Numbering:
    """The identities of all components, by block.

    Raises:
        OutputError: if there are more than an int32 can count.
    """

    def __init__(self, found: OpenComponents) -> None:
        self._found, grid = found, found.grid
        firsts = found.firsts[found.owners]
        rows, columns = np.divmod(firsts, grid.image.x)
        cells = rows * grid.columns + columns // grid.tile
        starts = found.starts.ravel().astype(np.int64)
        starts += np.bincount(cells, minlength=len(starts))
        self.count = int(starts.sum())
        if self.count > MOST_IDENTITIES:
            raise OutputError(
                f"{self.count} objects are more than an int32 can count; leave out small ones "
                "with --min-area"
            )
        before = np.cumsum(starts)
        before -= starts
        before += 1
        self._starts = before.reshape(found.starts.shape).astype(np.int32)
        order = np.argsort(firsts)
        ranks = np.zeros(len(firsts), np.int64)
        ranks[order] = _rank_in_run(cells[order])
        self._identities = before[cells] + found.before[found.owners] + ranks
        self._owns = np.zeros(len(found.labels), bool)
        self._owns[found.owners] = True

    def of_block(self, tile: Tile) -> BlockNumbers:
        """What the task of a block is sent."""
        found, grid = self._found, self._found.grid
        place = found.places[grid.number(tile)]
        top = tile.plane * grid.image.y + tile.row * grid.tile
        height = grid.write_window(tile).height
        return BlockNumbers(
            labels=found.labels[place],
            identities=self._identities[found.whole[place]].astype(np.int32),
            owned=self._owns[place],
            starts=np.ascontiguousarray(self._starts[top : top + height, tile.column]),
        )


def _rank_in_run(sorted_values: Numbers) -> Numbers:
    """How many equal values stand before each: [7, 7, 9] gives [0, 1, 0]."""
    position = np.arange(len(sorted_values))
    begins = np.concatenate([[True], sorted_values[1:] != sorted_values[:-1]])
    return position - np.maximum.accumulate(np.where(begins[: len(position)], position, 0))


def identify(found: BlockComponents, numbers: BlockNumbers) -> Identities:
    """The identities of a block's pixels, (y, x)."""
    begins = ~found.open
    begins[numbers.labels - 1] = numbers.owned
    counted = np.cumsum(begins)
    per_row = np.bincount(found.rows[begins], minlength=found.window.height)
    before = np.cumsum(per_row) - per_row
    identities = np.zeros(found.count + 1, np.int32)
    identities[1:] = numbers.starts[found.rows] + counted - 1 - before[found.rows]
    identities[numbers.labels] = numbers.identities
    return identities[found.labels]
