"""Where `verify` looks."""

from hypothesis import given
from hypothesis import strategies as st

from tilesegment.geometry import YX
from tilesegment.sampling import draw_windows, window_side
from tilesegment.tiling import TileGrid, Window


def everything(plane: int, window: Window) -> bool:
    return True


@given(
    st.builds(YX, st.integers(1, 900), st.integers(1, 900)),
    st.integers(1, 3),
    st.sampled_from([1, 4, 16]),
    st.integers(1, 20),
    st.integers(0, 5),
)
def test_windows_lie_on_the_networks_grid_and_touch_the_image(
    image: YX, planes: int, alignment: int, steps: int, seed: int
) -> None:
    grid = TileGrid(image, planes, alignment * steps)
    windows = list(draw_windows(grid, alignment, 12, seed, everything))
    assert windows == list(draw_windows(grid, alignment, 12, seed, everything))
    assert len(windows) == 12
    for plane, window in windows:
        assert 0 <= plane < planes
        assert window.y % alignment == window.x % alignment == 0
        assert window.height == window.width == window_side(grid.tile, alignment)
        inside = window.clipped(image)
        assert inside.height > 0
        assert inside.width > 0


def test_corners_borders_and_the_rim_come_by_turns() -> None:
    """On 5 x 4 tiles of 128 pixels."""
    grid = TileGrid(YX(600, 500), 1, 128)
    windows = [window for _, window in draw_windows(grid, 16, 60, 0, everything)]

    def has_cut(start: int, side: int, size: int) -> bool:
        return any(start < cut < start + side for cut in range(128, size, 128))

    def has_rim(start: int, side: int, size: int) -> bool:
        return start < 0 or start + side > size

    down = [(w.y, w.height, 600) for w in windows]
    right = [(w.x, w.width, 500) for w in windows]
    assert all(has_cut(*y) and has_cut(*x) for y, x in zip(down[::6], right[::6], strict=True))
    assert all(has_cut(*y) for y in down[1::6])
    assert all(has_cut(*x) for x in right[2::6])
    assert all(has_rim(*y) and has_cut(*x) for y, x in zip(down[3::6], right[3::6], strict=True))
    assert all(has_rim(*y) and has_rim(*x) for y, x in zip(down[5::6], right[5::6], strict=True))
    assert any(window.y % 128 and window.x % 128 for window in windows)


def test_an_image_of_one_tile_is_looked_at_along_its_rim() -> None:
    grid = TileGrid(YX(100, 90), 1, 128)
    for _, window in draw_windows(grid, 16, 12, 0, everything):
        assert window.clipped(grid.image) != window


def test_windows_that_are_not_wanted_are_avoided() -> None:
    grid = TileGrid(YX(600, 500), 1, 128)
    windows = draw_windows(grid, 16, 24, 0, lambda _, window: window.y < 200)
    assert all(window.y < 200 for _, window in windows)
    nothing = draw_windows(grid, 16, 3, 0, lambda *_: False)
    assert len(list(nothing)) == 3
