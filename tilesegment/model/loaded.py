"""A network in parts, so that what comes between sees its own input: views, windows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from torch import Tensor


@dataclass(frozen=True)
class Loaded:
    """A network on a device, for one kind of image."""

    on_host: Callable[[npt.NDArray[Any]], Tensor]
    """Pixels (c, y, x) in the image's dtype to what travels to the device, (1, c, y, x)."""
    prepare: Callable[[Tensor], Tensor]
    """That, on the device, to the network's input."""
    run: Callable[[Tensor], Tensor]
    """Its input to logits, (1, outputs, y', x')."""
    crop: int
    """Pixels above and left of the tile in these."""
