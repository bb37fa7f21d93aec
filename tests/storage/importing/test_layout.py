"""How levels are cut into chunks, shards and blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesegment.storage.importing.layout import layout, shard_side
from tilesegment.storage.importing.source import TCZYX, ImageInfo

sides = st.integers(1, 5000)
stacks = st.integers(1, 3)
shapes = st.builds(TCZYX, stacks, st.integers(1, 7), stacks, sides, sides)


@given(shapes, st.booleans(), st.sampled_from([512, 1024, 2048]))
def test_every_pixel_is_in_exactly_one_block(shape: TCZYX, is_colour: bool, side: int) -> None:
    level = layout(shape, is_colour=is_colour, side=side)
    covered = np.zeros((shape.t, shape.z, -(-shape.y // 100), -(-shape.x // 100)), int)
    total = 0
    for block in level.blocks():
        total += block.window.pixels
        rows, columns = block.window.slices
        # looked at on a grid of every hundredth pixel
        covered[
            block.plane.t,
            block.plane.z,
            -(-rows.start // 100) : -(-rows.stop // 100),
            -(-columns.start // 100) : -(-columns.stop // 100),
        ] += 1
    assert total == level.pixels
    assert (covered == 1).all()


@given(shapes, st.booleans(), st.sampled_from([512, 1024, 2048]))
def test_blocks_are_whole_shards(shape: TCZYX, is_colour: bool, side: int) -> None:
    level = layout(shape, is_colour=is_colour, side=side)
    for block in level.blocks():
        (y, x), (height, width) = block.window.origin, block.window.size
        assert y % level.shards.y == x % level.shards.x == 0
        assert height == min(level.shards.y, shape.y - y)
        assert width == min(level.shards.x, shape.x - x)


@given(shapes, st.booleans())
def test_shards_are_whole_chunks_and_no_larger_than_the_image_needs(
    shape: TCZYX, is_colour: bool
) -> None:
    level = layout(shape, is_colour=is_colour)
    for size, chunk, shard in zip(shape, level.chunks, level.shards, strict=True):
        assert shard % chunk == 0
        assert chunk <= size
        assert shard < size + chunk


@pytest.mark.parametrize(
    ("channels", "dtype", "width", "whole_rows", "side"),
    [
        (3, "uint8", 100_000, False, 2048),
        (1, "float32", 100_000, False, 2048),
        (3, "float32", 100_000, False, 1024),
        (40, "uint16", 100_000, False, 512),
        (3, "uint8", 20_000, True, 2048),
        (3, "uint8", 100_000, True, 512),
    ],
)
def test_side_of_shards_keeps_blocks_small(
    channels: int, dtype: str, width: int, whole_rows: bool, side: int
) -> None:
    info = ImageInfo(
        format="",
        shape=TCZYX(1, channels, 1, 50_000, width),
        dtype=np.dtype(dtype),
        pixel_size=None,
        channel_names=("",) * channels,
        decodes_whole_rows=whole_rows,
    )
    assert shard_side(info) == side
