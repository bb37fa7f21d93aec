"""The grid of tiles over an image: who writes what, who reads what, and in which order.

Properties, each with its test: every pixel is written by exactly one tile; every tile reads
the same number of pixels; every tile origin is a multiple of the tile size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tilesegment.errors import OptionError
from tilesegment.geometry import YX, NetworkGeometry, nearest_multiples, round_up


class Tile(NamedTuple):
    """Which tile of the grid."""

    plane: int
    """Index over all leading axes (t, z), flattened."""
    row: int
    column: int


@dataclass(frozen=True)
class Window:
    """A half-open rectangle of pixels in one plane; it may reach beyond the image."""

    y: int
    x: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def grown(self, margin: int) -> "Window":
        """The window with `margin` more pixels on each side."""
        return Window(
            self.y - margin, self.x - margin, self.height + 2 * margin, self.width + 2 * margin
        )

    def clipped(self, shape: YX) -> "Window":
        """The part of the window inside an image of `shape`."""
        y, x = max(self.y, 0), max(self.x, 0)
        return Window(
            y,
            x,
            min(self.y + self.height, shape.y) - y,
            min(self.x + self.width, shape.x) - x,
        )

    def overlap(self, other: "Window") -> "Window":
        """The part of the window that is in another one too."""
        end = YX(other.y + other.height, other.x + other.width)
        y, x = max(self.y, other.y), max(self.x, other.x)
        return Window(
            y, x, min(self.y + self.height, end.y) - y, min(self.x + self.width, end.x) - x
        )

    def seen_from(self, other: "Window") -> "Window":
        """The window in coordinates that start where another one does."""
        return Window(self.y - other.y, self.x - other.x, self.height, self.width)


@dataclass(frozen=True)
class Region:
    """The run of tiles that one dask graph covers: a rectangle of tiles in one plane."""

    plane: int
    first_row: int
    first_column: int
    rows: int
    columns: int

    def tiles(self) -> Iterator[Tile]:
        for row in range(self.first_row, self.first_row + self.rows):
            for column in range(self.first_column, self.first_column + self.columns):
                yield Tile(self.plane, row, column)


@dataclass(frozen=True)
class TileGrid:
    """Square tiles over every plane of an image, from the image's origin."""

    image: YX
    """Size of one plane."""
    planes: int
    tile: int
    """Pixels per side of a tile; the last ones reach beyond the image."""

    @property
    def rows(self) -> int:
        return -(-self.image.y // self.tile)

    @property
    def columns(self) -> int:
        return -(-self.image.x // self.tile)

    def __len__(self) -> int:
        return self.planes * self.rows * self.columns

    def tiles(self) -> Iterator[Tile]:
        for plane in range(self.planes):
            yield from Region(plane, 0, 0, self.rows, self.columns).tiles()

    def number(self, tile: Tile) -> int:
        """Position of `tile` in the order of `tiles`."""
        return (tile.plane * self.rows + tile.row) * self.columns + tile.column

    def tile_at(self, number: int) -> Tile:
        """The tile of this number."""
        plane, position = divmod(number, self.rows * self.columns)
        return Tile(plane, *divmod(position, self.columns))

    def write_window(self, tile: Tile) -> Window:
        """What the tile writes: its square, cut at the image's rim."""
        return self._square(tile).clipped(self.image)

    def read_window(self, tile: Tile, halo: int) -> Window:
        """What the tile reads: always `tile + 2 * halo` per side, beyond the rim too."""
        return self._square(tile).grown(halo)

    def touching(self, plane: int, window: Window) -> Iterator[Tile]:
        """Tiles with a pixel in a window inside the image."""
        for row in range(window.y // self.tile, -(-(window.y + window.height) // self.tile)):
            last = -(-(window.x + window.width) // self.tile)
            for column in range(window.x // self.tile, last):
                yield Tile(plane, row, column)

    def _square(self, tile: Tile) -> Window:
        return Window(tile.row * self.tile, tile.column * self.tile, self.tile, self.tile)

    def regions(self, largest: YX) -> Iterator[Region]:
        """Rectangles of at most `largest` tiles that cover each tile once."""
        for plane in range(self.planes):
            for row in range(0, self.rows, largest.y):
                for column in range(0, self.columns, largest.x):
                    yield Region(
                        plane,
                        row,
                        column,
                        min(largest.y, self.rows - row),
                        min(largest.x, self.columns - column),
                    )


def check_tile(tile: int, network: NetworkGeometry) -> int:
    """The tile size, if it keeps the network's pooling windows on one grid.

    Raises:
        OptionError: if it does not; the message names the nearest sizes that do.
    """
    smallest = network.smallest_tile
    if tile < smallest:
        raise OptionError(
            f"tile {tile} is smaller than this network allows (halo {network.halo}, "
            f"alignment {network.alignment}); use {smallest} or more"
        )
    if tile % network.alignment:
        below, above = nearest_multiples(tile, network.alignment)
        choices = f"{below} or {above}" if below >= smallest else f"{above}"
        raise OptionError(
            f"tile {tile} is not a multiple of {network.alignment}, the network's alignment; "
            f"use {choices}"
        )
    return tile


def choose_tile(largest: int, image: YX, network: NetworkGeometry) -> int:
    """The tile for `--tile auto`: `largest`, or less where the image is smaller than that."""
    enough = round_up(max(image), network.alignment)
    wanted = min(round_up(largest, network.alignment), enough)
    return max(wanted, network.smallest_tile)


def chunk_of(tile: int, largest: int = 512) -> int:
    """The largest divisor of `tile` that is at most `largest`: the chunk inside a tile's shard.

    >>> chunk_of(1024), chunk_of(1072)
    (512, 268)
    """
    return next(
        tile // parts
        for parts in range(1, tile + 1)
        if tile % parts == 0 and tile // parts <= largest
    )


def mirrored_positions(start: int, stop: int, size: int) -> npt.NDArray[np.intp]:
    """Where the pixels start..stop of an endlessly mirrored axis come from (paper, figure 2).

    The pixel at the rim is not repeated: numpy's "reflect".

    >>> mirrored_positions(-2, 6, 4).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    period = max(2 * (size - 1), 1)
    positions = np.arange(start, stop) % period
    return np.minimum(positions, period - positions) if size > 1 else positions * 0


def mirrored_span(start: int, stop: int, size: int) -> tuple[int, int]:
    """The half-open interval of an axis that `mirrored_positions` draws from.

    An empty one has an empty interval: the rim of a network without a border.
    """
    if start == stop:
        return 0, 0
    if start >= 0 and stop <= size:
        return start, stop
    positions = mirrored_positions(start, stop, size)
    return int(positions.min()), int(positions.max()) + 1


def region_cuts(first: int, count: int, tile: int, halo: int) -> list[int]:
    """Block borders along one axis of a region: a rim of one halo, the tiles, a rim.

    With the rims as blocks of their own every tile finds its whole halo in its direct
    neighbours, inside the image as at its edge, and dask needs no boundary rule.

    >>> region_cuts(first=2, count=2, tile=512, halo=94)
    [930, 1024, 1536, 2048, 2142]
    """
    tiles = [(first + position) * tile for position in range(count + 1)]
    return [tiles[0] - halo, *tiles, tiles[-1] + halo]
