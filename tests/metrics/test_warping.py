import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from tilesegment.metrics.warping import score_warping, simple_points, splits_and_mergers, warp

EIGHT = np.ones((3, 3))
PICTURE = hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6)))
PAIR = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


def drawn(*rows):
    """A picture from its rows: # is an object."""
    return np.array([[sign == "#" for sign in row] for row in rows])


def warping_error(truth, predicted, mask=None):
    return score_warping(truth, predicted, mask).error


def topology(picture):
    """Number of objects, 4-connected, and of parts of the background, 8-connected."""
    padded = np.pad(picture, 1)
    return ndimage.label(padded)[1], ndimage.label(~padded, EIGHT)[1]


def neighbourhood(picture, y, x):
    around = np.pad(picture, 1)[y : y + 3, x : x + 3].ravel().tolist()
    return sum(1 << bit for bit, sign in enumerate(around[:4] + around[5:]) if sign)


def is_simple(picture, y, x):
    return simple_points()[neighbourhood(picture, y, x)]


def flipped(picture, y, x):
    other = picture.copy()
    other[y, x] = not other[y, x]
    return other


@given(PICTURE)
def test_simple_points_are_those_whose_flip_keeps_objects_and_holes(picture):
    for y, x in np.ndindex(picture.shape):
        keeps = topology(flipped(picture, y, x)) == topology(picture)
        assert is_simple(picture, y, x) == keeps


@given(PAIR)
def test_warping_keeps_the_topology_and_ends_where_no_simple_point_differs(pair):
    truth, predicted = pair
    warped = warp(truth, predicted)
    assert topology(warped) == topology(truth)
    assert not (warped != predicted)[truth == predicted].any()
    for y, x in np.argwhere(warped != predicted):
        assert not is_simple(warped, y, x)


CELL = drawn(
    ".......",
    ".###...",
    ".###...",
    ".###...",
    ".......",
)  # fmt: skip


def test_a_shifted_border_is_no_error():
    assert warping_error(CELL, np.roll(CELL, 2, axis=1)) == 0
    assert warping_error(CELL, ndimage.binary_dilation(CELL)) == 0
    assert warping_error(CELL, ndimage.binary_erosion(CELL)) == 0


@given(PICTURE)
def test_splits_and_mergers_are_those_whose_flip_changes_the_number_of_objects(picture):
    found = splits_and_mergers(picture, np.ones(picture.shape, bool))
    for y, x in np.ndindex(picture.shape):
        change = topology(flipped(picture, y, x))[0] - topology(picture)[0]
        assert found[y, x] == (change > 0 if picture[y, x] else change < 0)


@pytest.mark.parametrize(
    ("truth", "predicted", "wrong"),
    [
        pytest.param(  # The last pixel of the gap would join the two cells.
            drawn("##.##", "##.##", "##.##"), drawn("#####", "#####", "#####"), 3, id="merge"
        ),
        pytest.param(drawn("#####"), drawn("##.##"), 1, id="split"),
        pytest.param(drawn("###", "###", "###"), drawn("###", "#.#", "###"), 1, id="new hole"),
        pytest.param(drawn("###", "#.#", "###"), drawn("###", "###", "###"), 1, id="lost hole"),
        # Of a missing cell one pixel remains.
        pytest.param(CELL, CELL & False, 1, id="deleted cell"),
        pytest.param(CELL & False, CELL, 9, id="added cell"),
        # Objects are 4-connected: cells that touch at a corner are two, not merged.
        pytest.param(drawn("#.", ".#"), drawn("##", ".#"), 1, id="joined at a corner"),
        pytest.param(drawn(".#.", "###", ".#."), drawn(".#.", "#.#", ".#."), 1, id="four"),
    ],
)
def test_errors_of_topology_by_hand(truth, predicted, wrong):
    assert warping_error(truth, predicted) == pytest.approx(wrong / truth.size)


def test_only_splits_and_mergers_are_counted_as_such():
    hole_and_merger = drawn("###.###", "###.###", "###.###"), drawn("#######", "#.#.###", "###.###")
    scores = score_warping(*hole_and_merger)
    assert scores.error == pytest.approx(2 / 21)
    assert scores.splits_and_mergers == pytest.approx(1 / 21)
    split = score_warping(drawn("#####"), drawn("##.##"))
    assert split.splits_and_mergers == split.error == pytest.approx(1 / 5)


def test_membranes_end_at_the_rim():
    # The background lies beyond the rim, too: a membrane may grow in from there without cost,
    # but where it cuts the cell in two the last pixel cannot be flipped.
    cell = drawn("#####", "#####", "#####")
    assert warping_error(cell, drawn("##.##", "##.##", "#####")) == 0
    assert warping_error(cell, drawn("##.##", "##.##", "##.##")) == pytest.approx(1 / 15)


def test_outside_the_mask_nothing_is_flipped_and_nothing_counted():
    truth, predicted = drawn("####....", "####...."), drawn("######..", "######..")
    mask = np.ones((2, 8), bool)
    mask[:, 5] = False
    assert warp(truth, predicted, mask).tolist() == drawn("#####...", "#####...").tolist()
    assert warping_error(truth, predicted, mask) == 0
    mask[:, 4] = False
    assert warp(truth, predicted, mask).tolist() == truth.tolist()
    assert math.isnan(warping_error(truth, predicted, mask & False))


def least_error(truth, predicted):
    """Over all orders of simple flips of pixels that differ: the fewest that remain."""
    seen, waiting = {truth.tobytes()}, [truth]
    best = truth.size
    while waiting:
        picture = waiting.pop()
        best = min(best, int((picture != predicted).sum()))
        for y, x in np.ndindex(picture.shape):
            other = flipped(picture, y, x)
            differs = picture[y, x] != predicted[y, x]
            if differs and is_simple(picture, y, x) and other.tobytes() not in seen:
                seen.add(other.tobytes())
                waiting.append(other)
    return best


def test_the_queue_comes_near_the_least_possible_error():
    random = np.random.default_rng(7)
    pairs = [random.random((2, 3, 3)) < 0.6 for _ in range(40)]
    least = [least_error(*pair) for pair in pairs]
    found = [round(warping_error(*pair) * 9) for pair in pairs]
    assert all(mine >= fewest for mine, fewest in zip(found, least, strict=True))
    assert sum(found) <= 1.1 * sum(least)
