import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.test_components import identities as identities_of
from tilesegment.components import Joins
from tilesegment.errors import OptionError
from tilesegment.geometry import YX
from tilesegment.splitting import DEPTH, Split, join
from tilesegment.tiling import TileGrid, Window


def discs(*places: tuple[int, int, int], shape: tuple[int, int] = (80, 120)) -> np.ndarray:
    """A picture of discs, each given by (y, x, radius)."""
    y, x = np.indices(shape)
    picture = np.zeros(shape, np.uint8)
    for centre_y, centre_x, radius in places:
        picture[(y - centre_y) ** 2 + (x - centre_x) ** 2 <= radius**2] = 1
    return picture


def count(picture: np.ndarray, split: Split) -> int:
    return int(identities_of(picture[None], [join(picture, split)], 1024).max())


BY_DISTANCE = Split("distance")


def test_two_discs_that_touch_are_two() -> None:
    picture = discs((40, 40, 14), (40, 64, 14))
    assert count(picture, Split()) == 1
    assert count(picture, BY_DISTANCE) == 2


@pytest.mark.parametrize(
    "picture",
    [
        discs((40, 60, 25)),
        discs((40, 60, DEPTH + 20), shape=(140, 200)),
        np.ones((70, 70), np.uint8),
        np.pad(np.ones((5, 90), np.uint8), 9),
        np.pad(np.ones((1, 90), np.uint8), 3),
    ],
    ids=["disc", "thicker than the depth", "nothing but object", "bar", "line"],
)
def test_what_has_no_neck_stays_one(picture: np.ndarray) -> None:
    assert count(picture, BY_DISTANCE) == 1


def test_every_part_is_connected_and_of_one_class() -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(3).random((90, 90)), 3)
    picture = np.digitize(noise, np.quantile(noise, [0.3, 0.8])).astype(np.uint8)
    found = identities_of(picture[None], [join(picture, BY_DISTANCE)], 1024)[0]
    assert np.array_equal(found > 0, picture > 0)
    assert found.max() > count(picture, Split())
    for identity in range(1, found.max() + 1):
        pixels = found == identity
        assert ndimage.label(pixels)[1] == 1
        assert len(np.unique(picture[pixels])) == 1


@settings(max_examples=25)
@given(
    st.integers(0, 10**6), st.integers(9, 150), st.integers(1, 12), st.floats(1, 6)
)  # fmt: skip
def test_blocks_that_see_the_border_cut_as_the_whole_picture(
    seed: int, block: int, reach: int, scale: float
) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((130, 110)), scale)
    picture = np.digitize(noise, np.quantile(noise, [0.3, 0.8])).astype(np.uint8)
    split = Split("distance", reach)
    whole = join(picture, split)
    grid = TileGrid(YX(*picture.shape), 1, block)
    pieced = Joins(*(np.zeros_like(whole.inside) for _ in range(3)))
    for tile in grid.tiles():
        window = grid.write_window(tile)
        around = window.grown(split.border).clipped(grid.image)
        part = join(picture[around.slices], split).cut(window.seen_from(around))
        for name in ("inside", "right", "down"):
            getattr(pieced, name)[window.slices] = getattr(part, name)
    np.testing.assert_array_equal(pieced.right, whole.right)
    np.testing.assert_array_equal(pieced.down, whole.down)


def test_a_smaller_border_is_not_enough() -> None:
    split = Split("distance", 5)
    differs = 0
    for seed in range(40):
        noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((200, 200)), 12)
        picture = (noise > np.quantile(noise, 0.25)).astype(np.uint8)
        whole = join(picture, split)
        window = Window(60, 60, 80, 80)
        around = window.grown(split.border - DEPTH)
        part = join(picture[around.slices], split).cut(window.seen_from(around))
        differs += int((part.right != whole.right[window.slices]).sum())
    assert differs


@pytest.mark.parametrize("reach", [0, -3, 65])
def test_a_reach_that_cannot_be_is_refused(reach: int) -> None:
    with pytest.raises(OptionError, match=f"--reach {reach} is not"):
        Split("distance", reach)
