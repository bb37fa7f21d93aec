import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from tilesegment.training.weight_map import (
    BorderWeight,
    border_weights,
    class_weights,
    separate_touching,
)

small_labels = hnp.arrays(np.uint16, (13, 17), elements=st.sampled_from([0, 0, 0, 2, 3, 700]))


def brute_force_border(instances, w0, sigma):
    """Equation (2) as it is written: for each pixel the distance to every object, sorted."""
    numbers = [number for number in np.unique(instances) if number]
    expected = np.zeros(instances.shape)
    for y, x in np.ndindex(instances.shape):
        distances = sorted(
            np.hypot(*(np.argwhere(instances == number) - (y, x)).T).min() for number in numbers
        )
        if len(distances) >= 2:
            d1, d2 = distances[:2]
            expected[y, x] = w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    return expected


# "where w_c is the weight map to balance the class frequencies, d1 denotes the distance to the
# border of the nearest cell and d2 the distance to the border of the second nearest cell. In our
# experiments we set w0 = 10 and sigma ~ 5 pixels." (section 3)
@given(small_labels, st.sampled_from([(10.0, 5.0), (3.0, 1.5)]))
@settings(max_examples=15, deadline=None)
def test_border_weights_are_those_of_equation_2(instances, constants):
    weights = border_weights(instances, BorderWeight(*constants))
    np.testing.assert_allclose(weights, brute_force_border(instances, *constants), atol=1e-5)


def test_gap_between_two_cells_weighs_more_than_the_open_background():
    instances = np.zeros((40, 80), int)
    instances[10:30, 10:20] = 1
    instances[10:30, 22:32] = 2
    weights = border_weights(instances, BorderWeight())
    # d1 = 1 and d2 = 2 in the gap of two pixels.
    assert weights[20, 20] == pytest.approx(10 * np.exp(-9 / 50), rel=1e-5)
    assert weights[20, 60] < 1e-6


def test_one_cell_alone_has_no_border():
    assert not border_weights(np.eye(9, dtype=int), BorderWeight()).any()


def test_w0_of_zero_turns_the_border_off():
    assert not border_weights(np.array([[1, 0, 2]]), BorderWeight(w0=0)).any()


# "In the segmentation, touching cells are separated by a small background ridge"
@given(small_labels)
@settings(max_examples=50, deadline=None)
def test_no_objects_touch_once_separated(instances):
    separated = separate_touching(instances)
    kept = separated > 0
    assert (separated[kept] == instances[kept]).all()
    for number in np.unique(separated[kept]):
        around = ndimage.binary_dilation(separated == number, np.ones((3, 3)))
        assert set(np.unique(separated[around])) <= {0, number}


def test_ridge_is_one_pixel_wide_and_only_where_objects_touch():
    instances = np.zeros((5, 9), int)
    instances[:, :4] = 1
    instances[:, 4:7] = 2
    expected = instances.copy()
    expected[:, 3] = 0
    np.testing.assert_array_equal(separate_touching(instances), expected)


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=5))
def test_balanced_classes_have_equal_total_weight_and_mean_one(counts):
    pixels = np.array(counts)
    totals = class_weights(pixels) * pixels
    np.testing.assert_allclose(totals, totals[0], rtol=1e-4)
    assert totals.sum() / pixels.sum() == pytest.approx(1, rel=1e-4)


def test_unbalanced_classes_weigh_one_each():
    np.testing.assert_allclose(class_weights(np.array([97, 3]), balance=0), 1)
