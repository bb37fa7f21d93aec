"""A network whose windows are blended, see `tilesegment.blending`."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from tilesegment.blending import Blend


class BlendedNetwork:
    """Shows a network one window after the other, and takes the weighted mean of its outputs.

    Windows are added in the order of rows and columns, with a product and a sum for each, so that
    a pixel gets the same bits whichever tile it is in.

    Args:
        network: (1, c, window input, window input) to (1, k, window + 2 crop, window + 2 crop).
        blend: the windows.
        device: where the network runs.

    Shapes: in (1, c, h + 2 halo, w + 2 halo), out (1, k, h, w) float32, with the halo of
    ``blend.geometry``; h and w must be multiples of ``blend.step``.
    """

    def __init__(
        self, network: Callable[[Tensor], Tensor], blend: Blend, device: torch.device
    ) -> None:
        self.network = network
        self.blend = blend
        self.weights = torch.from_numpy(blend.weights()).to(device)

    def __call__(self, image: Tensor) -> Tensor:
        blend, network = self.blend, self.blend.network
        # What the windows reach: the tile, and the parts of windows around it.
        height, width = (size - 2 * network.halo for size in image.shape[-2:])
        weight = image.new_zeros((height, width), dtype=torch.float32)
        total: Tensor | None = None
        for y, x in product(*(blend.starts(size) for size in image.shape[-2:])):
            logits = self._window(image, y, x)
            if total is None:
                total = logits.new_zeros((1, logits.shape[1], height, width))
            place = (..., slice(y, y + blend.window), slice(x, x + blend.window))
            total[place] += logits * self.weights
            weight[place] += self.weights
        assert total is not None  # noqa: S101 - narrows the type: a tile has a window
        around = blend.geometry.halo - network.halo
        tile = (..., slice(around, height - around), slice(around, width - around))
        return total[tile] / weight[tile]

    def _window(self, image: Tensor, y: int, x: int) -> Tensor:
        """The network's output for one window, (1, k, window, window) float32."""
        side, crop = self.blend.window_input, self.blend.network.crop
        window = image[..., y : y + side, x : x + side]
        # One layout in memory for all windows: the same kernels, the same bits.
        logits: Tensor = self.network(window.clone(memory_format=torch.channels_last))
        inside = slice(crop, crop + self.blend.window)
        return logits[..., inside, inside].float()
