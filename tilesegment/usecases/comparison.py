"""What is counted in one picture: pairs of labels, pairs of objects, and boundaries."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tilesegment.errors import InputError
from tilesegment.metrics.boundaries import BoundaryScores, label_objects, score_boundaries
from tilesegment.metrics.overlaps import Overlaps, add_up, count_overlaps
from tilesegment.metrics.warping import Mask
from tilesegment.training.pictures import read_probabilities
from tilesegment.usecases.label_sources import (
    Labels,
    MemoryLabels,
    PathPair,
    SegmentedLabels,
    Segmenter,
    Values,
    blocks,
    load_labels,
    whole_plane,
)
from tilesegment.usecases.scores import Tally, mean_boundaries

Kind = Literal["classes", "instances", "boundaries"]

LARGEST_WITH_OBJECTS = 8192**2
"""Pixels of all planes in which connected parts are still numbered: they are held in memory."""
LARGEST_WITH_BOUNDARIES = 4096**2
"""Pixels of a plane whose boundaries are still compared."""
_UNKNOWN = -1
_EVEN_CHANCE = 0.5


@dataclass(frozen=True)
class LabelPair:
    """Truth and prediction of one picture."""

    truth: Labels
    predicted: Labels
    ignore: int | None
    """Value of the truth where nobody annotated."""

    def overlaps(self) -> Overlaps:
        """Counted block by block."""
        return add_up(
            count_overlaps(truth, predicted, self.ignore) for truth, predicted in self._blocks()
        )

    def _blocks(self) -> Iterator[tuple[Values, Values]]:
        for plane in range(self.truth.planes):
            for window in blocks(self.truth.size):
                yield self.truth.read(plane, window), self.predicted.read(plane, window)


@dataclass(frozen=True)
class Comparison:
    """How pictures are compared."""

    kind: Kind
    ignore: int | None = None
    labels: str | None = None
    """Name of the predicted labels in an OME-Zarr image; None if there is only one."""
    thresholds: tuple[float, ...] = ()
    """At which predicted probabilities are cut; empty for labels."""
    segmenter: Segmenter | None = None
    """Makes the prediction, where images are given instead of it."""

    def tally(self, paths: PathPair) -> Tally:
        """Count in one picture.

        Raises:
            InputError: if its labels cannot be used, or are too large for what is asked.
        """
        pair = self.load(paths)
        classes = pair.predicted.classes or pair.truth.classes
        if self.kind == "boundaries":
            _check_size(pair.truth, pair.truth.size.y * pair.truth.size.x, LARGEST_WITH_BOUNDARIES)
        overlaps = pair.overlaps()
        if self.kind == "classes":
            return Tally(paths.name, overlaps, classes)
        if self.kind == "instances":
            numbered = self.objects(pair, overlaps)
            objects = overlaps if numbered is pair else numbered.overlaps()
            return Tally(paths.name, objects.foreground(), classes, objects)
        _check_cells(paths, overlaps)
        boundaries = self._boundaries(pair, paths)
        return Tally(paths.name, overlaps.foreground(), classes, None, boundaries)

    def load(self, paths: PathPair) -> LabelPair:
        """Open the labels of both sides.

        Raises:
            InputError: if they are damaged, or differ in size.
        """
        truth = load_labels(paths.truth)
        predicted = self._predicted(paths)
        sizes = [(*item.size, item.planes) for item in (predicted, truth)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{paths.predicted} has {_size(predicted)} pixels (y, x), {paths.truth} has "
                f"{_size(truth)}; they must be equal"
            )
        return LabelPair(truth, predicted, self.ignore)

    def _predicted(self, paths: PathPair) -> Labels:
        if self.thresholds:
            cells = read_probabilities(paths.predicted) > _EVEN_CHANCE
            return MemoryLabels(paths.name, cells[None].astype(np.uint8))
        if self.segmenter is None:
            return load_labels(paths.predicted, self.labels)
        segmented = self.segmenter.segment(paths.predicted)
        # What is looked at more than once is not computed more than once.
        return segmented if self.kind == "classes" else _held(segmented)

    def objects(self, pair: LabelPair, overlaps: Overlaps) -> LabelPair:
        """The objects of both sides, as labels; `pair` itself if it holds objects already."""
        truth = _objects(pair.truth, overlaps.truth, self.ignore)
        predicted = _objects(pair.predicted, overlaps.predicted, None)
        if truth is pair.truth and predicted is pair.predicted:
            return pair
        return LabelPair(truth, predicted, self.ignore if truth is pair.truth else _UNKNOWN)

    def _boundaries(self, pair: LabelPair, paths: PathPair) -> tuple[BoundaryScores, ...]:
        planes = [self._plane_boundaries(pair, paths, plane) for plane in range(pair.truth.planes)]
        return tuple(mean_boundaries(at_threshold) for at_threshold in zip(*planes, strict=True))

    def _plane_boundaries(
        self, pair: LabelPair, paths: PathPair, plane: int
    ) -> list[BoundaryScores]:
        truth = whole_plane(pair.truth, plane)
        known = np.full(truth.shape, True) if self.ignore is None else truth != self.ignore
        cells = (truth != 0) & known
        if not self.thresholds:
            return [score_boundaries(cells, whole_plane(pair.predicted, plane) != 0, known)]
        probabilities = read_probabilities(paths.predicted)
        return [score_boundaries(cells, probabilities > cut, known) for cut in self.thresholds]


def _size(labels: Labels) -> str:
    planes = f" in {labels.planes} planes" if labels.planes > 1 else ""
    return f"{labels.size.y} x {labels.size.x}{planes}"


def _check_size(labels: Labels, pixels: int, largest: int) -> None:
    if pixels > largest:
        side = round(largest**0.5)
        raise InputError(
            f"connected parts and boundaries are looked at as a whole, and {labels.name} has "
            f"{_size(labels)} pixels, more than {side} x {side}; cut out a part, number the "
            "objects, or use --kind classes"
        )


def _check_cells(paths: PathPair, overlaps: Overlaps) -> None:
    for path, labels in ((paths.truth, overlaps.truth), (paths.predicted, overlaps.predicted)):
        values = np.unique(labels[labels != 0])
        if len(values) > 1:
            raise InputError(
                f"{path} holds {len(values)} values besides 0, but boundaries lie between cells "
                "(one value) and membranes (0); use --kind instances or classes"
            )


def _held(labels: SegmentedLabels) -> MemoryLabels:
    """All planes in memory."""
    _check_size(labels, labels.planes * labels.size.y * labels.size.x, LARGEST_WITH_OBJECTS)
    planes = [whole_plane(labels, plane) for plane in range(labels.planes)]
    return MemoryLabels(labels.name, np.stack(planes).astype(np.int32), labels.classes)


def _objects(labels: Labels, found: npt.NDArray[np.int64], ignore: int | None) -> Labels:
    """Labels in which every object has a number of its own.

    Labels that are known to be classes, or hold one value besides the background, become the
    4-connected parts of the foreground of each plane; others are numbered already.
    """
    background = labels.classes[0].value if labels.classes else 0
    if not labels.classes and len(np.setdiff1d(found, [background])) > 1:
        return labels
    _check_size(labels, labels.planes * labels.size.y * labels.size.x, LARGEST_WITH_OBJECTS)
    numbered = np.empty((labels.planes, *labels.size), np.int32)
    last = 0
    for plane in range(labels.planes):
        values = whole_plane(labels, plane)
        unknown: Mask = np.full(values.shape, False) if ignore is None else values == ignore
        parts = label_objects((values != background) & ~unknown)
        numbered[plane] = np.where(parts > 0, parts + last, 0)
        numbered[plane][unknown] = _UNKNOWN
        last += int(parts.max(initial=0))
    return MemoryLabels(labels.name, numbered)
