"""From counts to scores: of each picture, of groups of pictures, and of all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from tilesegment.metrics.boundaries import BoundaryScores
from tilesegment.metrics.classes import dice, iou, pixel_error
from tilesegment.metrics.instances import InstanceScores, Matches, match_objects, score_matches
from tilesegment.metrics.overlaps import Overlaps, add_up
from tilesegment.model.file import LabelClass
from tilesegment.usecases.class_values import ClassTable

_MORE_IS_BETTER = ("v_rand", "v_info")


@dataclass(frozen=True)
class Tally:
    """What was counted in one picture."""

    name: str
    overlaps: Overlaps
    """Of the values of classes, or of background (0) and foreground (1)."""
    classes: tuple[LabelClass, ...] = ()
    """What the values mean, if one side says so."""
    objects: Overlaps | None = None
    """Of the objects' numbers, where objects are compared."""
    boundaries: tuple[BoundaryScores, ...] = ()
    """One per threshold, the mean over the planes, where boundaries are compared."""


@dataclass(frozen=True)
class ClassScores:
    """Agreement of one class; NaN if it does not occur."""

    iou: float
    dice: float


@dataclass(frozen=True)
class Scores:
    """Of one picture, or of several together.

    Their pixels and objects are counted as those of one picture; measures of boundaries are the
    mean over the pictures.
    """

    pictures: int
    pixel_error: float
    """Share of the annotated pixels with another class."""
    classes: Mapping[str, ClassScores]
    confusion: tuple[tuple[int, ...], ...]
    """Pixels by true (row) and predicted (column) class."""
    instances: InstanceScores | None = None
    boundaries: BoundaryScores | None = None
    """Each measure at the threshold that is best for it."""
    best_thresholds: Mapping[str, float] | None = None
    """That threshold, by measure of boundaries; None if labels were compared."""

    def headline(self) -> dict[str, float]:
        """The numbers for a table; of two classes only the second, the foreground."""
        numbers = {"pixel_error": self.pixel_error}
        for name, scores in list(self.classes.items())[len(self.classes) == 2 :]:
            numbers |= {f"iou {name}": scores.iou, f"dice {name}": scores.dice}
        if self.instances is not None:
            keys = ("panoptic_quality", "segmentation_quality", "recognition_quality", "seg")
            numbers |= {key: getattr(self.instances, key) for key in keys}
        if self.boundaries is not None:
            numbers |= asdict(self.boundaries)
        return numbers


@dataclass(frozen=True)
class Evaluation:
    """How good a prediction is."""

    kind: str
    """classes, instances or boundaries."""
    class_names: tuple[str, ...]
    overall: Scores
    pictures: Mapping[str, Scores]
    groups: Mapping[str, Scores]
    """Empty unless asked for."""

    @property
    def picture_mean(self) -> dict[str, float]:
        """Mean of each headline number over the pictures that have it."""
        return _mean_headline(list(self.pictures.values()))

    @property
    def group_mean(self) -> dict[str, float]:
        """Mean of each headline number over the groups that have it."""
        return _mean_headline(list(self.groups.values()))

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values; null for what could not be computed."""
        found: dict[str, Any] = {
            "kind": self.kind,
            "class_names": self.class_names,
            **_asked_for(self.overall),
            "picture_mean": self.picture_mean,
            "by_picture": {name: _asked_for(item) for name, item in self.pictures.items()},
        }
        if self.groups:
            found["group_mean"] = self.group_mean
            found["by_group"] = {name: _asked_for(item) for name, item in self.groups.items()}
        plain: dict[str, Any] = _plain(found)
        return plain


def _asked_for(scores: Scores) -> dict[str, Any]:
    return {key: value for key, value in asdict(scores).items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _mean_headline(scores: Sequence[Scores]) -> dict[str, float]:
    rows = [item.headline() for item in scores]
    return {key: mean([row[key] for row in rows]) for key in rows[0]} if rows else {}


def mean(numbers: Sequence[float]) -> float:
    """The mean of those that are not NaN; NaN if none is."""
    known = [number for number in numbers if not math.isnan(number)]
    return sum(known) / len(known) if known else math.nan


def score(tallies: Sequence[Tally], table: ClassTable, thresholds: Sequence[float]) -> Scores:
    """The scores of some pictures together."""
    values = add_up(tally.overlaps for tally in tallies)
    matrix = values.renamed(table.truth, table.predicted).matrix(range(len(table.names)))
    per_class = zip(table.names, iou(matrix).tolist(), dice(matrix).tolist(), strict=True)
    boundaries, best = best_boundaries([tally.boundaries for tally in tallies])
    return Scores(
        pictures=len(tallies),
        pixel_error=pixel_error(matrix),
        classes={name: ClassScores(*pair) for name, *pair in per_class},
        confusion=tuple(tuple(row) for row in matrix.tolist()),
        instances=_score_objects(tallies),
        boundaries=boundaries,
        best_thresholds={key: thresholds[index] for key, index in best.items()}
        if thresholds
        else None,
    )


def _score_objects(tallies: Sequence[Tally]) -> InstanceScores | None:
    found = [match_objects(tally.objects) for tally in tallies if tally.objects is not None]
    return score_matches(sum(found, start=Matches())) if found else None


def mean_boundaries(sections: Sequence[BoundaryScores]) -> BoundaryScores:
    """The mean of each measure."""
    return BoundaryScores(
        **{
            item.name: mean([getattr(section, item.name) for section in sections])
            for item in fields(BoundaryScores)
        }
    )


def best_boundaries(
    pictures: Sequence[Sequence[BoundaryScores]],
) -> tuple[BoundaryScores | None, dict[str, int]]:
    """Each measure at the threshold where its mean over the pictures is best, as the challenge
    does; and the index of that threshold.

    Args:
        pictures: for each picture, the scores at each threshold; empty if not asked for.
    """
    at_threshold = [mean_boundaries(sections) for sections in zip(*pictures, strict=True)]
    if not at_threshold:
        return None, {}
    best = {}
    for item in fields(BoundaryScores):
        sign = -1 if item.name in _MORE_IS_BETTER else 1
        numbers = [sign * getattr(scores, item.name) for scores in at_threshold]
        best[item.name] = min(
            range(len(numbers)), key=lambda index: (math.isnan(numbers[index]), numbers[index])
        )
    chosen = {key: getattr(at_threshold[index], key) for key, index in best.items()}
    return BoundaryScores(**chosen), best
