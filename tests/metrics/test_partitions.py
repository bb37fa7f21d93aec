import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.metrics import adapted_rand_error

from tilesegment.metrics.overlaps import count_overlaps
from tilesegment.metrics.partitions import compare_partitions

PICTURES = hnp.arrays(np.int64, (2, 3, 4), elements=st.integers(0, 3))


def prepared(pictures):
    """Pairs of labels in the truth's foreground; background in the prediction stands alone."""
    truth, predicted = pictures.reshape(2, -1).tolist()
    alone = itertools.count(start=1000)
    return [(t, p or next(alone)) for t, p in zip(truth, predicted, strict=True) if t]


@given(PICTURES)
def test_rand_is_that_of_all_pairs_of_pixels(pictures):
    pixels = prepared(pictures)
    assume(pixels)
    pairs = list(itertools.product(pixels, pixels))
    in_truth = sum(a[0] == b[0] for a, b in pairs)
    in_prediction = sum(a[1] == b[1] for a, b in pairs)
    in_both = sum(a == b for a, b in pairs)
    precision, recall = in_both / in_prediction, in_both / in_truth
    expected = 2 * precision * recall / (precision + recall)
    assert math.isclose(compare_partitions(count_overlaps(*pictures)).rand, expected)


def entropy(items):
    shares = np.unique(items, axis=0, return_counts=True)[1] / len(items)
    return -(shares * np.log(shares)).sum()


@given(PICTURES)
def test_information_is_that_of_the_distributions(pictures):
    pixels = np.array(prepared(pictures))
    assume(len(pixels))
    one, other = entropy(pixels[:, :1]), entropy(pixels[:, 1:])
    assume(one + other > 0)
    expected = 2 * (one + other - entropy(pixels)) / (one + other)
    found = compare_partitions(count_overlaps(*pictures)).information
    assert math.isclose(found, expected, abs_tol=1e-9)


def test_rand_agrees_with_scikit_image_where_all_is_in_a_segment():
    # scikit-image leaves out the pairs of a pixel with itself: the fewer, the larger the picture.
    random = np.random.default_rng(3)
    truth, predicted = random.integers(0, 4, (2, 100, 100))
    predicted = np.where(random.random(truth.shape) < 0.8, truth + 1, predicted + 1)
    error = adapted_rand_error(truth, predicted, ignore_labels=(0,))[0]
    found = compare_partitions(count_overlaps(truth, predicted)).rand
    assert found == pytest.approx(1 - error, abs=3e-4)


def test_a_merge_by_hand():
    # Two segments of two pixels become one of four: of 16 ordered pairs 8 belong together.
    scores = compare_partitions(count_overlaps(np.array([1, 1, 2, 2]), np.array([7, 7, 7, 7])))
    assert scores.rand == pytest.approx(2 * 8 / (8 + 16))
    assert scores.information == 0


def test_names_do_not_matter_and_the_same_is_perfect():
    scores = compare_partitions(count_overlaps(np.array([0, 1, 1, 2]), np.array([0, 9, 9, 4])))
    assert (scores.rand, scores.information) == (1, pytest.approx(1))
    one = compare_partitions(count_overlaps(np.array([1, 1]), np.array([4, 4])))
    assert (one.rand, one.information) == (1, 1)


def test_without_foreground_nothing_is_said():
    scores = compare_partitions(count_overlaps(np.zeros(3, int), np.ones(3, int)))
    assert math.isnan(scores.rand)
    assert math.isnan(scores.information)
