"""What a user chooses for a run; everything else follows from it, the image and the model."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Normalise = Literal["largest", "none", "zero-mean", "min-max", "percentile"]


@dataclass(frozen=True)
class RunOptions:
    """Options of `tilesegment run` that decide what is computed and how it is cut."""

    level: int = 0
    """Resolution level of the image that the network is given; 0 is the finest."""
    tile: int | None = None
    """Pixels per side of a tile at that level; None chooses one."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto takes the fastest that the device computes natively."""


@dataclass(frozen=True)
class ClusterOptions:
    """Who computes."""

    kind: str = "cpu"
    """cpu, gpu, auto, or the address of a running scheduler (tcp://host:port)."""
    workers: int | None = None
    """Number of worker processes; None chooses: one per GPU, or one per four CPU cores."""
    memory_limit: str | None = None
    """Memory at which a worker is restarted, as "8GB"; None divides the machine's."""


@dataclass(frozen=True)
class ForeignOptions:
    """What a network that tilesegment did not write cannot say of itself (docs/foreign.md)."""

    weights: str | None = None
    """File of weights for a network given as "module:factory"."""
    output: str | None = None
    """Which of several outputs: its name, or its position."""
    trust: str | None = None
    """"sha256:…" of a file that runs code when it is loaded (TorchScript, .pt2)."""
    normalise: Normalise | None = None
    """How pixel values become its input; None: by the largest of their type, or as described."""
    threshold: float | None = None
    """Where the only output channel is above it is foreground: 0 for logits, 0.5 for
    probabilities. None: as described."""
