"""Statistics that do not depend on how an image is cut."""

import math
from fractions import Fraction
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilesegment.statistics import (
    lower_counts,
    moments,
    percentile_ranks,
    upper_counts,
    value_of,
)

VALUES = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@given(values=VALUES, data=st.data())
def test_moments_are_exact_however_the_values_are_cut(
    values: np.ndarray, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, values.size), max_size=3).map(sorted))
    found = reduce(add, map(moments, np.split(values, cuts)))
    exact = [Fraction(float(value)) for value in values]
    mean = sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / len(exact)
    assert found.mean == float(mean)
    assert found.deviation == math.sqrt(float(variance))


@given(values=VALUES, rank=st.integers(0, 59), cut=st.integers(0, 60))
def test_the_value_of_a_rank_is_that_of_sorting(values: np.ndarray, rank: int, cut: int) -> None:
    rank %= values.size
    parts = np.split(values, [cut])
    upper, left = reduce(add, map(upper_counts, parts)).find(rank)
    lower, _ = reduce(add, (lower_counts(part, upper) for part in parts)).find(left)
    assert value_of(upper, lower) == np.sort(values)[rank]


@pytest.mark.parametrize("percentile", [0, 1, 37.5, 99.8, 100])
def test_percentiles_lie_where_numpy_puts_them(percentile: float) -> None:
    values = np.sort(np.random.default_rng(0).random(113))
    below, above, share = percentile_ranks(values.size, percentile)
    found = values[below] + share * (values[above] - values[below])
    assert found == pytest.approx(np.percentile(values, percentile), rel=1e-12)
