"""Border, alignment and legal sizes of any network, found by running it (docs/check.md)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import lcm

import torch
from torch import nn

from tilesegment.errors import ModelError
from tilesegment.geometry import YX, NetworkGeometry, Sides
from tilesegment.model.probing.confirm import context_difference, nothing_beyond
from tilesegment.model.probing.disturb import Disturbance, band, nan_passes
from tilesegment.model.probing.period import LARGEST_PERIOD, find_period, shift_difference
from tilesegment.model.probing.reach import (
    Reach,
    farthest,
    feels_rim,
    find_band_reach,
    find_reaches,
    repeats,
)
from tilesegment.model.probing.sizes import Sizes, find_sizes
from tilesegment.model.probing.subject import AXES, Axis, Run, Subject
from tilesegment.model.probing.suspects import find_suspects

SAME = 1e-4
"""Share of the largest output; a tile that differs by less from the same pixels in a larger
context is taken to differ by the order of summation only."""
_PROBING_GRID = 64
"""Sizes that are multiples of this keep networks of any size from rounding theirs."""


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
    """What the network consumes if it does not pad, else its field; None if not local."""
    field: Sides | None
    """Pixels beyond its own position on which an output pixel can depend (receptive field), at
    the worst position on the grid; None if not local."""
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
    remarks: tuple[str, ...]
    """What else to know, one sentence each."""

    @property
    def geometry(self) -> NetworkGeometry:
        """What tiling must know.

        Raises:
            ModelError: if the network has no finite border, or cannot be tiled in squares.
        """
        if self.border is None:
            raise ModelError(f"the network has no finite border: {'; '.join(self.reasons)}")
        return self._geometry(self.border.largest)

    @property
    def window_geometry(self) -> NetworkGeometry:
        """Of a network that is shown windows without any surroundings.

        Raises:
            ModelError: if it cannot be shown squares.
        """
        return self._geometry(max(self.offset.y, self.loss.y - self.offset.y, 0))

    def _geometry(self, border: int) -> NetworkGeometry:
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
            border=border,
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
    if network is None and isinstance(run, nn.Module):
        network = run
    subject = Subject(run, channels)
    with _buffers_kept(network):
        sizes = find_sizes(subject, fixed_size)
        try:
            return _measure_local(subject, sizes)
        except _NotLocalError as error:
            suspects = find_suspects(subject, network, sizes.at_least(_PROBING_GRID))
            return _not_local(subject, sizes, (str(error), *suspects))


class _NotLocalError(Exception):
    """The network has no finite border; says how that showed."""


@dataclass(frozen=True)
class _Along:
    """What was found along one axis."""

    period: int
    reach: Reach
    loss: int
    """Input size minus output size."""
    padded: bool
    """Whether outputs at the rim depend on what the network puts around its input."""

    @property
    def offset(self) -> int:
        """Where the output starts in the input: in the middle of what it depends on."""
        middle = (self.reach.behind - self.reach.ahead) // 2
        return min(max(middle, min(self.loss, 0)), max(self.loss, 0))

    @property
    def field(self) -> tuple[int, int]:
        """Pixels before and after its own position on which an output can depend."""
        return max(self.reach.ahead + self.offset, 0), max(self.reach.behind - self.offset, 0)

    @property
    def border(self) -> tuple[int, int]:
        """What is lost before and after the output if no padding fills it, else the field."""
        if self.padded or self.loss == 0:
            return self.field
        return self.offset, self.loss - self.offset


def _measure_local(subject: Subject, sizes: Sizes) -> Measured:
    outputs = _check_output(subject, sizes)
    probing = sizes.on_grid(_PROBING_GRID)
    disturbance = Disturbance(subject, _nan_passes(subject, probing))
    y, x, legal = _measure_axes(disturbance, sizes, probing)
    measured = Measured(
        local=True,
        reasons=(),
        outputs=outputs,
        legal_step=lcm(y.period, x.period, max(sizes.step, 1)),
        smallest_input=legal.first,
        fixed_size=None if sizes.step else sizes.first,
        period=YX(y.period, x.period),
        border=Sides(*y.border, *x.border),
        field=Sides(*y.field, *x.field),
        offset=YX(y.offset, x.offset),
        loss=sizes.loss,
        proved=disturbance.nan_passes,
        difference=None,
        remarks=tuple(_remarks(disturbance, sizes, legal)),
    )
    difference = _confirm(subject, measured, probing, (y, x))
    return replace(measured, difference=difference)


def _check_output(subject: Subject, sizes: Sizes) -> int:
    """Channels of the output, if it is the same finite numbers twice.

    Raises:
        ModelError: if it is not finite.
        _NotLocalError: if it differs.
    """
    size = sizes.at_least(_PROBING_GRID)
    picture = subject.picture(YX(size, size))
    once, again = subject.output(picture), subject.output(picture)
    if not torch.isfinite(once).all():
        raise ModelError("the network's output is not finite for pixels from 0 to 1")
    if not torch.equal(once, again):
        raise _NotLocalError("its output for the same pixels differs from call to call")
    return once.shape[0]


def _nan_passes(subject: Subject, sizes: Sizes) -> bool:
    size = sizes.at_least(_PROBING_GRID)
    picture = subject.picture(YX(size, size))
    return nan_passes(subject, picture, band(picture, 0, size // 2))


def _measure_axes(
    disturbance: Disturbance, sizes: Sizes, probing: Sizes
) -> tuple[_Along, _Along, Sizes]:
    """Both axes, in narrow strips; in wide ones if the tile as a whole shows more than these."""
    for width in (probing.first, probing.at_least(2 * probing.first)):
        y, x = (_measure_axis(disturbance, probing, axis, width) for axis in AXES)
        period = lcm(y.period, x.period)
        legal = sizes.on_grid(period)
        field = Sides(*y.field, *x.field)
        if nothing_beyond(disturbance, legal, field, YX(y.offset, x.offset), period):
            return y, x, legal
    raise _NotLocalError("an output pixel depends on pixels farther off than wide strips show")


def _measure_axis(disturbance: Disturbance, sizes: Sizes, axis: Axis, width: int) -> _Along:
    """The period, then the reach of each position in one period."""
    about = find_band_reach(disturbance, sizes, axis, width)
    if about is None:
        raise _NotLocalError("an output pixel depends on pixels at any distance")
    period = find_period(disturbance.subject, sizes, axis, about, width)
    while period is not None and period <= LARGEST_PERIOD:
        reaches = find_reaches(disturbance, sizes, axis, width, about, period)
        if reaches is None:
            raise _NotLocalError(_too_small(sizes.first))
        if repeats(reaches, period):
            padded = feels_rim(reaches, sizes, axis, period)
            return _Along(period, farthest(reaches), sizes.loss[axis], padded)
        period *= 2
    raise _NotLocalError(
        f"its output depends on the position in the tile: no shift of up to {LARGEST_PERIOD} "
        "pixels leaves it the same"
    )


def _too_small(size: int) -> str:
    return f"an input of {size} pixels is too small to see how far it looks"


def _remarks(disturbance: Disturbance, sizes: Sizes, legal: Sizes) -> Iterator[str]:
    if not disturbance.nan_passes:
        yield (
            "NaN does not pass through this network: the border is the farthest dependence that "
            "large disturbances of the pixels showed, which is no proof"
        )
    if legal.step > sizes.step > 0:
        yield (
            f"it takes other sizes too, but there its output is on another grid: only inputs of "
            f"{legal.first} plus multiples of {legal.step} fit together"
        )


def _confirm(
    subject: Subject, measured: Measured, probing: Sizes, along: tuple[_Along, _Along]
) -> float:
    """Largest difference between a tile and the same pixels with a larger context.

    Raises:
        _NotLocalError: if it is more than rounding, or a fixed size leaves nothing to compare.
    """
    if measured.fixed_size is not None:
        shifted = [
            shift_difference(subject, probing, axis, found.reach, probing.first, found.period)
            for axis, found in zip(AXES, along, strict=True)
        ]
        compared = [difference for difference in shifted if difference is not None]
        if len(compared) < len(AXES):
            raise _NotLocalError(_too_small(measured.fixed_size))
        return max(compared)
    difference = context_difference(subject, measured.geometry)
    if difference > SAME:
        raise _NotLocalError(
            f"its output differs by {difference:.1e} of the largest value when the same pixels "
            "have more around them: it depends on the size or the rim of the tile"
        )
    return difference


def _not_local(subject: Subject, sizes: Sizes, reasons: tuple[str, ...]) -> Measured:
    picture = subject.picture(YX(sizes.first, sizes.first))
    return Measured(
        local=False,
        reasons=reasons,
        outputs=subject.output(picture).shape[0],
        legal_step=max(sizes.step, 1),
        smallest_input=sizes.first,
        fixed_size=None if sizes.step else sizes.first,
        period=YX(1, 1),
        border=None,
        field=None,
        offset=YX(sizes.loss.y // 2, sizes.loss.x // 2),
        loss=sizes.loss,
        proved=False,
        difference=None,
        remarks=(),
    )


@contextmanager
def _buffers_kept(network: nn.Module | None) -> Iterator[None]:
    """Undo what running a network in training mode does to its running statistics."""
    buffers = list(network.buffers()) if network is not None else []
    kept = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, before in zip(buffers, kept, strict=True):
            buffer.data.copy_(before)
