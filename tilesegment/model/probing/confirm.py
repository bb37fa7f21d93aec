"""Tests of a measured field and border by what it promises."""

import torch

from tilesegment.geometry import YX, NetworkGeometry, Sides, round_up
from tilesegment.model.probing.disturb import Disturbance
from tilesegment.model.probing.period import relative_difference
from tilesegment.model.probing.sizes import Sizes
from tilesegment.model.probing.subject import Subject

_SMALLEST_TILE = 16


def nothing_beyond(
    disturbance: Disturbance, sizes: Sizes, field: Sides, offset: YX, period: int
) -> bool:
    """Whether a square of outputs is untouched if everything beyond its field is disturbed.

    This is what the field promises, in both axes at once. The square starts, and ends, at each
    position of one period, since only its first and last lines look to the field's end.
    """
    origin = field.largest + 1
    tile = round_up(_SMALLEST_TILE, period)
    size = sizes.at_least(2 * origin + tile + period)
    image = disturbance.subject.picture(YX(size, size))
    for start in range(origin, origin + period):
        end = min(start + tile, size - origin)
        where = torch.ones(size, size, dtype=torch.bool)
        where[start - field.top : end + field.bottom, start - field.left : end + field.right] = (
            False
        )
        rows, columns = (slice(start - first, end - first) for first in offset)
        if disturbance.touched(image, where)[rows, columns].any():
            return False
    return True


def context_difference(subject: Subject, geometry: NetworkGeometry) -> float:
    """Largest difference between a tile with its halo, and the same tile in a larger context.

    Returns:
        As a share of the largest output.
    """
    tile = round_up(max(_SMALLEST_TILE, geometry.smallest_tile), geometry.alignment)
    more = round_up(_SMALLEST_TILE, geometry.alignment)
    size = geometry.input_size(tile) + 2 * more
    picture = subject.picture(YX(size, size))
    within = slice(geometry.crop + more, geometry.crop + more + tile)
    wide = subject.output(picture)[:, within, within]
    within = slice(geometry.crop, geometry.crop + tile)
    tight = subject.output(picture[:, more:-more, more:-more])[:, within, within]
    return relative_difference(wide, tight)
