"""A picture of errors: truth, prediction, and where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilesegment.colours import OKABE_ITO, RGB
from tilesegment.errors import OptionError, OutputError
from tilesegment.metrics.boundaries import label_objects
from tilesegment.metrics.instances import in_matched_objects
from tilesegment.metrics.overlaps import renamed
from tilesegment.painting import GAP, UNKNOWN, Picture, beside, coloured, stacked
from tilesegment.usecases.class_values import ClassTable
from tilesegment.usecases.comparison import Comparison
from tilesegment.usecases.label_sources import Labels, PathPair, Values, blocks
from tilesegment.usecases.scores import Evaluation, Tally

_MOST_ROWS = 4
_LARGEST = 700
"""Pixels of the longer side of a picture; larger ones are thinned."""
_LINE = 30
_NARROWEST = 480
_INK: RGB = (235, 235, 235)


@dataclass(frozen=True)
class Verdict:
    """What is said of a pixel."""

    text: str
    colour: RGB


VERDICTS = (
    Verdict("background in both", (0, 0, 0)),
    Verdict("right", (210, 210, 210)),
    Verdict("missed", OKABE_ITO[5]),
    Verdict("too much", OKABE_ITO[1]),
    Verdict("other class, or object without a match", OKABE_ITO[0]),
    Verdict("not annotated", UNKNOWN),
)


def judge(
    truth: npt.NDArray[np.integer],
    predicted: npt.NDArray[np.integer],
    right: npt.NDArray[np.bool_],
    unknown: npt.NDArray[np.bool_],
) -> npt.NDArray[np.uint8]:
    """Index into `VERDICTS` of each pixel; 0 is background on both sides."""
    foreground, found = truth != 0, predicted != 0
    return np.select(
        [unknown, foreground & found & right, foreground & found, foreground, found],
        [5, 1, 4, 2, 3],
    ).astype(np.uint8)


def draw_errors(
    path: Path,
    comparison: Comparison,
    table: ClassTable,
    pairs: Sequence[PathPair],
    tallies: Sequence[Tally],
    evaluation: Evaluation,
) -> None:
    """Write truth, prediction and errors of the few pictures with the largest pixel error.

    Raises:
        OptionError: if Pillow is absent.
        OutputError: if the file cannot be written.
    """
    errors = np.nan_to_num([evaluation.pictures[tally.name].pixel_error for tally in tallies])
    worst = np.argsort(-errors, kind="stable")[:_MOST_ROWS]
    rows = [_row(comparison, table, pairs[index], tallies[index]) for index in worst]
    captions = [f"{tallies[index].name}: pixel error {errors[index]:.4f}" for index in worst]
    _save(path, rows, captions)


def _row(comparison: Comparison, table: ClassTable, paths: PathPair, tally: Tally) -> Picture:
    pair = comparison.load(paths)
    if tally.objects is not None:
        pair = comparison.objects(pair, pair.overlaps())
    step = -(-max(pair.truth.size) // _LARGEST)
    truth, predicted = _thinned(pair.truth, step), _thinned(pair.predicted, step)
    unknown = np.full(truth.shape, False) if pair.ignore is None else truth == pair.ignore
    if tally.objects is not None:
        truth = np.where(unknown, 0, truth)
        right = in_matched_objects(tally.objects, truth, predicted)
    else:
        if comparison.kind == "boundaries":
            truth, predicted = (truth != 0) * 1, (predicted != 0) * 1
        truth, predicted = renamed(truth, table.truth), renamed(predicted, table.predicted)
        right = truth == predicted
    colours = np.array([verdict.colour for verdict in VERDICTS], np.uint8)
    errors = colours[judge(truth, predicted, right, unknown)]
    shown: list[npt.NDArray[np.integer]] = [truth, predicted]
    if comparison.kind == "boundaries":  # Colours that differ show which cells are split or merged.
        shown = [label_objects(truth != 0), label_objects(predicted != 0)]
    return beside([*(coloured(labels, unknown) for labels in shown), errors])


def _thinned(labels: Labels, step: int) -> Values:
    """Every `step`-th pixel of the first plane."""
    thinned = np.empty([-(-size // step) for size in labels.size], np.int64)
    for window in blocks(labels.size):
        first = -window.y % step, -window.x % step
        part = labels.read(0, window)[first[0] :: step, first[1] :: step]
        row, column = -(-window.y // step), -(-window.x // step)
        thinned[row : row + part.shape[0], column : column + part.shape[1]] = part
    return thinned


def _save(path: Path, rows: Sequence[Picture], captions: Sequence[str]) -> None:
    """The rows with their captions above them, and the legend below all."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ModuleNotFoundError as error:
        raise OptionError(
            "pictures need Pillow; install it with: pip install 'tilesegment[train]'"
        ) from error

    legend = np.zeros((_LINE * len(VERDICTS), _NARROWEST, 3), np.uint8)
    with_captions = [np.pad(row, ((_LINE, 0), (0, 0), (0, 0))) for row in rows]
    canvas = Image.fromarray(stacked([*with_captions, legend]))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=16)
    top = 0
    for row, caption in zip(rows, captions, strict=True):
        draw.text((4, top + 5), f"{caption}   (truth, prediction, errors)", _INK, font)
        top += _LINE + len(row) + GAP
    for line, verdict in enumerate(VERDICTS):
        middle = top + line * _LINE + _LINE // 2
        draw.rectangle((8, middle - 8, 24, middle + 8), verdict.colour, outline=_INK)
        draw.text((32, middle), verdict.text, _INK, font, anchor="lm")
    try:
        canvas.save(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
