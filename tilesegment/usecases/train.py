"""Train a U-Net from a few annotated pictures, and write it as a model file."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesegment.errors import OptionError, OutputError
from tilesegment.execution.memory import keep_freed_memory
from tilesegment.geometry import Padding, Upsampling, nearest_multiples

if TYPE_CHECKING:
    import torch

    from tilesegment.model.file import Normalisation
    from tilesegment.model.unet import UNet
    from tilesegment.training.augment import Augmentation
    from tilesegment.training.dataset import Dataset, LabelRule, Split, Statistics
    from tilesegment.training.loop import Lesson, Progress, Recipe
    from tilesegment.training.weight_map import BorderWeight

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkChoice:
    """The network to train; the defaults are the paper's. See `tilesegment.UNet`."""

    base_channels: int = 64
    depth: int = 4
    padding: Padding = "valid"
    batch_norm: bool = False
    upsampling: Upsampling = "transposed"
    dropout: float = 0.5


@dataclass(frozen=True)
class Validation:
    """Which pictures are kept for validation."""

    source: str | None = None
    """Another data set, or a pattern of picture names such as ``2[0-4]``; None to draw them."""
    share: float = 0.15
    """Share of the pictures that is drawn."""


@dataclass(frozen=True)
class Sampling:
    """How often pictures and classes count."""

    by_group: bool = False
    """Draw all groups equally often, and let them count equally in validation. A group are the
    pictures whose names are equal up to the first underscore or slash."""
    emphasis: Mapping[str, float] = field(default_factory=dict)
    """Factor by which a group is drawn more often."""
    class_balance: float = 1.0
    """1: every class has the same total weight (the paper); 0: every pixel has."""


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended."""

    model: Path
    folder: Path
    """Checkpoint, table, learning curve, preview and TensorBoard events."""
    classes: tuple[str, ...]
    history: list[dict[str, float]]
    """One row per assessment: step, training_loss, validation_loss, score, pixel_error, rate."""

    @property
    def best(self) -> dict[str, float]:
        """The row of the weights that were kept."""
        return max(self.history, key=lambda row: row["score"])


def train(
    dataset: str | Path,
    output: str | Path,
    *,
    labels: "LabelRule | None" = None,
    validation: Validation | None = None,
    network: NetworkChoice | None = None,
    start: str | Path | None = None,
    recipe: "Recipe | None" = None,
    augmentation: "Augmentation | None" = None,
    border: "BorderWeight | None" = None,
    sampling: Sampling | None = None,
    pixel_size_um: float | None = None,
    notes: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: "Callable[[Progress], None]" = lambda progress: None,
) -> TrainingResult:
    """Train a U-Net as Ronneberger et al. (2015) did, and write the best one to `output`.

    The best weights so far are in `output` from the first assessment on. Beside it the folder
    ``NAME.training`` holds all else, and what `resume` continues from.

    Args:
        dataset: a folder of pictures with labels, or an OME-Zarr image with labels, or a folder
            of such images.
        output: the model file, ``NAME.safetensors``.
        labels: how label values become classes.
        validation: which pictures are not learnt from, but measured on.
        network: its size and kind.
        start: a model of the same kind whose weights to start from; its normalisation is kept.
        recipe: steps, tiles, optimiser, schedule, precision, seed.
        augmentation: how tiles are changed.
        border: the weight of gaps between touching objects.
        sampling: how often pictures and classes count.
        pixel_size_um: micrometres per pixel of the pictures; None if unknown.
        notes: written into the model's record of its training.
        device: "auto", "cpu", "cuda" or "cuda:1".
        threads: of the CPU; None for all.
        resume: continue an interrupted run; on a CPU the result is the same to the bit.
        overwrite: replace a model that exists.
        report: told after each step.

    Raises:
        InputError: if the data set cannot be used.
        OptionError: if the options cannot work, or the loss is not finite.
        OutputError: if `output` exists.
    """
    keep_freed_memory()
    from tilesegment.training.augment import Augmentation
    from tilesegment.training.dataset import LabelRule
    from tilesegment.training.loop import Recipe, learn
    from tilesegment.training.weight_map import BorderWeight

    output = Path(output)
    network, recipe = network or NetworkChoice(), recipe or Recipe()
    sampling, augmentation = sampling or Sampling(), augmentation or Augmentation()
    border, labels = border or BorderWeight(), labels or LabelRule()
    _check_output(output, resume or overwrite)
    _check_tile(network, recipe.tile)
    chosen_device = _choose_device(device, threads)
    data, split = _load(Path(dataset), labels, border, validation or Validation(), sampling, recipe)
    lesson = _make_lesson(data, split, sampling)
    about = {
        "dataset": str(dataset),
        "training_pictures": len(split.training),
        "validation_pictures": [picture.name for picture in split.validation],
        "start": _origin(start),
        "recipe": asdict(recipe),
        "augmentation": asdict(augmentation),
        "border": asdict(border),
        "sampling": asdict(sampling),
        "device": str(chosen_device),
        **(notes or {}),
    }
    model = _make_network(network, data, recipe.seed)
    if start is not None:
        lesson = replace(lesson, normalisation=_take_weights(model, Path(start)))
    save = _Saver(output, data.names, lesson.normalisation, pixel_size_um, about)
    history = learn(
        model,
        lesson,
        recipe,
        augmentation,
        _make_folder(output),
        chosen_device,
        resume=resume,
        report=report,
        on_best=save,
    )
    result = TrainingResult(output, _folder(output), data.names, history)
    save(model, result.best)
    return result


def _folder(output: Path) -> Path:
    return output.with_suffix(".training")


def _make_folder(output: Path) -> Path:
    try:
        _folder(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {_folder(output)}: {error.strerror}") from error
    return _folder(output)


@dataclass(frozen=True)
class _Saver:
    """Writes the model file with what is known of its training."""

    path: Path
    classes: tuple[str, ...]
    normalisation: "Normalisation"
    pixel_size_um: float | None
    about: Mapping[str, Any]

    def __call__(self, network: "UNet", row: Mapping[str, float]) -> None:
        from tilesegment.model.file import save_model

        save_model(
            network,
            self.path,
            classes=self.classes,
            normalisation=self.normalisation,
            pixel_size_um=self.pixel_size_um,
            training={**self.about, "kept": dict(row)},
        )


def _check_output(output: Path, may_exist: bool) -> None:
    if output.suffix != ".safetensors":
        raise OptionError(f"the model {output} must be called NAME.safetensors")
    if output.exists() and not may_exist:
        raise OutputError(f"{output} exists; give --resume to go on, or --overwrite to replace it")


def _check_tile(network: NetworkChoice, tile: int) -> None:
    alignment = 2**network.depth
    if tile % alignment or tile <= 0:
        low, high = nearest_multiples(max(tile, 1), alignment)
        raise OptionError(
            f"the training tile {tile} is not a multiple of {alignment}, as a network of depth "
            f"{network.depth} needs; try " + (f"{low} or {high}" if low != high else f"{low}")
        )


def _choose_device(device: str, threads: int | None) -> "torch.device":
    import torch

    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise OptionError(f"there is no GPU for --device {device}; use --device cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise OptionError(f"{device!r} is no device; use auto, cpu, cuda or cuda:1") from error


def _load(
    path: Path,
    labels: "LabelRule",
    border: "BorderWeight",
    validation: Validation,
    sampling: Sampling,
    recipe: "Recipe",
) -> "tuple[Dataset, Split]":
    from tilesegment.training.dataset import Split, split_by_pattern, split_pictures

    data = _read(path, labels, border)
    if validation.source is None:
        group = _grouping(sampling)
        return data, split_pictures(data.pictures, validation.share, group, recipe.seed)
    if Path(validation.source).exists():
        other = _read(Path(validation.source), replace(labels, names=data.names), border)
        return data, Split(data.pictures, other.pictures)
    return data, split_by_pattern(data.pictures, validation.source)


def _read(path: Path, labels: "LabelRule", border: "BorderWeight") -> "Dataset":
    from tilesegment.training.dataset import load_folder
    from tilesegment.training.labelled_zarr import is_zarr, load_zarr

    return (load_zarr if is_zarr(path) else load_folder)(path, labels, border)


def _grouping(sampling: Sampling) -> Callable[[str], str]:
    from tilesegment.training.pictures import group_of

    return group_of if sampling.by_group or sampling.emphasis else lambda name: "all"


def _make_lesson(data: "Dataset", split: "Split", sampling: Sampling) -> "Lesson":
    from tilesegment.model.file import Normalisation
    from tilesegment.training.dataset import measure, picture_shares
    from tilesegment.training.loop import Lesson
    from tilesegment.training.weight_map import class_weights

    group = _grouping(sampling)
    _check_emphasis(sampling, {group(picture.name) for picture in split.training})
    statistics: Statistics = measure(split.training, data.names)
    return Lesson(
        split,
        picture_shares(split.training, group, sampling.emphasis),
        class_weights(statistics.class_pixels, sampling.class_balance),
        Normalisation(statistics.mean, statistics.deviation),
        1.0 if data.integers else 4 * max(statistics.deviation),
        group,
    )


def _check_emphasis(sampling: Sampling, groups: set[str]) -> None:
    unknown = sorted(set(sampling.emphasis) - groups)
    if unknown:
        raise OptionError(
            f"there is no group {unknown[0]!r} to emphasise among the pictures for training; "
            f"the groups are {', '.join(sorted(groups))}"
        )


def _make_network(choice: NetworkChoice, data: "Dataset", seed: int) -> "UNet":
    """A network with weights that depend on the seed only."""
    import torch

    from tilesegment.model.unet import UNet

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return UNet(data.channels, len(data.names), **asdict(choice))


def _take_weights(network: "UNet", path: Path) -> "Normalisation":
    """Give `network` the weights in a model file; returns the normalisation that they expect."""
    from tilesegment.model.file import load_model, read_description

    started = load_model(path)
    differing = [
        f"{name} {value}"
        for name, value in started.arguments.items()
        if name != "dropout" and network.arguments[name] != value
    ]
    if differing:
        raise OptionError(
            f"the model {path} to start from is of another kind; it has {', '.join(differing)}"
        )
    network.load_state_dict(started.state_dict())
    return read_description(path).normalisation


def _origin(start: str | Path | None) -> dict[str, Any] | None:
    """How the model to start from was trained."""
    from tilesegment.model.file import model_hash, read_description

    if start is None:
        return None
    return {"hash": model_hash(start), **read_description(start).training}
