"""The grid: who writes what, who reads what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesegment.errors import OptionError
from tilesegment.geometry import YX, unet_geometry
from tilesegment.tiling import (
    TileGrid,
    Window,
    check_tile,
    choose_tile,
    chunk_of,
    mirrored_positions,
    mirrored_span,
    region_cuts,
)

GRIDS = st.builds(
    TileGrid,
    st.builds(YX, st.integers(1, 70), st.integers(1, 70)),
    st.integers(1, 3),
    st.integers(1, 30),
)


@given(GRIDS)
def test_every_pixel_is_written_exactly_once(grid: TileGrid) -> None:
    written = np.zeros((grid.planes, *grid.image), int)
    for tile in grid.tiles():
        written[(tile.plane, *grid.write_window(tile).slices)] += 1
    assert (written == 1).all()


@given(GRIDS, st.integers(0, 40))
def test_every_tile_reads_the_same_size_around_what_it_writes(grid: TileGrid, halo: int) -> None:
    for tile in grid.tiles():
        read, write = grid.read_window(tile, halo), grid.write_window(tile)
        assert (read.height, read.width) == (grid.tile + 2 * halo,) * 2
        assert (read.y + halo, read.x + halo) == (write.y, write.x)
        assert write.y % grid.tile == write.x % grid.tile == 0


@given(GRIDS)
def test_tiles_are_numbered_in_their_order(grid: TileGrid) -> None:
    assert [grid.number(tile) for tile in grid.tiles()] == list(range(len(grid)))


@given(GRIDS, st.integers(1, 5), st.integers(1, 5))
def test_regions_hold_each_tile_once(grid: TileGrid, rows: int, columns: int) -> None:
    found = [tile for region in grid.regions(YX(rows, columns)) for tile in region.tiles()]
    assert sorted(found) == list(grid.tiles())


@given(st.integers(1, 20), st.integers(-60, 60), st.integers(0, 60))
def test_mirrored_positions_are_numpys_reflect(size: int, start: int, length: int) -> None:
    before, after = max(-start, 0), max(start + length - size, 0)
    by_numpy = np.pad(np.arange(size), (before, after), mode="reflect")
    expected = by_numpy[start + before : start + before + length]
    positions = mirrored_positions(start, start + length, size)
    np.testing.assert_array_equal(positions, expected)
    if length:
        low, high = mirrored_span(start, start + length, size)
        assert (low, high) == (positions.min(), positions.max() + 1)


def test_region_cuts_have_a_rim_of_one_halo() -> None:
    assert region_cuts(first=0, count=3, tile=32, halo=22) == [-22, 0, 32, 64, 96, 118]


def test_a_tile_off_the_grid_is_refused_with_the_nearest_that_fit() -> None:
    with pytest.raises(OptionError, match="tile 500 is not a multiple of 16.*496 or 512"):
        check_tile(500, unet_geometry(4))


def test_a_tile_smaller_than_the_halo_is_refused() -> None:
    with pytest.raises(OptionError, match="use 96 or more"):
        check_tile(64, unet_geometry(4))
    assert check_tile(96, unet_geometry(4)) == 96


@pytest.mark.parametrize(
    ("image", "tile"), [(YX(90_000, 80_000), 1024), (YX(300, 200), 304), (YX(1, 1), 96)]
)
def test_auto_tile_is_no_larger_than_the_image_needs(image: YX, tile: int) -> None:
    geometry = unet_geometry(4)
    assert choose_tile(1024, image, geometry) == tile
    assert check_tile(tile, geometry) == tile


@given(st.integers(1, 500).map(lambda factor: 16 * factor))
def test_chunks_divide_the_tile(tile: int) -> None:
    chunk = chunk_of(tile)
    assert tile % chunk == 0
    assert chunk <= 512


@given(
    st.builds(YX, st.integers(1, 300), st.integers(1, 300)),
    st.integers(16, 90),
    st.integers(0, 299),
    st.integers(0, 299),
    st.integers(1, 99),
)
def test_tiles_that_touch_a_window_are_those_that_overlap_it(
    image: YX, tile: int, y: int, x: int, side: int
) -> None:
    window = Window(y % image.y, x % image.x, side, side).clipped(image)
    grid = TileGrid(image, 1, tile)
    touching = list(grid.touching(0, window))
    common = {item: grid.write_window(item).overlap(window) for item in grid.tiles()}
    assert touching == [item for item, part in common.items() if min(part.height, part.width) > 0]
    assert sum(common[item].height * common[item].width for item in touching) == (
        window.height * window.width
    )
    for item in touching:
        seen = common[item].seen_from(window)
        assert seen.clipped(YX(window.height, window.width)) == seen


def test_the_rim_of_a_network_without_a_border_is_empty_wherever_it_lies() -> None:
    assert mirrored_span(0, 0, 10) == mirrored_span(16, 16, 10) == (0, 0)
