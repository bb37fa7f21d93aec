"""How far along one axis an input position reaches in the output."""

from dataclasses import dataclass

from tilesegment.model.probing.disturb import Disturbance, Footprint
from tilesegment.model.probing.sizes import Sizes
from tilesegment.model.probing.subject import Axis

LONGEST = 4096
"""Pixels of a strip; what reaches its ends is taken to depend on the whole image."""
_LARGEST_STRIP = 2**19
"""Pixels, for the sake of memory."""


@dataclass(frozen=True)
class Reach:
    """Input position y changes the outputs from y - behind to y + ahead.

    Counted in positions of the output array, whose first pixel may lie inside the image.
    """

    behind: int
    ahead: int


Reaches = dict[int, Reach | None]
"""Of neighbouring input positions; None for those that no output depends on."""


def find_band_reach(disturbance: Disturbance, sizes: Sizes, axis: Axis, width: int) -> Reach | None:
    """About how far input positions reach: exact but for less than one period.

    Many neighbouring positions in the middle of a long strip are disturbed at once, so that
    every phase is among them, and dilated convolutions with wide gaps find their place too.

    Args:
        disturbance: of the network.
        sizes: that it takes.
        axis: along which.
        width: of the strip, across the axis.

    Returns:
        None if it reaches an end of the strip.
    """
    length = sizes.at_least(min(LONGEST, _LARGEST_STRIP // width))
    image = disturbance.subject.strip(axis, length, width)
    lines = length // 16
    first = (length - lines) // 2
    footprint = disturbance.footprint(image, axis, first, lines)
    if footprint is None:
        return Reach(0, 0)
    if _meets_rim(footprint, length - sizes.loss[axis]):
        return None
    return Reach(first - footprint.first, footprint.last - (first + lines - 1))


def find_reaches(
    disturbance: Disturbance, sizes: Sizes, axis: Axis, width: int, about: Reach, period: int
) -> Reaches | None:
    """Reach of each input position of one period, and of the first of the next.

    Args:
        disturbance: of the network.
        sizes: that it takes.
        axis: along which.
        width: of the strip, across the axis.
        about: what `find_band_reach` gave.
        period: of the network.

    Returns:
        By position in the strip, or None if one of them meets the rim of a fixed size.
    """
    behind, ahead = (pixels + 2 * period + 1 for pixels in (about.behind, about.ahead))
    length = sizes.at_least(behind + ahead + sizes.loss[axis])
    image = disturbance.subject.strip(axis, length, width)
    outputs = length - sizes.loss[axis]
    first = (behind + outputs - ahead) // 2
    reaches: Reaches = {}
    for position in range(first, first + period + 1):
        footprint = disturbance.footprint(image, axis, position)
        if footprint is None:
            reaches[position] = None
        elif _meets_rim(footprint, outputs):
            return None
        else:
            reaches[position] = Reach(position - footprint.first, footprint.last - position)
    return reaches


def _meets_rim(footprint: Footprint, outputs: int) -> bool:
    return footprint.first == 0 or footprint.last == outputs - 1


def farthest(reaches: Reaches) -> Reach:
    """What covers all of them."""
    known = [reach for reach in reaches.values() if reach is not None]
    return Reach(
        max((reach.behind for reach in known), default=0),
        max((reach.ahead for reach in known), default=0),
    )


def repeats(reaches: Reaches, period: int) -> bool:
    """Whether the first position reaches as far as the one a period later."""
    first = min(reaches)
    return reaches[first] == reaches[first + period]


def feels_rim(reaches: Reaches, sizes: Sizes, axis: Axis, period: int) -> bool:
    """Whether an output would depend on pixels outside the input, if there were any.

    Without such an output the network sees no padding: every output is right at the rim too.

    Args:
        reaches: of at least one period.
        sizes: that the network takes.
        axis: along which.
        period: of the reaches.
    """
    by_phase = {position % period: reach for position, reach in reaches.items()}
    after_end = sizes.first - 1
    for distance in range(1, period + 1):
        before = by_phase[-distance % period]
        after = by_phase[(after_end + distance) % period]
        if before is not None and before.ahead >= distance:
            return True
        if after is not None and after.behind - sizes.loss[axis] >= distance:
            return True
    return False
