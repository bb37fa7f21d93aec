"""What a training run leaves for people: a table, TensorBoard events, a curve and a preview."""

import csv
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilesegment.painting import beside, coloured, stacked
from tilesegment.training.assess import AssessedTile
from tilesegment.training.loss import IGNORED

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """Writes into one folder."""

    folder: Path

    def write(self, history: Sequence[dict[str, float]], tiles: Sequence[AssessedTile]) -> None:
        """Replace table, curve and preview, and add the last row to the TensorBoard events."""
        write_table(history, self.folder / "log.csv")
        draw_curve(history, self.folder / "curve.png")
        draw_preview(tiles, self.folder / "preview.png")
        self._add_events(history[-1])

    def _add_events(self, row: dict[str, float]) -> None:
        writer = _event_writer(self.folder)
        if writer is None:
            return
        with writer as events:
            for name, value in row.items():
                if name != "step":
                    events.add_scalar(name, value, int(row["step"]))


def _event_writer(folder: Path) -> "SummaryWriter | None":
    if importlib.util.find_spec("tensorboard") is None:
        logger.warning("no TensorBoard events: tensorboard is not installed")
        return None
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter
    events: SummaryWriter = writer(str(folder))
    return events


def write_table(history: Sequence[dict[str, float]], path: Path) -> None:
    """One row per assessment, as CSV."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(history[0]))
        table.writeheader()
        table.writerows(history)


def draw_curve(history: Sequence[dict[str, float]], path: Path) -> None:
    """Loss and score over the steps, as PNG; nothing if matplotlib is absent."""
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning("no learning curve: matplotlib is not installed")
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    losses, scores = figure.subplots(2, 1, sharex=True)
    steps = [row["step"] for row in history]
    losses.plot(steps, [row["training_loss"] for row in history], label="training, weighted")
    losses.plot(steps, [row["validation_loss"] for row in history], label="validation")
    losses.set(ylabel="cross-entropy", yscale="log")
    scores.plot(steps, [row["score"] for row in history], label="Dice, validation")
    scores.plot(steps, [row["pixel_error"] for row in history], label="pixel error, validation")
    scores.set(xlabel="step", ylim=(0, 1))
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)


def draw_preview(tiles: Sequence[AssessedTile], path: Path) -> None:
    """A row per tile: picture, truth, prediction; as PNG."""
    from PIL import Image

    rows = [
        beside([grey_or_rgb(tile.image), _classes(tile.truth), _classes(tile.predicted)])
        for tile in tiles
    ]
    Image.fromarray(stacked(rows)).save(path)


def grey_or_rgb(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(c, y, x) float to (y, x, 3) uint8, stretched; three channels in colour, else the first."""
    shown = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    low, high = np.percentile(shown, [0.5, 99.5])
    stretched = np.clip((shown - low) / max(high - low, 1e-6), 0, 1)
    picture: npt.NDArray[np.uint8] = (np.moveaxis(stretched, 0, -1) * 255).astype(np.uint8)
    return picture


def _classes(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return coloured(classes, classes == IGNORED)
