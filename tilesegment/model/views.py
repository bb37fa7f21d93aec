"""The eight ways to look at a square: rotated by quarter turns, and mirrored.

Averaging the network's output over several of them makes it steadier: "averaged over 7 rotated
versions of the input data" (Ronneberger et al. 2015, section 4). Tiles stay seamless, since
origins and sizes of tiles are multiples of the alignment: the pooling windows of a turned tile
fall on one grid too, the one of the turned image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """One way to look at an image; the last two axes are y and x."""

    quarter_turns: int
    """Counter-clockwise."""
    mirrored: bool
    """From left to right, before it is turned."""

    def apply(self, image: Tensor) -> Tensor:
        return _turned(image.flip(-1) if self.mirrored else image, self.quarter_turns)

    def undo(self, output: Tensor) -> Tensor:
        turned = _turned(output, -self.quarter_turns)
        return turned.flip(-1) if self.mirrored else turned


def _turned(image: Tensor, quarters: int) -> Tensor:
    return torch.rot90(image, quarters, (-2, -1)) if quarters else image


VIEWS = tuple(View(turns, mirrored) for mirrored in (False, True) for turns in (0, 2, 1, 3))
"""The first is the image as it is; the first two and the first four are evenly spread."""
