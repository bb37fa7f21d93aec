from dataclasses import replace

import numpy as np
import pytest

from tilesegment.geometry import YX
from tilesegment.training.augment import (
    NO_AUGMENTATION,
    Augmentation,
    Placement,
    change_grey_values,
    draw_placement,
    elastic_field,
)


def generator(seed=0):
    return np.random.default_rng(seed)


# "The displacements are sampled from a Gaussian distribution with 10 pixels standard deviation."
def test_displacement_vectors_are_gaussian_with_ten_pixels_deviation():
    vectors = np.concatenate(
        [draw_placement(Augmentation(), 0, generator(seed)).vectors.ravel() for seed in range(500)]
    )
    assert vectors.shape == (500 * 2 * 3 * 3,)
    assert vectors.mean() == pytest.approx(0, abs=0.4)
    assert vectors.std() == pytest.approx(10, rel=0.03)
    assert (np.abs(vectors) < 10).mean() == pytest.approx(0.683, abs=0.02)


# "random displacement vectors on a coarse 3 by 3 grid ... bicubic interpolation"
def test_field_passes_through_the_coarse_vectors_and_is_smooth():
    vectors = generator().normal(size=(2, 3, 3)) * 10
    field = elastic_field(vectors, 101)
    np.testing.assert_allclose(field[:, ::50, ::50], vectors, atol=1e-9)
    assert np.abs(np.diff(field, n=2, axis=1)).max() < 0.1


def test_tile_without_augmentation_lies_on_whole_pixels():
    placement = draw_placement(NO_AUGMENTATION, 0, generator())
    rows, columns = placement.positions(YX(20, 31), 7)
    np.testing.assert_allclose(rows[:, 0], np.arange(17, 24))
    np.testing.assert_allclose(columns[0], np.arange(28, 35))


def test_quarter_turn_swaps_the_axes():
    turned = Placement(np.array([[0.0, -1.0], [1.0, 0.0]]), np.zeros((2, 3, 3)))
    rows, columns = turned.positions(YX(0, 0), 5)
    np.testing.assert_allclose(rows[0], [2, 1, 0, -1, -2])
    np.testing.assert_allclose(columns[:, 0], [-2, -1, 0, 1, 2])


def test_shrinking_stops_at_the_smallest_object():
    augmentation = replace(NO_AUGMENTATION, smallest_zoom=0.1, largest_zoom=1, smallest_object=7)
    zooms = [
        1 / np.sqrt(abs(np.linalg.det(draw_placement(augmentation, 14, generator(s)).matrix)))
        for s in range(200)
    ]
    assert min(zooms) == pytest.approx(0.5, abs=0.02)
    assert max(zooms) == pytest.approx(1, abs=0.02)


def test_half_of_the_tiles_are_mirrored():
    signs = [
        np.linalg.det(draw_placement(Augmentation(), 0, generator(s)).matrix) < 0
        for s in range(400)
    ]
    assert np.mean(signs) == pytest.approx(0.5, abs=0.08)


def test_grey_values_are_kept_without_augmentation():
    image = generator().random((3, 11, 13), np.float32)
    np.testing.assert_allclose(
        change_grey_values(image, NO_AUGMENTATION, 1, generator()), image, rtol=1e-6
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_values_of_integers_stay_within_their_range(channels):
    image = generator().random((channels, 16, 16), np.float32)
    strong = Augmentation(brightness=0.5, contrast=2, colour=0.5, counterstain=1, noise=0.5)
    for seed in range(20):
        changed = change_grey_values(image, strong, 1, generator(seed))
        assert changed.dtype == np.float32
        assert changed.min() >= 0
        assert changed.max() <= 1


def test_grey_values_of_floats_move_with_their_own_range():
    image = 1e4 * generator().random((1, 16, 16), np.float32)
    shifted = change_grey_values(image, replace(NO_AUGMENTATION, brightness=0.1), 1e4, generator())
    assert 10 < np.abs(shifted - image).mean() <= 1000


def test_counterstain_absorbs_green_most_and_leaves_dark_pictures_alone():
    stain = replace(NO_AUGMENTATION, counterstain=1.0)
    bright, dark = np.full((3, 32, 32), 0.9, np.float32), np.full((3, 32, 32), 0.1, np.float32)
    stained = np.mean(
        [change_grey_values(bright, stain, 1, generator(s)) for s in range(30)], axis=(0, 2, 3)
    )
    assert stained[1] < stained[2] < stained[0]
    assert stained[1] < 0.9
    np.testing.assert_allclose(change_grey_values(dark, stain, 1, generator(1)), dark, rtol=1e-5)
