"""Options that several commands share, and how sizes are written."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")

Command = TypeVar("Command", bound=Callable[..., Any])


def run_options(command: Command) -> Command:
    """Options that decide what is computed: the same for `run` and `plan`."""
    for option in reversed(
        (
            click.option(
                "--model",
                default="nuclei",
                show_default=True,
                metavar="FILE|NAME",
                help="Model file (.safetensors), or a bundled model; see `tilesegment models`.",
            ),
            click.option(
                "--level",
                type=click.IntRange(min=0),
                default=0,
                show_default=True,
                help="Resolution level that the network is given; 0 is the finest.",
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
                type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
                default="auto",
                show_default=True,
                help="Arithmetic of the network; auto is the fastest that the device has.",
            ),
            click.option(
                "--mask",
                default="none",
                show_default=True,
                metavar="none|tissue|STORE",
                help="Pixels that are wanted: all, those around tissue, or those that a label "
                "image or Zarr array has set. The others become background.",
            ),
        )
    ):
        command = option(command)
    return command


def cluster_options(command: Command) -> Command:
    """Options that decide who computes."""
    for option in reversed(
        (
            click.option(
                "--cluster",
                default="cpu",
                show_default=True,
                metavar="cpu|gpu|auto|tcp://HOST:PORT",
                help="This machine's cores, its GPUs (one worker each), or a running scheduler.",
            ),
            click.option(
                "--workers",
                type=click.IntRange(min=1),
                help="Worker processes; default: one per GPU, or one per four CPU cores.",
            ),
            click.option(
                "--memory-limit",
                "limit_text",
                metavar="SIZE",
                help='Memory of a worker, as "8GB"; beyond it dask restarts the worker.',
            ),
        )
    ):
        command = option(command)
    return command


def _tile(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    try:
        return int(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither auto nor a number of pixels") from error


def human_bytes(count: float) -> str:
    """A size as people read it.

    >>> human_bytes(3_200_000)
    '3.2 MB'
    """
    power = min(max(len(str(int(count))) - 1, 0) // 3, len(_UNITS) - 1)
    return f"{count / 1000**power:.3g} {_UNITS[power]}"


def human_seconds(seconds: float) -> str:
    """A duration as people read it.

    >>> human_seconds(3700)
    '1 h 2 min'
    """
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
