"""What a user chooses for a run; everything else follows from it, the image and the model."""

from dataclasses import dataclass
from typing import Literal

from tilesegment.errors import OptionError

Precision = Literal["auto", "float32", "bfloat16", "float16"]
MOST_VIEWS = 8
BlendKind = Literal["gaussian", "mean"]
Normalise = Literal["largest", "none", "zero-mean", "min-max", "percentile"]


@dataclass(frozen=True)
class RunOptions:
    """Options of `tilesegment run` that decide what is computed and how it is cut."""

    level: int | None = None
    """Resolution level that the network is given as it is, 0 the finest; None chooses by size."""
    tile: int | None = None
    """Pixels per side of a tile at that level; None chooses one."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto takes the fastest that the device computes natively."""
    pixel_size_um: float | None = None
    """Micrometres per pixel that the network is to see; None takes what it was trained at."""
    blend: BlendKind | None = None
    """Weights of overlapping windows, for networks without a finite border; None: one pass."""
    overlap: float | None = None
    """Share of a window's side that the next window covers too; None takes one half."""
    average: int = 1
    """Rotated and mirrored views of a tile over which the network's output is averaged: 1 to 8."""
    mask: str = "none"
    """Which pixels are wanted: none (all), tissue, or the path of a stored mask. The others get
    the background class, the first of the model."""
    probabilities: bool = False
    """Whether the probabilities of the classes are stored beside the labels."""


def check_average(average: int) -> int:
    """The number of views, if there are as many.

    Raises:
        OptionError: if there are not.
    """
    if not 1 <= average <= MOST_VIEWS:
        raise OptionError(
            f"cannot average over {average} views of a tile; there are {MOST_VIEWS}: four "
            "rotations, and their mirror images"
        )
    return average


@dataclass(frozen=True)
class ClusterOptions:
    """Who computes."""

    kind: str = "cpu"
    """cpu, gpu, auto, or the address of a running scheduler (tls://host:port, tcp://host:port)."""
    workers: int | None = None
    """Number of worker processes; None chooses: one per GPU, or one per four CPU cores."""
    memory_limit: str | None = None
    """Memory at which a worker is restarted, as "8GB"; None divides the machine's."""
    insecure: bool = False
    """Whether a scheduler on another machine may be spoken to without encryption."""


@dataclass(frozen=True)
class ForeignOptions:
    """What a network that tilesegment did not write cannot say of itself (docs/foreign.md)."""

    weights: str | None = None
    """File of weights for a network given as "module:factory"."""
    model_output: str | None = None
    """Which of several outputs: its name, or its position."""
    trust: str | None = None
    """"sha256:…" of a file that runs code when it is loaded (TorchScript, .pt2)."""
    normalise: Normalise | None = None
    """How pixel values become its input; None: by the largest of their type, or as described."""
    threshold: float | None = None
    """Where the only output channel is above it is foreground: 0 for logits, 0.5 for
    probabilities. None: as described."""
