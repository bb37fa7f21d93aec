"""``tilesegment evaluate``."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesegment_cli.options import average_option, foreign_options, json_option, label_value

if TYPE_CHECKING:
    from tilesegment.config import ForeignOptions
    from tilesegment.usecases.scores import Evaluation

_WIDEST_CONFUSION = 12


def _numbers(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...]:
    """Several numbers, as A,B,..."""
    try:
        return tuple(float(item) for item in value.split(",")) if value else ()
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list such as 0.3,0.5,0.7") from error


@click.command(
    epilog="""\b
Examples:
  tilesegment evaluate slide.zarr truth.zarr --labels nuclei
  tilesegment evaluate predicted/ truth/ --by-group
  tilesegment evaluate images/ instances/ --model nuclei --picture errors.png
  tilesegment evaluate probabilities/ label/ --thresholds 0.3,0.4,0.5,0.6,0.7 --json
"""
)
@click.argument("predicted", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
@click.option(
    "--model",
    metavar="FILE|NAME",
    help="PREDICTED are images; segment them with this model first.",
)
@click.option(
    "--labels", metavar="NAME", help="Which labels of an OME-Zarr PREDICTED; needed if several."
)
@click.option(
    "--kind",
    type=click.Choice(["auto", "classes", "instances", "boundaries"]),
    default="auto",
    show_default=True,
    help="auto: instances if the truth's folder or file is called so, else classes.",
)
@click.option(
    "--ignore",
    callback=label_value,
    metavar="VALUE",
    help="Value of the truth (or #rrggbb) of pixels that nobody annotated.",
)
@click.option(
    "--names", metavar="A,B,...", help="Names of the classes, in the order of their values."
)
@click.option(
    "--thresholds",
    callback=_numbers,
    metavar="A,B,...",
    help="PREDICTED are probabilities of a cell; compare boundaries at each of these.",
)
@click.option("--by-group", is_flag=True, help="Also by group: names up to the first _ or /.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Write a picture of truth, prediction and errors.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16", "int8"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the model.",
)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
    help="Where the model runs.",
)  # fmt: skip
@average_option
@foreign_options
@json_option
def evaluate(
    predicted: Path,
    truth: Path,
    model: str | None,
    labels: str | None,
    kind: Any,
    ignore: int | None,
    names: str | None,
    thresholds: tuple[float, ...],
    by_group: bool,
    picture: Path | None,
    precision: Any,
    device: Any,
    average: int,
    foreign: "ForeignOptions",
    as_json: bool,
) -> None:
    """Compare PREDICTED labels with the TRUTH.

    Both are label pictures (PNG, TIFF), OME-Zarr label images, or folders of these with equal
    names. Classes: pixel error, confusion matrix, IoU and Dice. Instances: panoptic quality,
    precision and recall, SEG. Boundaries: Rand error, V_Rand, V_Info, warping error. What the
    numbers mean is in docs/evaluate.md.
    """
    from tilesegment.usecases.evaluate import EvaluateOptions
    from tilesegment.usecases.evaluate import evaluate as compare
    from tilesegment.usecases.label_sources import Segmentation

    options = EvaluateOptions(
        kind, ignore, tuple(names.split(",")) if names else None, labels, thresholds, by_group
    )
    segmentation = (
        None if model is None else Segmentation(model, precision, device, average, foreign)
    )
    with _progress() as report:
        evaluation = compare(
            predicted, truth, model=segmentation, options=options, picture=picture, report=report
        )
    if as_json:
        click.echo(json.dumps(evaluation.as_json()))
    else:
        _print_tables(evaluation)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr if that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("comparing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_tables(evaluation: "Evaluation") -> None:
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(_score_table(evaluation))
    if evaluation.overall.instances is not None:
        console.print(_detection_table(evaluation))
    elif 2 < len(evaluation.class_names) <= _WIDEST_CONFUSION:
        console.print(_confusion_table(evaluation))


def _score_table(evaluation: "Evaluation") -> Any:
    """Pictures, groups, means and all, as a `rich` table."""
    from rich.table import Table

    columns = list(evaluation.overall.headline())
    table = Table("", "pictures", *(name.replace("_", " ") for name in columns))

    def add(name: str, pictures: int, numbers: dict[str, float]) -> None:
        table.add_row(name, str(pictures), *(_number(numbers[column]) for column in columns))

    for name, scores in evaluation.pictures.items():
        add(name, 1, scores.headline())
    table.add_section()
    for name, scores in evaluation.groups.items():
        add(f"group {name}", scores.pictures, scores.headline())
    if evaluation.groups:
        add("mean of groups", evaluation.overall.pictures, evaluation.group_mean)
    add("mean of pictures", evaluation.overall.pictures, evaluation.picture_mean)
    add("all together", evaluation.overall.pictures, evaluation.overall.headline())
    return table


def _detection_table(evaluation: "Evaluation") -> Any:
    from rich.table import Table

    found = evaluation.overall.instances
    assert found is not None  # noqa: S101 - asked by the caller
    table = Table("IoU above", "precision", "recall", "F1")
    for threshold, scores in found.thresholds.items():
        table.add_row(threshold, *map(_number, (scores.precision, scores.recall, scores.f1)))
    table.caption = f"{found.true_objects} true objects, {found.predicted_objects} predicted"
    return table


def _confusion_table(evaluation: "Evaluation") -> Any:
    from rich.table import Table

    table = Table("truth \\ predicted, pixels", *evaluation.class_names)
    for name, row in zip(evaluation.class_names, evaluation.overall.confusion, strict=True):
        table.add_row(name, *map(str, row))
    return table


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}" if value >= 0.001 else f"{value:.2g}"
