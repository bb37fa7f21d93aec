"""Options that several commands share, and how sizes are written."""

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import wraps
from typing import Any, TypeVar, cast, get_args

import click

from tilesegment.config import (
    MOST_VIEWS,
    ClusterOptions,
    Feed,
    ForeignOptions,
    Normalise,
    RunOptions,
    WorkerRange,
    parse_workers,
)
from tilesegment.errors import OptionError
from tilesegment.partition import Partition, parse_partition
from tilesegment_cli.settings import with_profile

_METRES_FROM_UM = 1e4
_TIME = re.compile(r"(\d+(?:\.\d+)?) *(s|min|h)?")
_SECONDS = {"s": 1, "min": 60, "h": 3600}
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")

Command = TypeVar("Command", bound=Callable[..., Any])


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers with commas between them, as a tuple.

    Args:
        count: how many there must be; None for any number.
    """

    name = "numbers"

    def __init__(self, count: int | None = None) -> None:
        self._count = count

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers; fails as a usage error."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() for part in parts):
            self.fail(f"{value!r} is no list of whole numbers such as 1,2,3", param, context)
        if self._count not in (None, len(parts)):
            self.fail(f"{value!r} has {len(parts)} numbers, not {self._count}", param, context)
        return tuple(int(part) for part in parts)


average_option = click.option(
    "--average",
    type=click.IntRange(1, MOST_VIEWS),
    default=1,
    show_default=True,
    metavar="N",
    help="Average over N rotated and mirrored views of each tile: steadier, N times the work.",
)


def run_options(command: Command) -> Command:
    """Options that decide what is computed; the command gets `model`, and the rest as `options`."""
    return _gathered(
        command,
        RunOptions,
        "options",
        [
            click.option(
                "--model",
                default="nuclei",
                show_default=True,
                metavar="FILE|NAME",
                help="Model file (.safetensors), a bundled model (see `tilesegment models`), or "
                "a foreign network: .onnx, bioimage.io folder, TorchScript, .pt2, module:factory.",
            ),
            click.option(
                "--axes",
                metavar="NAMES",
                help="Axes of IMAGE, of t, c, z, y and x, where it is a plain Zarr array that does "
                "not name them; as cyx.",
            ),
            click.option(
                "--level",
                type=click.IntRange(min=0),
                help="Resolution level that the network is shown as it is; 0 is the finest. "
                "Default: by the pixel sizes of image and model; 0 where one is unknown.",
            ),
            click.option(
                "--pixel-size",
                "pixel_size_um",
                type=click.FloatRange(min=0, min_open=True),
                metavar="UM",
                help="Micrometres per pixel that the network is shown, from the level that fits "
                "or by resampling; default: what the model was trained at.",
            ),
            click.option(
                "--blend",
                type=click.Choice(["gaussian", "mean"]),
                help="Show the network overlapping windows and take their weighted mean: for "
                "networks without a finite border. The labels are then not those of one pass.",
            ),
            click.option(
                "--overlap",
                type=click.FloatRange(0, 0.9),
                metavar="SHARE",
                help="Of a window's side that the next one covers too; default: 0.5.",
            ),
            click.option(
                "--tile",
                default="auto",
                show_default=True,
                metavar="auto|N",
                callback=_tile,
                help="Pixels per side of a tile. The labels do not depend on it.",
            ),
            click.option(
                "--precision",
                type=click.Choice(["auto", "float32", "bfloat16", "float16", "int8"]),
                default="auto",
                show_default=True,
                help="Arithmetic of the network; auto is the fastest that the device has, int8 "
                "left aside: faster still on a CPU, it changes more labels (`tilesegment check`).",
            ),
            click.option(
                "--mask",
                default="none",
                show_default=True,
                metavar="none|tissue|STORE",
                help="Pixels that are wanted: all, those around tissue, or those that a label "
                "image or Zarr array has set. The others become background.",
            ),
            average_option,
            click.option(
                "--probabilities",
                is_flag=True,
                help="Store the probability of each class too, as an image inside the labels "
                "(NAME/probabilities): one byte per pixel and class, 255 is certain.",
            ),
            click.option(
                "--smooth",
                type=click.FloatRange(min=0, min_open=True),
                metavar="SIGMA",
                help="Smooth probabilities with a Gaussian of this deviation, in pixels.",
            ),
            click.option(
                "--refine",
                type=click.Choice(["crf"]),
                help="Let labels follow the colours of the image: a conditional random field.",
            ),
            click.option(
                "--crf-contrast",
                type=click.FloatRange(0, 1, min_open=True),
                default=0.05,
                show_default=True,
                metavar="SHARE",
                help="Difference of colour that counts for it, of the pixel type's range.",
            ),
            click.option(
                "--class-threshold",
                "class_thresholds",
                multiple=True,
                metavar="CLASS=P",
                callback=_class_thresholds,
                help="A pixel belongs to this class where its probability is at least P; can be "
                "given for several classes.",
            ),
        ],
    )


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout."
)


def derived_labels_options(suffix: str) -> Callable[[Command], Command]:
    """Options of commands that make a label image of another; its default name ends so."""

    def add(command: Command) -> Command:
        for option in (
            click.option("--overwrite", is_flag=True, help="Replace what is there, at the end."),
            click.option(
                "--tile",
                type=int,
                default=1024,
                show_default=True,
                metavar="N",
                help="Pixels per side of a block. The result does not depend on it.",
            ),
            click.option(
                "--name",
                metavar="NAME",
                help=f"Name of the new label image.  [default: the labels' name and {suffix}]",
            ),
            click.option(
                "--labels", metavar="NAME", help="Which labels; not needed if there is one."
            ),
        ):
            command = option(command)
        return command

    return add


def cleaning_options(command: Command) -> Command:
    """What is cleaned away."""
    command = click.option(
        "--fill-holes",
        type=int,
        default=0,
        metavar="PIXELS",
        help="Fill holes of fewer pixels with the class around them.",
    )(command)
    return click.option(
        "--min-area",
        type=int,
        default=0,
        metavar="PIXELS",
        help="Remove regions of fewer pixels.",
    )(command)


def foreign_options(command: Command) -> Command:
    """What a foreign network cannot say of itself; the command gets it as `foreign`."""
    return _gathered(
        command,
        ForeignOptions,
        "foreign",
        [
            click.option(
                "--weights",
                metavar="FILE",
                help="Foreign: weights of module:factory (safetensors, or a torch state dict).",
            ),
            click.option(
                "--model-output",
                metavar="NAME",
                help="Foreign: which of several outputs, or of a description's channels.",
            ),
            click.option(
                "--trust-model",
                "trust",
                metavar="sha256:HASH",
                help="Foreign: run the code in this TorchScript or .pt2 file.",
            ),
            click.option(
                "--normalise",
                type=click.Choice(get_args(Normalise)),
                help="Foreign: pixels by the largest value of their type (default, if nothing is "
                "described), as they are, or by statistics of the whole image.",
            ),
            click.option(
                "--threshold",
                type=float,
                help="Foreign: a single output channel above it is foreground; 0 for logits, 0.5 "
                "for probabilities.",
            ),
        ],
    )


def cluster_options(command: Command) -> Command:
    """Options that decide who computes; the command gets them as `cluster`."""
    return _gathered(
        command,
        ClusterOptions,
        "cluster",
        [
            click.option(
                "--cluster",
                "kind",
                default="cpu",
                show_default=True,
                metavar="cpu|gpu|auto|slurm|kubernetes|ADDRESS|NAME",
                help="This machine's cores, its GPUs (one worker each), jobs of Slurm, pods, a "
                "running scheduler (tls://host:port, tcp://host:port), a dask-gateway "
                "(gateway+https://host), or a cluster that tilesegment.toml names.",
            ),
            click.option(
                "--workers",
                metavar="N|LEAST:MOST",
                callback=_workers,
                help="Worker processes, or a range in which they come and go with the work; "
                "default: one per GPU, one per four CPU cores, or one job of Slurm.",
            ),
            click.option(
                "--wait",
                "wait_seconds",
                default="1h",
                show_default=True,
                metavar="TIME",
                callback=seconds_option,
                help="How long to wait while there is no worker (90s, 30min, 2h); the run stops "
                "then, and can be resumed.",
            ),
            click.option(
                "--slurm",
                "slurm_words",
                multiple=True,
                metavar="KEY=VALUE",
                help="Ask this of Slurm for each job, as queue=gpu, account=me, walltime=4:00:00, "
                "cores=8, memory=32GB, gpus=4, interface=ib0, folder=PATH; and, as often as "
                "needed, prologue='module load cuda', directives=--constraint=a100.",
            ),
            click.option(
                "--memory-limit",
                "memory_limit",
                metavar="SIZE",
                help='Memory of a worker, as "8GB"; beyond it dask restarts the worker.',
            ),
            click.option(
                "--mixed-devices",
                is_flag=True,
                help="Allow workers of several kinds (GPUs, processors): labels may differ where "
                "two classes are as good as equal.",
            ),
            click.option(
                "--insecure-cluster",
                "insecure",
                is_flag=True,
                help="Allow tcp:// to another machine: unencrypted, and open to all between.",
            ),
        ],
    )


feed_option = click.option(
    "--feed",
    type=click.Choice(get_args(Feed)),
    default="auto",
    show_default=True,
    help="What the scheduler is given of a tile: steps that share pixels with its neighbours', or "
    "one task that reads its halo itself; auto: the latter from 32 workers or 4 GPUs on. The "
    "labels are the same.",
)
"""Below `cluster_options`, of which it is one, for the commands that segment tiles."""


def _gathered(
    command: Command, kind: type[Any], name: str, options: Sequence[Callable[..., Any]]
) -> Command:
    """The command with these options; those that are fields of `kind` come as one object."""
    gathers = [field.name for field in fields(kind)]

    @wraps(command)
    def gathered(**values: Any) -> Any:
        chosen = kind(**{key: values.pop(key) for key in gathers if key in values})
        if isinstance(chosen, ClusterOptions):
            chosen = with_slurm_words(with_profile(chosen), values.pop("slurm_words"))
        return command(**values, **{name: chosen})

    for option in reversed(options):
        gathered = option(gathered)
    return cast("Command", gathered)


def with_slurm_words(options: ClusterOptions, words: Sequence[str]) -> ClusterOptions:
    """The options with what `--slurm` says of a job.

    Raises:
        OptionError: if Slurm is not used, or cannot be asked that.
    """
    if words and options.kind != "slurm":
        raise OptionError("--slurm is for --cluster slurm")
    slurm = options.slurm
    names = [field.name for field in fields(slurm)]
    for word in words:
        key, _, value = word.partition("=")
        if key not in names or not value:
            raise OptionError(f"--slurm {word} is not known; write KEY=VALUE: {', '.join(names)}")
        present = getattr(slurm, key)
        try:
            new = int(value) if isinstance(present, int) else value
        except ValueError as error:
            raise OptionError(f"--slurm {word} needs a whole number") from error
        changed: dict[str, Any] = {key: (*present, value) if isinstance(present, tuple) else new}
        slurm = replace(slurm, **changed)
    return replace(options, slurm=slurm)


def _workers(
    context: click.Context, parameter: click.Parameter, value: object
) -> int | WorkerRange | None:
    return None if value is None else parse_workers(str(value))


def seconds_option(context: click.Context, parameter: click.Parameter, value: object) -> float:
    """Seconds of a time with a unit, or of a number of seconds."""
    found = _TIME.fullmatch(str(value))
    if found is None:
        raise click.BadParameter(f"{value!r} is no time; write 90s, 30min or 2h")
    return float(found[1]) * _SECONDS[found[2] or "s"]


def _tile(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    try:
        return int(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither auto nor a number of pixels") from error


def _class_thresholds(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, float], ...]:
    thresholds = []
    for value in values:
        name, _, share = value.rpartition("=")
        try:
            thresholds.append((name, float(share if name else "")))
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not CLASS=P, as tumour=0.7") from error
    return tuple(thresholds)


def partition_option(
    context: click.Context, parameter: click.Parameter, value: str | Partition
) -> Partition:
    """One of several runs, from "2/4"."""
    return value if isinstance(value, Partition) else parse_partition(value)


def label_value(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> int | None:
    """A number, or a colour as #rrggbb."""
    if value is None:
        return None
    try:
        return int(value[1:], 16) if value.startswith("#") else int(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither a number nor #rrggbb") from error


def pixel_size_text(y_um: float, x_um: float) -> str:
    """Micrometres for what is seen through a microscope, metres for what is seen from above.

    >>> pixel_size_text(0.25, 0.25), pixel_size_text(5e5, 5e5)
    ('0.25 x 0.25 um', '0.5 x 0.5 m')
    """
    unit, size = ("m", 1e6) if x_um >= _METRES_FROM_UM else ("um", 1)
    return f"{y_um / size:g} x {x_um / size:g} {unit}"


def crs_name(crs: str) -> str:
    """The code, or the name that stands first in quotes in WKT.

    >>> crs_name('PROJCRS["ETRS89 / LAEA Europe",BASEGEOGCRS["ETRS89"]]')
    'ETRS89 / LAEA Europe'
    """
    return crs.split('"')[1] if '"' in crs else crs


def human_bytes(count: float) -> str:
    """A size as people read it.

    >>> human_bytes(3_200_000)
    '3.2 MB'
    """
    power = min(max(len(str(int(count))) - 1, 0) // 3, len(_UNITS) - 1)
    return f"{count / 1000**power:.3g} {_UNITS[power]}"


def human_seconds(seconds: float) -> str:
    """A duration as people read it.

    >>> human_seconds(3720)
    '1 h 2 min'
    """
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
