"""The use case `evaluate`: compare a prediction, or a model's, with the truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tilesegment.errors import OptionError
from tilesegment.training.pictures import group_of
from tilesegment.usecases.class_values import ClassTable, match_values
from tilesegment.usecases.comparison import Comparison, Kind
from tilesegment.usecases.label_sources import (
    PathPair,
    Segmentation,
    Segmenter,
    find_path_pairs,
)
from tilesegment.usecases.scores import Evaluation, Tally, score

_BINARY = {
    "instances": ("background", "object"),
    "boundaries": ("membrane", "cell"),
}


@dataclass(frozen=True)
class EvaluateOptions:
    """What is compared, and how labels are to be understood."""

    kind: Literal["auto"] | Kind = "auto"
    """"classes": values are classes. "instances": every number but 0 is one object. "boundaries":
    cells (not 0) with membranes (0) between them. "auto": instances if the truth's folder or file
    says so, as for training, else classes."""
    ignore: int | None = None
    """Value of the truth (0xRRGGBB for colours) where nobody annotated."""
    names: tuple[str, ...] | None = None
    """Names of the classes 0, 1, 2, ...; None takes those of the model or the label image."""
    labels: str | None = None
    """Which labels of an OME-Zarr image are the prediction; None if there is only one."""
    thresholds: tuple[float, ...] = ()
    """If given, predictions are pictures of the probability of a cell, and their boundaries are
    compared at each of these."""
    by_group: bool = False
    """Also for each group of pictures: those whose names are equal up to the first _ or /."""


def evaluate(
    predicted: str | Path,
    truth: str | Path,
    *,
    model: Segmentation | None = None,
    options: EvaluateOptions = EvaluateOptions(),
    picture: str | Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Compare predicted labels with the truth.

    Pixels, classes and numbered objects are counted block by block, in bounded memory at any
    size. Connected parts and boundaries need a plane as a whole, and are refused above a size.

    Args:
        predicted: a label picture, an OME-Zarr label image or image with labels, or a folder of
            such; with `model`, pictures or OME-Zarr images that it is to segment first.
        truth: what is right: the same kinds of things; in folders, of the same names.
        model: segments `predicted` in this process, with the labels that `segment` would give.
        options: what is compared.
        picture: file (.png) for a picture of the errors.
        report: told after each picture how many are done, and how many there are.

    Raises:
        InputError: something is absent, damaged, of another size, or without a partner.
        ModelError: the model cannot be used.
        OptionError: an option cannot work here.
    """
    kind = _check(options, model is not None, picture)
    pairs = find_path_pairs(Path(predicted), Path(truth))
    comparison = Comparison(
        kind if kind != "auto" else _guess_kind(pairs),
        options.ignore,
        options.labels,
        options.thresholds,
        Segmenter(model) if model is not None else None,
    )
    tallies = []
    for pair in pairs:
        tallies.append(comparison.tally(pair))
        report(len(tallies), len(pairs))
    table = _class_table(comparison.kind, tallies, options.names)
    evaluation = _summarise(comparison, table, tallies, options.by_group)
    if picture is not None:
        from tilesegment.usecases.error_picture import draw_errors

        draw_errors(Path(picture), comparison, table, pairs, tallies, evaluation)
    return evaluation


def _check(
    options: EvaluateOptions, has_model: bool, picture: str | Path | None
) -> Literal["auto"] | Kind:
    if options.thresholds and (has_model or options.kind not in ("auto", "boundaries")):
        raise OptionError(
            "--thresholds are for predicted pictures of probabilities and --kind boundaries; leave "
            "them out"
        )
    if not all(0 <= threshold < 1 for threshold in options.thresholds):
        raise OptionError(f"thresholds must be at least 0 and below 1, got {options.thresholds}")
    if picture is not None and Path(picture).suffix.lower() != ".png":
        raise OptionError(f"the picture of errors {picture} must be called NAME.png")
    return "boundaries" if options.thresholds else options.kind


def _guess_kind(pairs: Sequence[PathPair]) -> Kind:
    return "instances" if all(_says_instances(pair.truth) for pair in pairs) else "classes"


def _says_instances(path: Path) -> bool:
    return "instances" in (path.stem, path.parent.name) or path.stem.endswith("_instances")


def _class_table(kind: Kind, tallies: Sequence[Tally], names: Sequence[str] | None) -> ClassTable:
    if kind in _BINARY:
        same = {0: 0, 1: 1}
        return ClassTable(_BINARY[kind], same, same)
    truth = sorted({value for tally in tallies for value in tally.overlaps.truth.tolist()})
    predicted = sorted({value for tally in tallies for value in tally.overlaps.predicted.tolist()})
    return match_values(truth, predicted, tallies[0].classes, names)


def _summarise(
    comparison: Comparison, table: ClassTable, tallies: Sequence[Tally], by_group: bool
) -> Evaluation:
    groups: dict[str, list[Tally]] = {}
    for tally in tallies if by_group else ():
        groups.setdefault(group_of(tally.name), []).append(tally)
    thresholds = comparison.thresholds
    return Evaluation(
        comparison.kind,
        table.names,
        score(tallies, table, thresholds),
        {tally.name: score([tally], table, thresholds) for tally in tallies},
        {name: score(members, table, thresholds) for name, members in sorted(groups.items())},
    )
