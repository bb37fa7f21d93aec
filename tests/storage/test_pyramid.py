"""Label pyramids."""

import itertools
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tilesegment.storage.pyramid import level_factors, pool_by_mode, repeat

LABELS = arrays.arrays(
    st.sampled_from([np.uint8, np.uint16]),
    arrays.array_shapes(min_dims=1, max_dims=3, max_side=9),
    elements=st.integers(0, 4),
)
IDENTITIES = arrays.arrays(
    np.int32,
    arrays.array_shapes(min_dims=1, max_dims=3, max_side=9),
    elements=st.sampled_from([0, 1, 70_000, 2**31 - 1]),
)


@given(LABELS | IDENTITIES, st.data())
def test_each_pixel_is_the_most_frequent_label_of_its_block(
    labels: np.ndarray, data: st.DataObject
) -> None:
    factors = tuple(data.draw(st.integers(1, 4)) for _ in labels.shape)
    pooled = pool_by_mode(labels, factors)
    assert pooled.dtype == labels.dtype
    for index in itertools.product(*(range(size) for size in pooled.shape)):
        block = labels[
            tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factors, strict=True))
        ]
        counts = Counter(block.ravel().tolist())
        best = max(counts.values())
        assert pooled[index] == min(value for value, count in counts.items() if count == best)


def test_blocks_of_many_pixels_are_counted_without_overflow() -> None:
    labels = np.ones((32, 32), np.uint8)
    labels[:5] = 7
    assert pool_by_mode(labels, (32, 32)).tolist() == [[1]]


@given(LABELS)
def test_repeating_and_pooling_gives_the_labels_back(labels: np.ndarray) -> None:
    factors = (2,) * labels.ndim
    np.testing.assert_array_equal(pool_by_mode(repeat(labels, factors), factors), labels)


def test_factors_come_from_the_scales_or_else_from_the_shapes() -> None:
    assert level_factors((742, 555), (2.0, 2.0), (2967, 2220), (0.5, 0.5)) == (4, 4)
    assert level_factors((742, 555), (1.0, 1.0), (2967, 2220), (1.0, 1.0)) == (4, 4)
    assert level_factors((1, 1), (1.0, 2.0), (1, 2), (1.0, 1.0)) == (1, 2)
