import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilesegment.metrics import overlaps
from tilesegment.metrics.overlaps import NOTHING, add_up, count_overlaps, renamed

PICTURES = hnp.arrays(np.int64, (2, 5, 7), elements=st.integers(0, 4))


def as_dict(table):
    rows = zip(table.truth.tolist(), table.predicted.tolist(), strict=True)
    return dict(zip(rows, table.pixels.tolist(), strict=True))


@given(PICTURES)
def test_each_pair_is_counted(pictures):
    counts = {}
    for pair in zip(*pictures.reshape(2, -1).tolist(), strict=True):
        counts[pair] = counts.get(pair, 0) + 1
    assert as_dict(count_overlaps(*pictures)) == counts


@given(PICTURES, st.integers(1, 5), st.integers(1, 7), st.sampled_from([None, 3]))
def test_blocks_add_up_to_the_whole(pictures, rows, columns, ignore):
    parts = [
        count_overlaps(*pictures[:, y : y + rows, x : x + columns], ignore)
        for y in range(0, 5, rows)
        for x in range(0, 7, columns)
    ]
    assert as_dict(add_up(parts)) == as_dict(count_overlaps(*pictures, ignore))


def test_many_tables_are_merged_on_the_way(monkeypatch):
    monkeypatch.setattr(overlaps, "_MERGE_ROWS", 2)
    table = count_overlaps(np.array([1, 1, 2]), np.array([5, 6, 7]))
    assert as_dict(add_up([table] * 10)) == {(1, 5): 10, (1, 6): 10, (2, 7): 10}


def test_large_numbers_of_objects_are_kept():
    huge = 2**62
    table = count_overlaps(np.array([huge, huge]), np.array([huge - 1, 0]))
    assert as_dict(table) == {(huge, 0): 1, (huge, huge - 1): 1}


def test_ignored_pixels_are_left_out_and_may_be_all():
    table = count_overlaps(np.array([9, 1, 9]), np.array([1, 1, 2]), ignore=9)
    assert as_dict(table) == {(1, 1): 1}
    assert as_dict(count_overlaps(np.array([9]), np.array([1]), ignore=9)) == {}
    assert as_dict(add_up([])) == as_dict(NOTHING) == {}


def test_renamed_labels_are_one_afterwards():
    table = count_overlaps(np.array([1, 2, 2, 0]), np.array([7, 7, 8, 0]))
    assert as_dict(table.renamed({1: 1, 2: 1, 0: 0}, {7: 5, 8: 6, 0: 0})) == {
        (0, 0): 1, (1, 5): 2, (1, 6): 1,
    }  # fmt: skip
    assert as_dict(table.foreground()) == {(0, 0): 1, (1, 1): 3}
    np.testing.assert_array_equal(renamed(np.array([[1, 4]]), {4: 2}), [[0, 2]])


def test_matrix_has_a_row_per_true_value_in_the_given_order():
    table = count_overlaps(np.array([20, 20, 10]), np.array([10, 20, 10]))
    np.testing.assert_array_equal(table.matrix([20, 10, 30]), [[1, 1, 0], [0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
def test_every_integer_type_is_counted_the_same(dtype):
    truth = np.array([0, 200, 200]).astype(dtype)
    assert as_dict(count_overlaps(truth, truth)) == {(0, 0): 1, (200, 200): 2}
