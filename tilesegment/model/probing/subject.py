"""The network under test, and the pictures it is given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tilesegment.errors import ModelError
from tilesegment.geometry import YX

Run = Callable[[Tensor], Tensor]
"""A network: (1, channels, y, x) float32 to (1, outputs, y', x')."""

Axis = Literal[0, 1]
"""y or x."""
AXES: tuple[Axis, Axis] = (0, 1)


@dataclass(frozen=True)
class Subject:
    """A network that can only be run."""

    run: Run
    channels: int
    """Of its input."""

    def output(self, image: Tensor) -> Tensor:
        """(channels, y, x) to (outputs, y', x'), both float32.

        Raises:
            ModelError: if the output is no image.
        """
        with torch.inference_mode():
            result = self.run(image[None])
        if not isinstance(result, Tensor) or result.ndim != 4 or result.shape[0] != 1:
            raise ModelError(
                f"the network gave {_describe(result)}; it must give one tensor (1, classes, y, x)"
            )
        return result[0].float()

    def picture(self, shape: YX, seed: int = 0) -> Tensor:
        """Random pixels from 0 to 1, (channels, y, x) float32."""
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(self.channels, *shape, generator=generator)

    def strip(self, axis: Axis, length: int, width: int, seed: int = 0) -> Tensor:
        """A picture of `length` along the axis and `width` across."""
        return self.picture(YX(length, width) if axis == 0 else YX(width, length), seed)


def _describe(result: object) -> str:
    if isinstance(result, Tensor):
        return f"a tensor of shape {tuple(result.shape)}"
    return f"a {type(result).__name__}"
