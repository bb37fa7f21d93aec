"""Levels that are written in one pass."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr

from tilesegment.geometry import YX
from tilesegment.storage.importing import layout as layout_module
from tilesegment.storage.importing.layout import Block, layout
from tilesegment.storage.importing.levels import LevelWriter
from tilesegment.storage.importing.pyramid import halve
from tilesegment.storage.importing.source import TCZYX

RANDOM = np.random.default_rng(17)
SIZES = (YX(101, 83), YX(51, 42), YX(26, 21))


@pytest.mark.parametrize("nodata", [None, 0])
def test_blocks_may_come_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodata: int | None
) -> None:
    monkeypatch.setattr(layout_module, "CHUNK_SIDE", 16)
    pixels = RANDOM.integers(0, 3, (2, 3, *SIZES[0])).astype(np.uint16)  # t, c, y, x
    layouts = [layout(TCZYX(2, 3, 1, *size), side=16) for size in SIZES]
    arrays = [
        zarr.create_array(
            tmp_path / str(number),
            shape=level.stored(level.shape),
            chunks=level.stored(level.chunks),
            dtype=pixels.dtype,
        )
        for number, level in enumerate(layouts)
    ]
    levels = LevelWriter(arrays, layouts, nodata)
    blocks: list[Block] = list(layouts[0].blocks())
    written = [
        levels.write(block, pixels[block.plane.t][:, *block.window.slices])
        for block in map(blocks.__getitem__, RANDOM.permutation(len(blocks)))
    ]
    assert sum(written) == sum(level.pixels for level in layouts)
    found = [np.asarray(array) for array in arrays]
    np.testing.assert_array_equal(found[0], pixels)
    for fine, coarse in pairwise(found):
        np.testing.assert_array_equal(coarse, [halve(time, nodata) for time in fine])
