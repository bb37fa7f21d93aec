"""`tilesegment train`."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesegment_cli.options import json_option, label_value

if TYPE_CHECKING:
    from tilesegment.training.loop import Progress
    from tilesegment.usecases.train import TrainingResult

EXAMPLES = """\b
Examples:
  # A folder with images/NAME.png and labels/NAME.png, as in the paper
  tilesegment train cells --output cells.safetensors

\b
  # Every object has its own number; the pictures 20 to 24 are for validation
  tilesegment train cells --output cells.safetensors --labels instances --validation '2[0-4]'

\b
  # A small network for a CPU, with a modern optimiser
  tilesegment train cells --output small.safetensors --base-channels 16 --depth 3 \\
      --optimiser adamw --schedule cosine --steps 3000 --tile 192 --batch 4

\b
  # Go on after an interruption: the same options, and --resume
  tilesegment train cells --output cells.safetensors --resume
"""


def _emphasis(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, float]:
    """GROUP=FACTOR, several times."""
    try:
        pairs = [value.split("=") for value in values]
        return {name: float(factor) for name, factor in pairs}
    except ValueError as error:
        raise click.BadParameter(f"{values[-1]!r} is not GROUP=FACTOR, such as he=3") from error


@click.command("train", epilog=EXAMPLES)
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="MODEL.safetensors",
    help="The model file to write; beside it MODEL.training keeps checkpoint, table and curves.",
)
@click.option(
    "--labels",
    type=click.Choice(["auto", "classes", "instances"]),
    default="auto",
    show_default=True,
    help="What label values are. auto: instances if the folder is called so.",
)
@click.option(
    "--names", metavar="A,B,...", help="Names of the classes, in the order of their values."
)
@click.option(
    "--label-name",
    metavar="NAME",
    help="Which label image of an OME-Zarr DATASET; needed if there are several.",
)
@click.option(
    "--ignore",
    callback=label_value,
    metavar="VALUE",
    help="Label value (or #rrggbb) of pixels that nobody annotated.",
)
@click.option(
    "--validation",
    metavar="DATASET|PATTERN",
    help="Another data set, or the picture names to keep for validation, such as '2[0-4]'.",
)
@click.option(
    "--validation-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.15,
    show_default=True,
    help="Share of the pictures drawn for validation otherwise.",
)
@click.option(
    "--start",
    type=click.Path(path_type=Path),
    metavar="MODEL.safetensors",
    help="Start from the weights of this model, which must be of the same kind.",
)
@click.option(
    "--base-channels",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Feature channels at full resolution.",
)
@click.option(
    "--depth", type=click.IntRange(1, 8), default=4, show_default=True, help="Number of poolings."
)
@click.option("--padding", type=click.Choice(["valid", "same"]), default="valid", show_default=True)
@click.option(
    "--upsampling",
    type=click.Choice(["transposed", "interpolate"]),
    default="transposed",
    show_default=True,
)
@click.option("--batch-norm", is_flag=True, help="Batch normalisation after each convolution.")
@click.option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.5,
    show_default=True,
    help="At the end of the contracting path.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Updates of the weights.",
)
@click.option(
    "--tile",
    type=click.IntRange(1),
    default=384,
    show_default=True,
    help="Training tile in pixels, without halo.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=1, show_default=True, help="Tiles per step."
)
@click.option("--optimiser", type=click.Choice(["sgd", "adamw"]), default="sgd", show_default=True)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    help="Default: 0.001 for sgd, 0.002 for adamw.",
)
@click.option(
    "--momentum",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.99,
    show_default=True,
    help="Of sgd.",
)
@click.option("--weight-decay", type=click.FloatRange(0), default=0.0, show_default=True)
@click.option(
    "--schedule", type=click.Choice(["constant", "cosine"]), default="constant", show_default=True
)
@click.option(
    "--batch-statistics",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of the steps after which batch normalisation keeps its statistics.",
)
@click.option(
    "--assess-every",
    type=click.IntRange(1),
    default=250,
    show_default=True,
    help="Steps between two assessments, each with a checkpoint.",
)
@click.option(
    "--patience",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Stop after so many assessments without a better one; 0: never.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--border-weight",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="w0 of the weight map: opens gaps between touching objects.",
)
@click.option(
    "--border-sigma",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="sigma of the weight map, in pixels.",
)
@click.option(
    "--class-balance",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="1: all classes weigh the same in sum; 0: all pixels.",
)
@click.option(
    "--by-group", is_flag=True, help="Draw the groups (names up to the first _ or /) equally often."
)
@click.option(
    "--emphasis",
    multiple=True,
    callback=_emphasis,
    metavar="GROUP=FACTOR",
    help="Draw a group more often; implies --by-group.",
)
@click.option(
    "--elastic",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="Elastic deformation, in pixels.",
)
@click.option(
    "--rotation",
    type=click.FloatRange(0, 180),
    default=180.0,
    show_default=True,
    help="To either side, in degrees.",
)
@click.option("--flips/--no-flips", default=True, show_default=True)
@click.option(
    "--zoom",
    type=click.FloatRange(0.05, 20),
    nargs=2,
    default=(0.8, 1.25),
    show_default=True,
    help="Smallest and largest.",
)
@click.option(
    "--smallest-object",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Never shrink the median object below this diameter, in pixels.",
)
@click.option(
    "--foreground",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of tiles centred on an object.",
)
@click.option("--brightness", type=click.FloatRange(0), default=0.1, show_default=True)
@click.option("--contrast", type=click.FloatRange(0), default=0.3, show_default=True)
@click.option("--gamma", type=click.FloatRange(0), default=0.3, show_default=True)
@click.option(
    "--colour",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Random mixture of channels, in optical density.",
)
@click.option(
    "--counterstain",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Strongest random second stain, in optical density.",
)
@click.option("--noise", type=click.FloatRange(0), default=0.02, show_default=True)
@click.option("--blur", type=click.FloatRange(0), default=1.0, show_default=True)
@click.option(
    "--pixel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="UM",
    help="Micrometres per pixel of the pictures.",
)
@click.option(
    "--note",
    multiple=True,
    metavar="KEY=TEXT",
    help="Kept in the model's record of its training, such as licence=CC0.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--threads", type=click.IntRange(1), help="Of the CPU; default: all.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on after an interruption; on a CPU with the same result to the bit.",
)
@click.option("--overwrite", is_flag=True, help="Replace a model that exists.")
@json_option
def train(dataset: Path, output: Path, as_json: bool, **options: Any) -> None:
    """Train a U-Net on the annotated pictures in DATASET.

    DATASET is a folder of PNG, TIFF or JPEG pictures: images/NAME beside labels/NAME (or
    instances, masks), or NAME beside NAME_labels. It can also be an OME-Zarr image with labels, or
    a folder of such, read tile by tile. The defaults are the recipe of the U-Net paper (arXiv
    1505.04597). The best model so far is in MODEL.safetensors from the first assessment on.
    """
    from tilesegment.usecases.train import train as train_model

    with _progress(options["steps"]) as report:
        result = train_model(dataset, output, report=report, **_arguments(options))
    click.echo(json.dumps(_summary(result)) if as_json else _sentence(result))


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The options as the library groups them."""
    from tilesegment.training.augment import Augmentation
    from tilesegment.training.dataset import LabelRule
    from tilesegment.training.loop import Recipe
    from tilesegment.training.weight_map import BorderWeight
    from tilesegment.usecases.train import NetworkChoice, Sampling, Validation

    def pick(*keys: str) -> dict[str, Any]:
        return {key: options[key] for key in keys}

    names = tuple(options["names"].split(",")) if options["names"] else None
    smallest_zoom, largest_zoom = sorted(options["zoom"])
    return {
        "labels": LabelRule(options["labels"], names, options["ignore"], options["label_name"]),
        "validation": Validation(options["validation"], options["validation_share"]),
        "network": NetworkChoice(
            **pick("base_channels", "depth", "padding", "batch_norm", "upsampling", "dropout")
        ),
        "recipe": Recipe(
            **pick("steps", "tile", "batch", "optimiser", "learning_rate", "momentum"),
            **pick(
                "weight_decay",
                "schedule",
                "batch_statistics",
                "assess_every",
                "patience",
                "precision",
                "seed",
            ),
        ),
        "augmentation": Augmentation(
            smallest_zoom=smallest_zoom,
            largest_zoom=largest_zoom,
            **pick("elastic", "rotation", "flips", "smallest_object", "foreground", "brightness"),
            **pick("contrast", "gamma", "colour", "counterstain", "noise", "blur"),
        ),
        "border": BorderWeight(options["border_weight"], options["border_sigma"]),
        "sampling": Sampling(**pick("by_group", "emphasis", "class_balance")),
        "pixel_size_um": options["pixel_size"],
        "notes": {
            "command": shlex.join(["tilesegment", "train", *_after_train(sys.argv)]),
            **dict(note.partition("=")[::2] for note in options["note"]),
        },
        **pick("start", "device", "threads", "resume", "overwrite"),
    }


def _after_train(arguments: list[str]) -> list[str]:
    """What was typed after ``train``; a resumed run is the same as an uninterrupted one."""
    start = arguments.index("train") if "train" in arguments else 0
    return [item for item in arguments[start + 1 :] if item != "--resume"]


@contextmanager
def _progress(steps: int) -> "Iterator[Callable[[Progress], None]]":
    """A bar on stderr if that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=steps)

        def report(progress: "Progress") -> None:
            text = f"loss {progress.loss:.3f}, best Dice {progress.score:.3f}"
            bar.update(task, completed=progress.step, description=text)

        yield report


def _summary(result: "TrainingResult") -> dict[str, Any]:
    return {
        "model": str(result.model),
        "folder": str(result.folder),
        "classes": list(result.classes),
        "steps": result.history[-1]["step"],
        "best": result.best,
    }


def _sentence(result: "TrainingResult") -> str:
    best = result.best
    return (
        f"{result.model}: Dice {best['score']:.4f} and pixel error {best['pixel_error']:.4f} on "
        f"the pictures for validation after {best['step']:.0f} of "
        f"{result.history[-1]['step']:.0f} steps; learning curve in {result.folder}"
    )
