import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from tests.metrics.test_warping import drawn
from tilesegment.metrics.boundaries import label_objects, score_boundaries, thin_membranes

TWO_CELLS = drawn(
    "####.####",
    "####.####",
    "####.####",
)  # fmt: skip


def test_the_same_is_perfect():
    scores = score_boundaries(TWO_CELLS, TWO_CELLS)
    assert (scores.pixel_error, scores.rand_error, scores.warping_error) == (0, 0, 0)
    assert (scores.v_rand, scores.v_info) == (1, pytest.approx(1))


def test_the_width_of_a_membrane_does_not_count_after_thinning():
    wide = TWO_CELLS & ~ndimage.binary_dilation(~TWO_CELLS)
    scores = score_boundaries(TWO_CELLS, wide)
    assert scores.pixel_error == pytest.approx(6 / 27)
    assert scores.rand_error > 0
    assert scores.warping_error == 0
    assert (scores.v_rand, scores.v_info) == (1, pytest.approx(1))


def test_a_hole_in_a_membrane_merges_two_cells():
    leaky = TWO_CELLS.copy()
    leaky[1, 4] = True
    scores = score_boundaries(TWO_CELLS, leaky)
    assert scores.warping_error == pytest.approx(1 / 27)
    # 24 pixels of two cells in one: 2 * 12**2 pairs belong together, 24**2 are said to.
    assert scores.v_rand == pytest.approx(2 * 288 / (288 + 576))
    assert scores.rand_error == pytest.approx(1 - scores.v_rand)
    assert scores.v_info == 0


def test_what_nobody_annotated_does_not_count():
    leaky = TWO_CELLS.copy()
    leaky[1, 4] = True
    scores = score_boundaries(TWO_CELLS, leaky, known=np.arange(9) < np.full((3, 1), 4))
    assert (scores.pixel_error, scores.rand_error, scores.warping_error) == (0, 0, 0)
    nothing = score_boundaries(TWO_CELLS, leaky, known=TWO_CELLS & False)
    assert math.isnan(nothing.pixel_error)
    assert math.isnan(nothing.v_rand)


def test_cells_are_4_connected():
    np.testing.assert_array_equal(label_objects(drawn("#.", ".#")), [[1, 0], [0, 2]])


@given(hnp.arrays(bool, (7, 8)))
def test_thinning_leaves_no_membrane_and_every_cell_where_it_was(cells):
    numbered = label_objects(cells)
    grown = thin_membranes(numbered)
    assert (grown[cells] == numbered[cells]).all()
    assert (grown != 0).all() == cells.any()
