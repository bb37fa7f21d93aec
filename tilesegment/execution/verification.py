"""A window of the image computed again, otherwise than the run did, and compared with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from distributed import get_worker

from tilesegment.execution.worker import ModelPlugin, told_by_worker, without
from tilesegment.geometry import round_up
from tilesegment.mask import Mask
from tilesegment.planning import Plan
from tilesegment.storage.image import MirroredPixels
from tilesegment.storage.labels import LabelVolume
from tilesegment.storage.probabilities import Probabilities
from tilesegment.tiling import Window

if TYPE_CHECKING:
    # The driver verifies, too, and needs no torch.
    from tilesegment.model.predictor import Predictor

REDUCED_BOUND = 0.001
"""Share of labels that may differ where bits may: in reduced precision, or on workers of another
kind than those that made the labels."""
REDUCED_STEPS = 8
"""Steps of 1/255 by which a stored probability may differ there, without being counted."""


@dataclass(frozen=True)
class WindowCheck:
    """What was found in one window."""

    plane: int
    y: int
    x: int
    height: int
    width: int
    """Of the part inside the image, pixels of the level that was segmented."""
    differing_labels: int
    largest_difference: float
    """Between the logits of the window as one input, and of the run's own tiles."""
    differing_probabilities: int = 0
    """Pixels at which that of a class differs."""

    @property
    def differing(self) -> int:
        return self.differing_labels + self.differing_probabilities


@dataclass(frozen=True)
class Verification:
    """What was found in all windows."""

    windows: int
    pixels: int
    """That were compared."""
    differing_labels: int
    allowed_labels: int
    """That may differ: 0 in float32 on workers like those that made the labels. So many pixels may
    differ in their probabilities, too."""
    largest_difference: float
    """Between logits."""
    differing_windows: tuple[WindowCheck, ...]
    damaged: tuple[str, ...] = ()
    """Stored objects that are missing or damaged."""
    differing_probabilities: int = 0
    """Pixels at which that of a class differs, where probabilities are stored."""

    @classmethod
    def of(cls, checks: Sequence[WindowCheck], is_exact: bool) -> "Verification":
        """The findings together; `is_exact`: whether every label must be the same."""
        pixels = sum(check.height * check.width for check in checks)
        return cls(
            windows=len(checks),
            pixels=pixels,
            differing_labels=sum(check.differing_labels for check in checks),
            allowed_labels=0 if is_exact else int(REDUCED_BOUND * pixels),
            largest_difference=max((check.largest_difference for check in checks), default=0.0),
            differing_windows=tuple(check for check in checks if check.differing),
            differing_probabilities=sum(check.differing_probabilities for check in checks),
        )

    @property
    def passed(self) -> bool:
        most = max(self.differing_labels, self.differing_probabilities)
        return most <= self.allowed_labels and not self.damaged


@dataclass(frozen=True)
class WindowChecker:
    """Computes windows of a finished run again; runs on a network's thread of a worker.

    One axis of a window across a tile border, computed as one input with twice the halo::

                 tile 3            tile 4
        |=====================|=====================|     what the run wrote
              . - - - |=======|=======| - - - .           the window, with its wider context
    """

    plan: Plan
    pixels: MirroredPixels
    volume: LabelVolume
    mask: Mask | None
    steps: int = 0
    """Of 1/255, by which a stored probability may differ without being counted."""

    def check(self, plane: int, window: Window, plugin: str) -> WindowCheck:
        """Compare one window, whose origin is a multiple of the alignment.

        Raises:
            InputError: the image cannot be read there.
            OutputError: the labels cannot be read there.
        """
        with told_by_worker():
            return self._check(plane, window, get_worker().plugins[plugin])

    def _check(self, plane: int, window: Window, model: ModelPlugin) -> WindowCheck:
        inside = window.clipped(self.plan.source.shape)
        stored = self.volume.read(self.plan.source.level, plane, inside)
        wide = self._wide(window)
        shown = self._shown(plane, wide)
        prediction = model.predict(shown)
        labels = self._part(prediction.labels, wide, inside)
        probabilities = prediction.probabilities
        if probabilities is not None:
            probabilities = self._part(probabilities, wide, inside)
        if self.mask is not None:
            wanted = self.mask.read(plane, inside)
            labels = np.where(wanted, labels, model.background)
            probabilities = without(probabilities, wanted)
        logits = self._part(model.predictor.logits(shown), wide, inside)
        return WindowCheck(
            plane, inside.y, inside.x, inside.height, inside.width,
            differing_labels=int((labels != stored).sum()),
            largest_difference=self._largest_difference(model.predictor, logits, plane, inside),
            differing_probabilities=self._differing(probabilities, plane, inside),
        )  # fmt: skip

    def _differing(self, probabilities: Probabilities | None, plane: int, inside: Window) -> int:
        """Pixels at which a probability, (classes, y, x), is not the stored one."""
        if probabilities is None:
            return 0
        stored = self.volume.read_probabilities(self.plan.source.level, plane, inside)
        differences = np.abs(probabilities.astype(np.int16) - stored).max(axis=0)
        return int((differences > self.steps).sum())

    def _wide(self, window: Window) -> Window:
        """The window with a second halo, rounded up so that it stays on the network's grid."""
        geometry = self.plan.network.geometry
        return window.grown(round_up(geometry.halo, geometry.alignment))

    def _shown(self, plane: int, window: Window) -> npt.NDArray[Any]:
        """What the network is shown of a window with its halo: (c, y, x)."""
        pixels = self.pixels.read(plane, window.grown(self.plan.halo))
        if self.plan.resampling is None:
            return pixels
        return self.plan.resampling.shown(pixels, window)

    def _part(self, values: npt.NDArray[Any], window: Window, inside: Window) -> npt.NDArray[Any]:
        """What belongs to `inside`, from the network's answer, (..., y, x), for a window."""
        if self.plan.resampling is not None:
            values = self.plan.resampling.on_level(values, window)
        rows, columns = inside.seen_from(window).slices
        return values[..., rows, columns]

    def _largest_difference(
        self,
        predictor: "Predictor",
        logits: npt.NDArray[Any],
        plane: int,
        inside: Window,
    ) -> float:
        """Between the window's logits, (c, y, x), and those of the run's own tiles."""
        grid, largest = self.plan.grid, 0.0
        for tile in grid.touching(plane, inside):
            whole = grid.read_window(tile, halo=0)
            tile_logits = predictor.logits(self._shown(plane, whole))
            common = whole.overlap(inside)
            ours = logits[:, *common.seen_from(inside).slices]
            theirs = self._part(tile_logits, whole, common)
            largest = max(largest, float(np.abs(np.subtract(ours, theirs)).max()))
        return largest
