"""Which outputs depend on which input pixels, shown by what cannot cancel.

Not-a-number at an input pixel reaches every output pixel that depends on it: sums, products
(by a weight of 0 too), the ReLU and max pooling of torch all give NaN for NaN, and two of them
do not cancel. So one pass shows the dependence exactly, as it stands in the network's structure,
whatever the weights are.

Some operations swallow NaN: comparisons, `nan_to_num`, max pooling in onnxruntime. That is found
by disturbing the same pixels with large numbers too. Where they reach outputs that NaN did not,
NaN is not believed, and the union of what many disturbances reached stands for the dependence:
that much is certain, but there may be more.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tilesegment.model.probing.subject import Axis, Subject

_AMPLITUDES = (1e1, 1e3, 1e6, 1e12, 1e1, 1e3, 1e6, 1e12)


@dataclass(frozen=True)
class Footprint:
    """Along one axis, the output positions that depend on some input position."""

    first: int
    last: int


@dataclass(frozen=True)
class Disturbance:
    """Changes input pixels and says which output pixels notice."""

    subject: Subject
    nan_passes: bool
    """Whether NaN goes through the network."""

    def touched(self, image: Tensor, where: Tensor) -> Tensor:
        """Output pixels that depend on the input pixels `where`.

        Args:
            image: (c, y, x) float32.
            where: (y, x) bool.

        Returns:
            (y', x') bool.
        """
        by_nan = _touched_by_nan(self.subject, image, where)
        if self.nan_passes:
            return by_nan
        return by_nan | _touched_by_numbers(self.subject, image, where)

    def footprint(
        self, image: Tensor, axis: Axis, position: int, lines: int = 1
    ) -> Footprint | None:
        """Outputs that depend on rows (axis 0) or columns (axis 1); None if there is none."""
        where = band(image, axis, position, lines)
        touched = self.touched(image, where).any(dim=1 - axis).nonzero()
        if len(touched) == 0:
            return None
        return Footprint(int(touched[0]), int(touched[-1]))


def band(image: Tensor, axis: Axis, position: int, lines: int = 1) -> Tensor:
    """Neighbouring rows (axis 0) or columns (axis 1) of the image, (y, x) bool."""
    where = torch.zeros(image.shape[-2:], dtype=torch.bool)
    where.narrow(axis, position, lines).fill_(True)
    return where


def nan_passes(subject: Subject, image: Tensor, where: Tensor) -> bool:
    """Whether NaN at the pixels `where` reaches every output that large numbers there reach."""
    by_nan = _touched_by_nan(subject, image, where)
    return not (_touched_by_numbers(subject, image, where) & ~by_nan).any()


def _touched_by_nan(subject: Subject, image: Tensor, where: Tensor) -> Tensor:
    disturbed = image.masked_fill(where, torch.nan)
    return subject.output(disturbed).isnan().any(dim=0)


def _touched_by_numbers(subject: Subject, image: Tensor, where: Tensor) -> Tensor:
    """Output pixels that change in any bit: inputs of one size are computed in one order."""
    plain = subject.output(image)
    touched = torch.zeros(plain.shape[-2:], dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for amplitude in _AMPLITUDES:
        noise = amplitude * torch.randn(image.shape, generator=generator)
        touched |= (subject.output(torch.where(where, noise, image)) != plain).any(dim=0)
    return touched
