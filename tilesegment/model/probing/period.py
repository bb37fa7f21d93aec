"""By how much the input must be shifted for the output only to be shifted."""

from torch import Tensor

from tilesegment.model.probing.reach import Reach
from tilesegment.model.probing.sizes import Sizes
from tilesegment.model.probing.subject import Axis, Subject

LARGEST_PERIOD = 256
"""Pixels; a network that does not repeat itself within them is taken to depend on the position."""
ROUNDING = 1e-5
"""Share of the largest output; differences below it are taken for rounding."""
_COMPARED = 32
"""Rows, at least, that are compared."""


def find_period(subject: Subject, sizes: Sizes, axis: Axis, reach: Reach, width: int) -> int | None:
    """The least shift along the axis that only shifts the output.

    All such shifts are multiples of the least. Powers of two are tried first, then their
    multiples by odd numbers.

    Args:
        subject: the network.
        sizes: that it takes.
        axis: along which.
        reach: of one position at least; other phases reach less than one period farther.
        width: of the strip, across the axis.

    Returns:
        The period in pixels, or None if there is none up to `LARGEST_PERIOD`.
    """
    for odd in (1, 3, 5, 7):
        period = odd
        while period <= LARGEST_PERIOD:
            difference = shift_difference(subject, sizes, axis, reach, width, period)
            if difference is not None and difference <= ROUNDING:
                return period
            period *= 2
    return None


def shift_difference(
    subject: Subject, sizes: Sizes, axis: Axis, reach: Reach, width: int, shift: int
) -> float | None:
    """Largest difference between outputs of one picture, cut `shift` pixels apart.

    Outputs that may feel the rim of the input are left out.

    Returns:
        As a share of the largest output; None if a fixed size leaves nothing to compare.
    """
    rim = max(reach.ahead, reach.behind - sizes.loss[axis], 0) + shift
    length = sizes.at_least(2 * rim + shift + max(shift, _COMPARED) + sizes.loss[axis])
    count = length - sizes.loss[axis] - 2 * rim - shift
    if count < 1:
        return None
    picture = subject.strip(axis, length + shift, width)
    before = subject.output(picture.narrow(axis + 1, 0, length))
    after = subject.output(picture.narrow(axis + 1, shift, length))
    before = before.narrow(axis + 1, rim + shift, count)
    after = after.narrow(axis + 1, rim, count)
    return relative_difference(before, after)


def relative_difference(one: Tensor, other: Tensor) -> float:
    """Largest difference as a share of the largest value."""
    return float((other - one).abs().max() / one.abs().max().clamp_min(1e-30))
