"""Pyramids by area averaging."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilesegment.geometry import YX
from tilesegment.storage.importing.pyramid import (
    COARSEST_SIDE,
    halve,
    level_scale,
    level_sizes,
    level_translation,
)


def brute_force_mean(pixels: np.ndarray) -> np.ndarray:
    """The mean of the pixels that each coarse pixel covers, one at a time."""
    channels, height, width = pixels.shape
    coarse = np.empty((channels, -(-height // 2), -(-width // 2)), pixels.dtype)
    for c, y, x in np.ndindex(coarse.shape):
        covered = pixels[c, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(np.float64)
        mean = covered.sum() / covered.size
        coarse[c, y, x] = mean if pixels.dtype.kind == "f" else np.floor(mean + 0.5)
    return coarse


@given(
    st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: hnp.arrays(
            dtype, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)
        )
    )
)
def test_halving_is_the_rounded_mean_of_the_covered_pixels(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(halve(pixels), brute_force_mean(pixels))
    assert halve(pixels).dtype == pixels.dtype


def test_halving_of_floats_does_not_overflow() -> None:
    largest = np.full((1, 2, 3), np.finfo(np.float32).max, np.float32)
    np.testing.assert_array_equal(halve(largest), largest[:, :1, :2])


@given(
    hnp.arrays(
        np.float32,
        (2, 5, 3),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
def test_halving_of_floats_is_the_mean(pixels: np.ndarray) -> None:
    np.testing.assert_allclose(halve(pixels), brute_force_mean(pixels), rtol=1e-6, atol=1e-6)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_levels_halve_until_the_smaller_side_is_short(y: int, x: int) -> None:
    sizes = level_sizes(YX(y, x))
    assert sizes[0] == (y, x)
    assert min(sizes[-1]) < COARSEST_SIDE
    assert all(min(size) >= COARSEST_SIDE for size in sizes[:-1])
    for fine, coarse in pairwise(sizes):
        assert coarse == ((fine.y + 1) // 2, (fine.x + 1) // 2)


@pytest.mark.parametrize("level", range(5))
def test_first_pixel_of_a_level_lies_in_the_middle_of_those_it_covers(level: int) -> None:
    covered = np.arange(level_scale(level))
    assert level_translation(level) == covered.mean()
