"""Levels that are written in one pass."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from zarr.storage import LocalStore, StorePath

from tilesegment.geometry import YX
from tilesegment.storage.importing import layout as layout_module
from tilesegment.storage.importing.layout import Block, layout
from tilesegment.storage.importing.levels import LevelWriter
from tilesegment.storage.importing.pyramid import halve
from tilesegment.storage.importing.source import TCZYX, ImageInfo
from tilesegment.storage.importing.writer import create_array

RANDOM = np.random.default_rng(17)
SIZES = (YX(101, 83), YX(51, 42), YX(26, 21))


def put(folder: Path, key: str, content: bytes) -> None:
    (folder / key).parent.mkdir(parents=True, exist_ok=True)
    with (folder / key).open("xb") as file:  # each object once
        file.write(content)


@pytest.mark.parametrize("is_colour", [False, True])
@pytest.mark.parametrize("nodata", [None, 0])
def test_blocks_may_come_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodata: int | None, is_colour: bool
) -> None:
    monkeypatch.setattr(layout_module, "CHUNK_SIDE", 16)
    pixels = RANDOM.integers(0, 3, (2, 3, *SIZES[0])).astype(np.uint16)  # t, c, y, x
    layouts = [layout(TCZYX(2, 3, 1, *size), is_colour=is_colour, side=32) for size in SIZES]
    info = ImageInfo("noise", layouts[0].shape, pixels.dtype, None, ("a", "b", "c"), nodata=nodata)
    arrays = [
        create_array(StorePath(LocalStore(tmp_path), str(number)), level, info)
        for number, level in enumerate(layouts)
    ]
    levels = LevelWriter(layouts, nodata, 0, partial(put, tmp_path))
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
