"""A window of an image, segmented tile by tile in this process, as `tilesegment run` does it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilesegment.geometry import YX
from tilesegment.tiling import TileGrid, Window, choose_tile, mirrored_positions

if TYPE_CHECKING:
    from tilesegment.model.predictor import Predictor

LARGEST_TILE = 1024

Read = Callable[[Window], npt.NDArray[Any]]
"""Pixels (c, y, x) of a window that may reach beyond the rim, where they are mirrored."""


def segment_window(
    predictor: "Predictor", read: Read, window: Window, tile: int
) -> npt.NDArray[np.unsignedinteger]:
    """The classes' values in a window, (y, x): those of one pass over the whole mirrored image.

    Args:
        predictor: the network.
        read: gives the pixels.
        window: inside the image; it begins at a multiple of the network's alignment.
        tile: pixels per side that the network is given at once, a multiple of the alignment.
    """
    halo = predictor.geometry.halo
    grid = TileGrid(YX(window.height, window.width), 1, tile)
    rows = []
    for row in range(grid.rows):
        corners = [(window.y + row * tile, window.x + c * tile) for c in range(grid.columns)]
        tiles = [predictor.labels(read(Window(y, x, tile, tile).grown(halo))) for y, x in corners]
        rows.append(np.concatenate(tiles, axis=1))
    labels: npt.NDArray[np.unsignedinteger] = np.concatenate(rows)[: window.height, : window.width]
    return labels


def segment_picture(
    predictor: "Predictor", pixels: npt.NDArray[Any]
) -> npt.NDArray[np.unsignedinteger]:
    """The classes' values of a picture that is held in memory: (c, y, x) to (y, x)."""
    size = YX(*pixels.shape[1:])
    tile = choose_tile(LARGEST_TILE, size, predictor.geometry)
    return segment_window(predictor, lambda w: mirrored(pixels, w), Window(0, 0, *size), tile)


def mirrored(pixels: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
    """Part of a picture (c, y, x), mirrored beyond its rim."""
    rows = mirrored_positions(window.y, window.y + window.height, pixels.shape[1])
    columns = mirrored_positions(window.x, window.x + window.width, pixels.shape[2])
    return pixels[:, rows[:, None], columns]
