import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilesegment.metrics.instances import (
    THRESHOLDS,
    Matches,
    in_matched_objects,
    match_objects,
    score_matches,
)
from tilesegment.metrics.overlaps import add_up, count_overlaps

PICTURES = hnp.arrays(np.int64, (2, 4, 6), elements=st.integers(0, 3))

# Two true objects of 8 pixels each. Prediction 5 has 6 of the first and nothing else (IoU 6/8),
# 6 has 3 pixels of the second and 1 of the background (IoU 3/9), 7 lies in the background.
TRUTH = np.array([
    [1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 0],
    [1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 0],
])  # fmt: skip
PREDICTED = np.array([
    [5, 5, 5, 0, 6, 6, 6, 0, 0, 0, 7],
    [5, 5, 5, 0, 0, 6, 0, 0, 0, 0, 7],
])  # fmt: skip


def test_panoptic_quality_by_hand():
    scores = score_matches(match_objects(count_overlaps(TRUTH, PREDICTED)))
    assert (scores.true_objects, scores.predicted_objects) == (2, 3)
    assert scores.segmentation_quality == pytest.approx(6 / 8)
    assert scores.recognition_quality == pytest.approx(1 / (1 + 2 / 2 + 1 / 2))
    assert scores.panoptic_quality == pytest.approx(6 / 8 / 2.5)


def test_precision_and_recall_by_hand():
    thresholds = score_matches(match_objects(count_overlaps(TRUTH, PREDICTED))).thresholds
    assert list(thresholds) == [f"{threshold:.2f}" for threshold in THRESHOLDS]
    found = thresholds["0.70"]
    assert (found.precision, found.recall, found.f1) == (1 / 3, 1 / 2, 2 / 5)
    # "exceeds": 6/8 is not above 0.75.
    assert thresholds["0.75"].f1 == 0


def test_seg_counts_true_objects_of_which_more_than_half_was_found():
    # "A reference object R is matched if |R and S| > 0.5 |R|" (Cell Tracking Challenge).
    truth = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]])
    predicted = np.array([[1, 1, 1, 0, 2, 2, 0, 0, 3, 3, 3]])
    # 3 of 4 pixels: IoU 3/4; 2 of 4 are not more than half; 3 of 3.
    matches = match_objects(count_overlaps(truth, predicted))
    assert score_matches(matches).seg == pytest.approx((3 / 4 + 0 + 1) / 3)


def brute_force(truth, predicted):
    """Intersections over unions of all pairs, from masks."""
    ious = {}
    for one in set(truth.ravel()) - {0}:
        for other in set(predicted.ravel()) - {0}:
            a, b = truth == one, predicted == other
            ious[int(one), int(other)] = ((a & b).sum() / (a | b).sum(), (a & b).sum() / a.sum())
    return ious


@given(PICTURES)
def test_matches_are_those_of_the_masks(pictures):
    matches = match_objects(count_overlaps(*pictures))
    pairs = brute_force(*pictures).values()
    assert matches.matched == tuple(sum(iou > cut for iou, _ in pairs) for cut in THRESHOLDS)
    assert math.isclose(
        matches.matched_iou, sum(iou for iou, _ in pairs if iou > 0.5), abs_tol=1e-9
    )
    assert math.isclose(
        matches.majority_iou, sum(iou for iou, part in pairs if part > 0.5), abs_tol=1e-9
    )


@given(PICTURES, st.integers(1, 5))
def test_objects_over_many_blocks_are_matched_as_in_the_whole(pictures, cut):
    parts = [count_overlaps(*pictures[:, :, :cut]), count_overlaps(*pictures[:, :, cut:])]
    assert match_objects(add_up(parts)) == match_objects(count_overlaps(*pictures))


@given(PICTURES)
def test_pixels_of_matched_objects_are_known(pictures):
    inside = in_matched_objects(count_overlaps(*pictures), *pictures)
    matched = {pair for pair, (iou, _) in brute_force(*pictures).items() if iou > 0.5}
    pairs = zip(*pictures.reshape(2, -1).tolist(), strict=True)
    assert inside.ravel().tolist() == [pair in matched for pair in pairs]


def test_counts_of_pictures_add_up():
    one = match_objects(count_overlaps(TRUTH, PREDICTED))
    both = score_matches(one + one)
    assert both.true_objects == 4
    assert both.panoptic_quality == pytest.approx(score_matches(one).panoptic_quality)


def test_nothing_to_find():
    nothing = score_matches(Matches())
    assert math.isnan(nothing.panoptic_quality)
    assert math.isnan(nothing.seg)
    missed = score_matches(match_objects(count_overlaps(TRUTH, TRUTH * 0)))
    assert (missed.panoptic_quality, missed.seg) == (0, 0)
    assert math.isnan(missed.thresholds["0.50"].precision)
