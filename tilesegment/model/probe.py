"""Border, alignment and legal sizes of any network, found by running it (docs/check.md)."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from tilesegment.errors import ModelError
from tilesegment.geometry import YX, NetworkGeometry, Sides

Run = Callable[[Tensor], Tensor]
"""A network: (1, channels, y, x) float32 to (1, outputs, y', x')."""


@dataclass(frozen=True)
class Measured:
    """What was found about a network by running it."""

    local: bool
    """Whether an output pixel depends on a bounded neighbourhood, the same at every position."""
    reasons: tuple[str, ...]
    """Why it is not local, one clause each, the operations by name; empty if it is."""
    outputs: int
    """Channels of the output."""
    legal_step: int
    """Alignment: legal input sizes are `smallest_input` plus multiples of it; if the network is
    local, tile origins are multiples of it too."""
    smallest_input: int
    """The least legal input size that gives an output; the only one if the size is fixed."""
    fixed_size: int | None
    """The only size the network takes; None if it takes others."""
    period: YX
    """Per axis, the shift of the input that only shifts the output; it divides `legal_step`."""
    border: Sides | None
    """Pixels beyond its own position on which an output pixel can depend; None if not local."""
    offset: YX
    """Position in the input of the output's first pixel."""
    loss: YX
    """Pixels by which the output is smaller than the input, both sides together."""
    proved: bool
    """Whether NaN went through the whole network: then the border is proved. Otherwise it is
    the farthest dependence that large perturbations showed."""
    difference: float | None
    """Largest difference between a tile with its halo and the same pixels with a larger context,
    as a share of the largest output; None if not local. About 1e-7 is rounding, 0 bit equality."""

    @property
    def geometry(self) -> NetworkGeometry:
        """What tiling must know.

        Raises:
            ModelError: if the network has no finite border, or cannot be tiled in squares.
        """
        if self.border is None:
            raise ModelError(f"the network has no finite border: {'; '.join(self.reasons)}")
        if self.loss.y != self.loss.x or self.offset.y != self.offset.x:
            raise ModelError(
                f"the output is {self.loss.y} pixels smaller in y and {self.loss.x} in x; "
                "tiles need a network that loses as much on both axes"
            )
        residue = self.smallest_input % self.legal_step
        if residue % 2 == 1 and self.legal_step % 2 == 0:
            raise ModelError(
                f"the network takes only odd sizes ({self.smallest_input} plus multiples of "
                f"{self.legal_step}); tiles with the same halo on both sides have even ones, so "
                "pad inside the network"
            )
        return NetworkGeometry(
            border=self.border.largest,
            alignment=self.legal_step,
            loss=self.offset.y,
            residue=residue,
            extra_loss=self.loss.y - 2 * self.offset.y,
        )


def measure(
    run: Run, channels: int, *, fixed_size: int | None = None, network: nn.Module | None = None
) -> Measured:
    """Find border, alignment and legal sizes of a network by running it.

    Args:
        run: the network, (1, channels, y, x) float32 to (1, outputs, y', x').
        channels: of its input.
        fixed_size: the only size of y and x that it takes, if so.
        network: the modules behind `run`, for naming what breaks locality; `run` itself if that
            is a module.

    Raises:
        ModelError: if it runs on no size, or its output is no image of the input's scale.
    """
    raise NotImplementedError
