"""Which windows `verify` computes again: where tiles meet, and where the image ends."""

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Literal

import numpy as np

from tilesegment.geometry import round_up
from tilesegment.tiling import TileGrid, Window

_LARGEST_SIDE = 256
"""Pixels; small beside a tile, so that its origin is another, and large enough to show a seam."""
_DRAWS = 200
"""Attempts to find a window with a wanted pixel."""

_Place = Literal["cut", "rim", "anywhere"]
_KINDS: tuple[tuple[_Place, _Place], ...] = (
    ("cut", "cut"),
    ("cut", "anywhere"),
    ("anywhere", "cut"),
    ("rim", "cut"),
    ("cut", "rim"),
    ("rim", "rim"),
)
"""Places along y and x: tile corners, borders, and the image's rim and corners."""


def draw_windows(
    grid: TileGrid,
    alignment: int,
    count: int,
    seed: int,
    is_wanted: Callable[[int, Window], bool],
) -> Iterator[tuple[int, Window]]:
    """Random windows across tile corners, tile borders and the image's rim, by turns.

    Their origins are multiples of the alignment, like those of tiles, but not of the tile size;
    at the rim they reach beyond the image.

    Args:
        grid: the tiles of the run.
        alignment: of the network.
        count: of windows.
        seed: the same seed gives the same windows.
        is_wanted: whether a window is worth the work; if hardly any is, some that are not come
            too.

    Yields:
        The plane and the window.
    """
    random = np.random.default_rng(seed)
    for kind, _ in zip(cycle(_KINDS), range(count), strict=False):
        for _ in range(_DRAWS):
            plane = int(random.integers(grid.planes))
            window = _draw(grid, alignment, kind, random)
            if is_wanted(plane, window.clipped(grid.image)):
                break
        yield plane, window


def window_side(tile: int, alignment: int) -> int:
    """Pixels per side: a multiple of the alignment that leaves a grid line inside."""
    return max(round_up(min(tile, _LARGEST_SIDE), alignment), 2 * alignment)


def _draw(
    grid: TileGrid, alignment: int, kind: tuple[_Place, _Place], random: np.random.Generator
) -> Window:
    side = window_side(grid.tile, alignment)
    y, x = (
        _start(place, size, grid.tile, side, alignment, random)
        for place, size in zip(kind, grid.image, strict=True)
    )
    return Window(y, x, side, side)


def _start(
    place: _Place,
    size: int,
    tile: int,
    side: int,
    alignment: int,
    random: np.random.Generator,
) -> int:
    """Where a window begins along one axis, so that it has the chosen place inside."""
    cuts = range(tile, size, tile)
    if place == "anywhere":
        return int(random.integers(-(-size // alignment))) * alignment
    if place == "cut" and cuts:
        line = cuts[int(random.integers(len(cuts)))]
    else:
        line = (0, size // alignment * alignment)[int(random.integers(2))]
    before = int(random.integers(1, side // alignment)) * alignment
    return line - before
