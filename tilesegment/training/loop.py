"""The training loop (Ronneberger et al. 2015, section 3).

"To minimize the overhead and make maximum use of the GPU memory, we favor large input tiles over
a large batch size and hence reduce the batch to a single image. Accordingly we use a high
momentum (0.99) such that a large number of the previously seen training samples determine the
update in the current optimization step."
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilesegment.errors import InputError, OptionError
from tilesegment.geometry import round_up
from tilesegment.model.file import Normalisation
from tilesegment.model.predictor import Device, choose_precision
from tilesegment.model.unet import UNet
from tilesegment.training.assess import (
    Assessment,
    Predictor,
    assess,
    cropped,
    example_tiles,
    normalised_batch,
)
from tilesegment.training.augment import Augmentation
from tilesegment.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tilesegment.training.dataset import Picture, Split, TrainingTile, draw_tile
from tilesegment.training.loss import weighted_cross_entropy
from tilesegment.training.record import Record

logger = logging.getLogger(__name__)

Optimiser = Literal["sgd", "adamw"]
Schedule = Literal["constant", "cosine"]
TrainingPrecision = Literal["auto", "float32", "bfloat16"]
_PREVIEWED = 4
_ASSESSED_TILE = 512
_LARGEST_GRADIENT = 10.0


@dataclass(frozen=True)
class Recipe:
    """How the weights are learnt; the defaults are the paper's."""

    steps: int = 10_000
    """Updates of the weights, at most."""
    tile: int = 384
    """Size of a training tile in pixels, without halo; a multiple of the alignment."""
    batch: int = 1
    """Tiles per step."""
    optimiser: Optimiser = "sgd"
    learning_rate: float | None = None
    """Largest one; None for 0.001 with "sgd" and 0.002 with "adamw"."""
    momentum: float = 0.99
    """Of "sgd"."""
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    """"cosine": rise over the first 5 % of the steps, then fall to 0 as half a cosine."""
    assess_every: int = 250
    """Steps between two assessments, each with a checkpoint."""
    patience: int = 0
    """Assessments without a better one after which to stop; 0 for never."""
    batch_statistics: float = 1.0
    """Share of the steps in which batch normalisation uses the statistics of the batch; in the
    rest it uses the running ones, as when segmenting. For small batches of unlike pictures."""
    precision: TrainingPrecision = "auto"
    """"auto": bfloat16 on a device that computes it natively, else float32."""
    seed: int = 0

    @property
    def peak_rate(self) -> float:
        default = 0.001 if self.optimiser == "sgd" else 0.002
        return default if self.learning_rate is None else self.learning_rate

    def rate_at(self, step: int) -> float:
        """Learning rate of the step with this number, counted from 0."""
        if self.schedule == "constant":
            return self.peak_rate
        rise = max(self.steps // 20, 1)
        if step < rise:
            return self.peak_rate * (step + 1) / rise
        return self.peak_rate * (1 + math.cos(math.pi * (step - rise) / (self.steps - rise))) / 2


@dataclass(frozen=True)
class Lesson:
    """What there is to learn from."""

    split: Split
    shares: npt.NDArray[np.float64]
    """How often each picture for training is drawn; the sum is 1."""
    class_weights: npt.NDArray[np.float32]
    normalisation: Normalisation
    span: float
    """Range of the grey values, see `change_grey_values`."""
    group: Callable[[str], str]
    """Kind of a picture, from its name."""


@dataclass(frozen=True)
class Progress:
    """A sign of life."""

    step: int
    steps: int
    loss: float
    score: float
    """The best one so far; NaN before the first."""


@dataclass
class _Run:
    """The state of a run."""

    network: UNet
    parallel: torch.nn.Module
    """The network, on all GPUs if there are several."""
    optimiser: torch.optim.Optimizer
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_model: dict[str, Any] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    """Since the last assessment."""

    @property
    def best_score(self) -> float:
        return max((row["score"] for row in self.history), default=math.nan)

    def is_exhausted(self, recipe: Recipe) -> bool:
        """Whether all steps are done, or the last `patience` assessments were no better."""
        scores = [row["score"] for row in self.history]
        since = len(scores) - 1 - scores.index(max(scores)) if scores else 0
        return self.step >= recipe.steps or 0 < recipe.patience <= since


def learn(
    network: UNet,
    lesson: Lesson,
    recipe: Recipe,
    augmentation: Augmentation,
    folder: Path,
    device: torch.device,
    *,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    on_best: Callable[[UNet, dict[str, float]], None] = lambda network, row: None,
) -> list[dict[str, float]]:
    """Train `network` in place; it ends with its best weights.

    Args:
        network: freshly made.
        lesson: what to learn from.
        recipe: how.
        augmentation: how tiles are changed.
        folder: where the checkpoint, table, curve and previews go; it exists.
        device: where to compute.
        resume: continue from the checkpoint in `folder`.
        report: told after each step.
        on_best: given the network and the row of the table at each best assessment.

    Returns:
        The rows of the table: step, training_loss, validation_loss, score, pixel_error, rate.

    Raises:
        InputError, OptionError: if there is nothing to resume from, or the loss is not finite.
    """
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    parallel = _on_all_gpus(network, recipe, device)
    run = _Run(network, parallel, _make_optimiser(network, recipe))
    settings = _settings(network, recipe, augmentation, lesson)
    checkpoint = folder / "checkpoint.pt"
    if resume:
        _restore(run, load_checkpoint(checkpoint, settings))
    tile = max(recipe.tile, round_up(_ASSESSED_TILE, network.geometry.alignment))
    predictor = Predictor(network, lesson.normalisation, tile, device)
    record = Record(folder)
    with _batches(lesson, recipe, augmentation, network, run.step) as batches:
        while not run.is_exhausted(recipe):
            loss = _take_step(run, next(batches), lesson, recipe, device)
            if not math.isfinite(loss):
                raise _diverged(run, loss, checkpoint)
            run.losses.append(loss)
            report(Progress(run.step, recipe.steps, loss, run.best_score))
            if run.step % recipe.assess_every == 0 or run.step == recipe.steps:
                _assess(run, predictor, lesson, recipe, checkpoint, on_best)
                save_checkpoint(_checkpoint(run, settings), checkpoint)
                tiles = example_tiles(predictor, lesson.split.validation, _PREVIEWED)
                record.write(run.history, tiles)
    network.load_state_dict(run.best_model)
    network.eval()
    return run.history


def _on_all_gpus(network: UNet, recipe: Recipe, device: torch.device) -> torch.nn.Module:
    """The same network; each of several GPUs takes a share of the batch, unless one was named."""
    if device.type == "cuda" and device.index is None and recipe.batch > 1:
        return torch.nn.DataParallel(network)
    return network


def _make_optimiser(network: UNet, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(
            network.parameters(), lr=recipe.peak_rate, weight_decay=recipe.weight_decay
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.peak_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )


def _settings(
    network: UNet, recipe: Recipe, augmentation: Augmentation, lesson: Lesson
) -> dict[str, Any]:
    """All that decides the result; patience alone may change when a run is resumed."""
    chosen = asdict(recipe)
    del chosen["patience"]
    return {
        **network.arguments,
        **chosen,
        **{f"augmentation.{name}": value for name, value in asdict(augmentation).items()},
        "training_pictures": [picture.name for picture in lesson.split.training],
        "validation_pictures": [picture.name for picture in lesson.split.validation],
        "shares": lesson.shares.tolist(),
        "class_weights": lesson.class_weights.tolist(),
        "mean": list(lesson.normalisation.mean),
        "deviation": list(lesson.normalisation.deviation),
    }


def _restore(run: _Run, checkpoint: Checkpoint) -> None:
    run.network.load_state_dict(checkpoint.model)
    run.optimiser.load_state_dict(dict(checkpoint.optimiser))
    run.step = checkpoint.step
    run.history = list(checkpoint.history)
    run.best_model = dict(checkpoint.best_model)


def _checkpoint(run: _Run, settings: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        run.step,
        run.network.state_dict(),
        run.best_model,
        run.optimiser.state_dict(),
        run.history,
        settings,
    )


@contextmanager
def _batches(
    lesson: Lesson, recipe: Recipe, augmentation: Augmentation, network: UNet, first: int
) -> Iterator[Iterator[list[TrainingTile]]]:
    """The batches of all steps from `first` on; the next one is drawn while one is learnt."""

    def draw(step: int) -> list[TrainingTile]:
        return [
            _draw(lesson, recipe, augmentation, network, (step, index))
            for index in range(recipe.batch)
        ]

    def all_batches(pool: ThreadPoolExecutor) -> Iterator[list[TrainingTile]]:
        coming: Future[list[TrainingTile]] = pool.submit(draw, first)
        for step in range(first, recipe.steps):
            ready = coming.result()
            coming = pool.submit(draw, step + 1)
            yield ready

    with ThreadPoolExecutor(1, "tiles") as pool:
        yield all_batches(pool)


def _draw(
    lesson: Lesson,
    recipe: Recipe,
    augmentation: Augmentation,
    network: UNet,
    place: tuple[int, int],
) -> TrainingTile:
    """The tile at `place`, (step, index in the batch): a function of these and the seed alone."""
    random = np.random.default_rng([recipe.seed, 1, *place])
    picture: Picture = lesson.split.training[random.choice(len(lesson.shares), p=lesson.shares)]
    return draw_tile(picture, recipe.tile, network.geometry, augmentation, lesson.span, random)


def _take_step(
    run: _Run, tiles: Sequence[TrainingTile], lesson: Lesson, recipe: Recipe, device: torch.device
) -> float:
    """One update of the weights, unless the loss is not finite; returns the loss."""
    network, optimiser = run.network, run.optimiser
    _set_training_mode(network, own_statistics=run.step < recipe.batch_statistics * recipe.steps)
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate_at(run.step)
    optimiser.zero_grad(set_to_none=True)
    with _dropout_of_step(recipe.seed, run.step, device), _precision(recipe.precision, device):
        loss = _loss(run, tiles, lesson, device)
    value = float(loss.detach())
    if math.isfinite(value):
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
        optimiser.step()
        run.step += 1
    return value


def _set_training_mode(network: UNet, own_statistics: bool) -> None:
    network.train()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.train(own_statistics)


def _loss(run: _Run, tiles: Sequence[TrainingTile], lesson: Lesson, device: torch.device) -> Tensor:
    images = normalised_batch([tile.image for tile in tiles], lesson.normalisation, device)
    logits = cropped(run.parallel(images), run.network.geometry.crop)
    return weighted_cross_entropy(
        logits,
        torch.from_numpy(np.stack([tile.classes for tile in tiles])).to(device),
        torch.from_numpy(np.stack([tile.border for tile in tiles])).to(device),
        torch.from_numpy(lesson.class_weights).to(device),
    )


@contextmanager
def _dropout_of_step(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from torch's global generators: set them for one step, then put them back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(np.random.SeedSequence([seed, 2, step]).generate_state(1)[0]))
        yield


@contextmanager
def _precision(precision: TrainingPrecision, device: torch.device) -> Iterator[None]:
    """Mixed precision: convolutions in bfloat16, which needs no scaling of the loss."""
    kind: Device = "cuda" if device.type == "cuda" else "cpu"
    native = choose_precision("auto", kind) == "bfloat16"
    enabled = precision == "bfloat16" or (precision == "auto" and native)
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        yield


def _assess(
    run: _Run,
    predictor: Predictor,
    lesson: Lesson,
    recipe: Recipe,
    checkpoint: Path,
    on_best: Callable[[UNet, dict[str, float]], None],
) -> None:
    """Add a row to the history, and keep the weights if they are the best so far."""
    assessment = assess(predictor, lesson.split.validation, lesson.group)
    if not math.isfinite(assessment.loss):
        raise _diverged(run, assessment.loss, checkpoint)
    best = run.best_score
    run.history.append(_row(run, assessment, recipe))
    logger.info(
        "step %d: loss %.4f, validation %.4f, Dice %.4f",
        run.step,
        run.history[-1]["training_loss"],
        assessment.loss,
        assessment.score,
    )
    if not assessment.score <= best:
        run.best_model = {
            name: tensor.detach().clone() for name, tensor in run.network.state_dict().items()
        }
        on_best(run.network, run.history[-1])


def _row(run: _Run, assessment: Assessment, recipe: Recipe) -> dict[str, float]:
    losses, run.losses = run.losses, []
    return {
        "step": run.step,
        "training_loss": float(np.mean(losses)),
        "validation_loss": assessment.loss,
        "score": assessment.score,
        "pixel_error": assessment.pixel_error,
        "rate": recipe.rate_at(run.step - 1),
    }


def _diverged(run: _Run, loss: float, checkpoint: Path) -> InputError | OptionError:
    kept = f"the last good checkpoint is {checkpoint}" if run.history else "no checkpoint yet"
    return OptionError(
        f"the loss became {loss} at step {run.step} ({kept}); train with a lower --learning-rate "
        f"than {run.optimiser.param_groups[0]['lr']:g}"
    )
