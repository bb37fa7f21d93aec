"""Agreement of two ways to divide a picture into segments, whatever the segments are called.

Both measures are restricted to the truth's foreground, and each foreground pixel that the
prediction leaves without a segment (label 0) is a segment of its own, as in Arganda-Carreras et
al. 2015, "Crowdsourcing the creation of image segmentation algorithms for connectomics".
"""

from dataclasses import dataclass

import numpy as np

from tilesegment.metrics.overlaps import Counts, Overlaps


@dataclass(frozen=True)
class PartitionScores:
    """1 for the same division; NaN if the truth has no foreground."""

    rand: float
    """F-score of the Rand index: of the pairs of pixels that one of the two divisions puts into
    one segment, how many both do."""
    information: float
    """Mutual information over the mean entropy."""


def compare_partitions(overlaps: Overlaps) -> PartitionScores:
    """Compare two divisions; label 0 is background on both sides."""
    inside = overlaps.truth != 0
    truth, predicted = overlaps.truth[inside], overlaps.predicted[inside]
    pixels = overlaps.pixels[inside]
    if not len(pixels):
        return PartitionScores(float("nan"), float("nan"))
    in_segment = predicted != 0
    singles = int(pixels[~in_segment].sum())
    true_areas = _sums(truth, pixels)
    predicted_areas = _sums(predicted[in_segment], pixels[in_segment])
    common = pixels[in_segment].astype(np.float64)
    return PartitionScores(
        _rand(true_areas, predicted_areas, common, singles),
        _information(true_areas, predicted_areas, common, singles),
    )


def _rand(
    true_areas: np.ndarray, predicted_areas: np.ndarray, common: np.ndarray, singles: int
) -> float:
    together_in_truth = (true_areas**2).sum()
    together_in_prediction = (predicted_areas**2).sum() + singles
    together_in_both = (common**2).sum() + singles
    return float(2 * together_in_both / (together_in_truth + together_in_prediction))


def _information(
    true_areas: np.ndarray, predicted_areas: np.ndarray, common: np.ndarray, singles: int
) -> float:
    total = true_areas.sum()
    alone = singles / total * np.log(total)
    in_truth = _entropy(true_areas, total)
    in_prediction = _entropy(predicted_areas, total) + alone
    in_both = _entropy(common, total) + alone
    mean = (in_truth + in_prediction) / 2
    return float((in_truth + in_prediction - in_both) / mean) if mean > 0 else 1.0


def _entropy(areas: np.ndarray, total: float) -> float:
    return float(-(areas / total * np.log(areas / total)).sum())


def _sums(labels: Counts, pixels: Counts) -> np.ndarray:
    found, position = np.unique(labels, return_inverse=True)
    return np.bincount(position, weights=pixels, minlength=len(found))
