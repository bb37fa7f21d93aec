"""Agreement of objects, each with a number of its own.

An object of the truth and one of the prediction match where their intersection over union
exceeds a threshold of at least 0.5: then no other object can exceed it with either of them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilesegment.metrics.overlaps import Counts, Overlaps, renamed

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class Matches:
    """Counts over pictures: they add up."""

    true_objects: int = 0
    predicted_objects: int = 0
    matched: tuple[int, ...] = (0,) * len(THRESHOLDS)
    """Pairs of objects whose intersection over union exceeds each of `THRESHOLDS`."""
    matched_iou: float = 0.0
    """Sum of the intersection over union of the pairs that exceed 0.5."""
    majority_iou: float = 0.0
    """Sum of the intersection over union of the pairs that share more than half of the true
    object."""

    def __add__(self, other: "Matches") -> "Matches":
        return Matches(
            self.true_objects + other.true_objects,
            self.predicted_objects + other.predicted_objects,
            tuple(np.add(self.matched, other.matched).tolist()),
            self.matched_iou + other.matched_iou,
            self.majority_iou + other.majority_iou,
        )


@dataclass(frozen=True)
class Detection:
    """How many objects were found, at one threshold."""

    precision: float
    """Share of the predicted objects that match; NaN if there are none."""
    recall: float
    """Share of the true objects that match; NaN if there are none."""
    f1: float
    """2 matches / (true + predicted objects)."""


@dataclass(frozen=True)
class InstanceScores:
    """NaN where there is nothing to divide by."""

    true_objects: int
    predicted_objects: int
    panoptic_quality: float
    """Kirillov et al. 2019: segmentation quality times recognition quality."""
    segmentation_quality: float
    """Mean intersection over union of the matches at 0.5."""
    recognition_quality: float
    """F1 at 0.5."""
    seg: float
    """Cell Tracking Challenge (Maska et al. 2014): mean over the true objects of the intersection
    over union with the predicted object that holds more than half of it, else 0."""
    thresholds: dict[str, Detection]
    """By threshold of the intersection over union, "0.50" to "0.95"."""


def match_objects(overlaps: Overlaps) -> Matches:
    """Match the objects of one picture; label 0 is background on both sides."""
    _, iou, share = _agreement(overlaps)
    return Matches(
        int(np.count_nonzero(np.unique(overlaps.truth))),
        int(np.count_nonzero(np.unique(overlaps.predicted))),
        tuple(int((iou > threshold).sum()) for threshold in THRESHOLDS),
        float(iou[iou > THRESHOLDS[0]].sum()),
        float(iou[share > 1 / 2].sum()),
    )


def in_matched_objects(
    overlaps: Overlaps, truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer]
) -> npt.NDArray[np.bool_]:
    """Where the objects of both sides match each other at 0.5.

    Args:
        overlaps: of the whole picture.
        truth: numbers of objects in a part of it.
        predicted: of the same shape.
    """
    both, iou, _ = _agreement(overlaps)
    matched = iou > THRESHOLDS[0]
    pairs = zip(overlaps.truth[both][matched], overlaps.predicted[both][matched], strict=True)
    partner = renamed(truth, {int(label): int(found) for label, found in pairs})
    inside: npt.NDArray[np.bool_] = (partner == predicted) & (partner != 0)
    return inside


def _agreement(
    overlaps: Overlaps,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Which rows are two objects; and of those intersection over union, and over true object."""
    both = (overlaps.truth != 0) & (overlaps.predicted != 0)
    true_area = _areas(overlaps.truth, overlaps.pixels)[both]
    predicted_area = _areas(overlaps.predicted, overlaps.pixels)[both]
    common = overlaps.pixels[both]
    return both, common / (true_area + predicted_area - common), common / true_area


def _areas(labels: Counts, pixels: Counts) -> Counts:
    """For each row, the pixels of all rows with its label."""
    found, position = np.unique(labels, return_inverse=True)
    areas = np.zeros(len(found), np.int64)
    np.add.at(areas, position, pixels)
    return areas[position]


def score_matches(matches: Matches) -> InstanceScores:
    """The measures that follow from the counts."""
    by_threshold = {
        f"{threshold:.2f}": Detection(
            _divide(matched, matches.predicted_objects),
            _divide(matched, matches.true_objects),
            _divide(2 * matched, matches.true_objects + matches.predicted_objects),
        )
        for threshold, matched in zip(THRESHOLDS, matches.matched, strict=True)
    }
    recognition = by_threshold[f"{THRESHOLDS[0]:.2f}"].f1
    segmentation = _divide(matches.matched_iou, matches.matched[0])
    return InstanceScores(
        true_objects=matches.true_objects,
        predicted_objects=matches.predicted_objects,
        panoptic_quality=segmentation * recognition if matches.matched[0] else recognition,
        segmentation_quality=segmentation,
        recognition_quality=recognition,
        seg=_divide(matches.majority_iou, matches.true_objects),
        thresholds=by_threshold,
    )


def _divide(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
