"""What a user chooses for a run; everything else follows from it, the image and the model."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class RunOptions:
    """Options of `tilesegment run` that decide what is computed and how it is cut."""

    level: int = 0
    """Resolution level of the image that the network is given; 0 is the finest."""
    tile: int | None = None
    """Pixels per side of a tile at that level; None chooses one."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto takes the fastest that the device computes natively."""
    mask: str = "none"
    """Which pixels are wanted: none (all), tissue, or the path of a stored mask. The others get
    the background class, the first of the model."""


@dataclass(frozen=True)
class ClusterOptions:
    """Who computes."""

    kind: str = "cpu"
    """cpu, gpu, auto, or the address of a running scheduler (tcp://host:port)."""
    workers: int | None = None
    """Number of worker processes; None chooses: one per GPU, or one per four CPU cores."""
    memory_limit: str | None = None
    """Memory at which a worker is restarted, as "8GB"; None divides the machine's."""
