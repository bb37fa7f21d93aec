"""Which pixels a mask wants: a matter of their place, never of how they are asked for."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesegment.geometry import YX
from tilesegment.mask import Mask, dilate, stretch
from tilesegment.tiling import TileGrid, Window

IMAGE = YX(83, 61)


def by_hand(wanted: npt.NDArray[np.bool_], image: YX) -> npt.NDArray[np.bool_]:
    """Each pixel of the image asks the mask pixel that its centre falls into."""
    height, width = wanted.shape
    answer = np.zeros(image, bool)
    for y in range(image.y):
        for x in range(image.x):
            answer[y, x] = wanted[(2 * y + 1) * height // (2 * image.y)][
                (2 * x + 1) * width // (2 * image.x)
            ]
    return answer


@given(data=st.data())
def test_every_window_answers_as_the_whole(data: st.DataObject) -> None:
    size = YX(*(data.draw(st.integers(1, 200)) for _ in "yx"))
    wanted = np.random.default_rng(0).random((2, *size)) < data.draw(st.floats(0, 1))
    mask = stretch(wanted, IMAGE)
    y, x = data.draw(st.integers(0, IMAGE.y - 1)), data.draw(st.integers(0, IMAGE.x - 1))
    window = Window(
        y, x, data.draw(st.integers(1, IMAGE.y - y)), data.draw(st.integers(1, IMAGE.x - x))
    )
    plane = data.draw(st.integers(0, 1))
    expected = by_hand(wanted[plane], IMAGE)[window.slices]
    np.testing.assert_array_equal(mask.read(plane, window), expected)
    np.testing.assert_array_equal(mask.cut(plane, window).read(plane, window), expected)
    cover = "all" if expected.all() else "some" if expected.any() else "none"
    assert mask.cover(plane, window) == cover


def test_a_level_answers_for_its_blocks_and_its_last_pixels_go_on() -> None:
    """A level of 3 x 2 pixels, each 4 x 4 of the image; the image has 13 x 7."""
    wanted = np.array([[[1, 0], [0, 0], [0, 1]]], bool)
    mask = Mask(wanted, YX(3, 2), extent=YX(12, 8))
    answer = mask.read(0, Window(0, 0, 13, 7))
    assert answer[:4, :4].all()
    assert answer[8:13, 4:7].all()
    assert answer.sum() == 16 + 15


def test_one_plane_stands_for_all() -> None:
    mask = stretch(np.array([[[True, False]]]), YX(1, 4))
    assert mask.read(7, Window(0, 0, 1, 4)).tolist() == [[True, True, False, False]]


def test_a_cut_is_no_larger_than_what_it_answers_for() -> None:
    mask = stretch(np.ones((1, 100, 100), bool), YX(1000, 1000))
    assert mask.cut(0, Window(512, 512, 32, 32)).wanted.shape == (1, 4, 4)
    assert stretch(np.ones((1, 500, 500), bool), YX(10, 20)).wanted.shape == (1, 10, 20)


def test_tiles_without_a_wanted_pixel_are_counted() -> None:
    wanted = np.zeros((1, 83, 61), bool)
    wanted[0, 32, 31] = True
    assert stretch(wanted, IMAGE).count_unwanted(TileGrid(IMAGE, 2, 32)) == 12 - 2


def test_the_digest_is_that_of_the_wanted_pixels() -> None:
    wanted = np.eye(7, dtype=bool)[None]
    mask = stretch(wanted, IMAGE)
    assert mask.digest == stretch(wanted.copy(), IMAGE).digest
    assert mask.digest != stretch(wanted, YX(83, 62)).digest
    assert mask.digest != stretch(~wanted, IMAGE).digest


@pytest.mark.parametrize(("margin", "count"), [(YX(0, 0), 1), (YX(1, 2), 15), (YX(3, 9), 7 * 14)])
def test_dilating_reaches_the_margin_and_no_further(margin: YX, count: int) -> None:
    wanted = np.zeros((20, 14), bool)
    wanted[10, 7] = True
    assert dilate(wanted, margin).sum() == count
