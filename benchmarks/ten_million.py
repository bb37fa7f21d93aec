"""What the driver of `tilesegment objects` holds for ten million objects on ten gigapixels.

    python benchmarks/ten_million.py

Blocks tell the driver of their open components as they do in a run; here one block, with objects
along its faces that all go on in the next blocks, tells it in the name of all.
"""

import resource
import time

import numpy as np
from common import save_results

from tilesegment.components import (
    Joining,
    Joins,
    Numbering,
    describe_faces,
    find_components,
    same_class,
)
from tilesegment.geometry import YX
from tilesegment.tiling import Tile, TileGrid

BLOCK = 1024
SIDE = 100
"""Blocks per side of the image."""
PITCH = 32
"""Pixels from one object to the next."""


def peak_mib() -> float:
    """High-water mark of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def block() -> Joins:
    """Squares of 20 pixels, those at the faces cut by them."""
    at = (np.arange(BLOCK) + 10) % PITCH < 20
    joins = same_class((at[:, None] & at[None, :]).astype(np.uint8))
    joins.right[:, -1] = joins.inside[:, -1]
    joins.down[-1] = joins.inside[-1]
    return joins


def main() -> None:
    """Measure, print, and write benchmarks/results/ten_million.json."""
    grid = TileGrid(YX(SIDE * BLOCK, SIDE * BLOCK), 1, BLOCK)
    joins = block()
    found = find_components(joins, grid.write_window(Tile(0, 1, 1)), grid)
    before, started = peak_mib(), time.perf_counter()
    joining = Joining(grid)
    for tile in grid.tiles():
        part = find_components(joins, grid.write_window(tile), grid) if _at_rim(tile) else found
        joining.add(tile, describe_faces(part, tile, grid))
    numbering = Numbering(joining.finish())
    results = {
        "gigapixels": round(grid.image.y * grid.image.x / 1e9, 1),
        "objects": numbering.count,
        "open_per_block": int(found.open.sum()),
        "driver_mib": round(peak_mib() - before),
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(results)
    save_results("ten_million", results)


def _at_rim(tile: Tile) -> bool:
    return not 0 < tile.row < SIDE - 1 or not 0 < tile.column < SIDE - 1


if __name__ == "__main__":
    main()
