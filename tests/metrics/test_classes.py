import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilesegment.metrics.classes import dice, iou, pixel_error
from tilesegment.metrics.overlaps import count_overlaps

PICTURES = hnp.arrays(np.int64, (2, 4, 5), elements=st.integers(0, 3))


def share(part, whole):
    return part / whole if whole else math.nan


@given(PICTURES)
def test_measures_are_those_of_the_masks(pictures):
    truth, predicted = pictures
    matrix = count_overlaps(truth, predicted).matrix(range(4))
    assert math.isclose(pixel_error(matrix), (truth != predicted).mean(), abs_tol=1e-12)
    for value in range(4):
        one, other = truth == value, predicted == value
        common, either = (one & other).sum(), (one | other).sum()
        np.testing.assert_allclose(iou(matrix)[value], share(common, either))
        np.testing.assert_allclose(dice(matrix)[value], share(2 * common, one.sum() + other.sum()))


def test_without_pixels_there_is_no_error_and_no_perfection():
    nothing = np.zeros((2, 2), np.int64)
    assert math.isnan(pixel_error(nothing))
    assert np.isnan(dice(nothing)).all()
    assert np.isnan(iou(nothing)).all()
