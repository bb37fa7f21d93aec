"""Which pixels the network is shown: a level of the image, resampled where none fits.

A network knows objects at the size they had in its training pictures. The level whose pixels
are as large is shown to it as it is; where there is none, the next finer one is resampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tilesegment.errors import OptionError
from tilesegment.geometry import Spacing

TOLERANCE = 0.1
"""A level fits if its pixels differ from the wanted size by at most this share of it."""
_LARGEST_FACTOR = 8.0
"""Beyond this a wrong pixel size is likelier than an image that is meant to be resampled."""


@dataclass(frozen=True)
class Resolution:
    """Which pixels the network is shown."""

    level: int
    """That is read, and whose labels are computed."""
    step: Spacing | None
    """Size of a pixel that the network is shown, in pixels of the level; None: the level's own."""
    reason: str
    """Why these, for people."""
    doubtful: bool = False
    """Whether the network may be shown objects of a size that it was not trained on."""


def choose_resolution(
    sizes: Sequence[Spacing], trained_at: float | None, level: int | None, wanted: float | None
) -> Resolution:
    """The level that a run reads, and how it is resampled.

    Args:
        sizes: micrometres per pixel of each level, from the finest; empty if unknown.
        trained_at: micrometres per pixel of the model's training pictures; None if unknown.
        level: the user's, to be taken as it is.
        wanted: micrometres per pixel that the user wants the network to see.

    Raises:
        OptionError: if both are given, if `wanted` is not positive or the image's pixel size is
            unknown, or if the pixels would have to be resampled more than 8 times.
    """
    if level is not None and wanted is not None:
        raise OptionError("--level and --pixel-size exclude each other; give one of them")
    if level is not None:
        return _asked_for(level, sizes, trained_at)
    if wanted is not None:
        return _meet(sizes, wanted, f"--pixel-size {wanted:g}")
    if trained_at is None:
        return Resolution(0, None, "the model states no pixel size, so scales cannot be compared")
    if not sizes:
        reason = (
            "the image states no pixel size, so scales cannot be compared: the model was trained "
            f"at {trained_at:g} um; choose the level that comes nearest with --level"
        )
        return Resolution(0, None, reason, doubtful=True)
    return _meet(sizes, trained_at, f"the model was trained at {trained_at:g} um")


def _asked_for(level: int, sizes: Sequence[Spacing], trained_at: float | None) -> Resolution:
    if trained_at is None or level >= len(sizes) or _misfit(sizes[level], trained_at) <= TOLERANCE:
        return Resolution(level, None, "--level")
    reason = (
        f"--level; its pixels are {_um(sizes[level])}, but the model was trained at {trained_at:g} "
        "um"
    )
    return Resolution(level, None, reason, doubtful=True)


def _meet(sizes: Sequence[Spacing], wanted: float, because: str) -> Resolution:
    if not wanted > 0:
        raise OptionError(f"--pixel-size {wanted:g} is not positive; give micrometres per pixel")
    if not sizes:
        raise OptionError(
            f"{because} cannot be met: the image states no pixel size; choose a level with --level"
        )
    nearest = min(range(len(sizes)), key=lambda level: _misfit(sizes[level], wanted))
    if _misfit(sizes[nearest], wanted) <= TOLERANCE:
        return Resolution(nearest, None, f"{because}, and its pixels are {_um(sizes[nearest])}")
    finer = [level for level, size in enumerate(sizes) if max(size) < wanted]
    level = max(finer, default=0)
    step = Spacing(wanted / sizes[level].y, wanted / sizes[level].x)
    if not 1 / _LARGEST_FACTOR <= min(step) <= max(step) <= _LARGEST_FACTOR:
        raise OptionError(
            f"{because}, but level {level} of the image has {_um(sizes[level])} per pixel: pixels "
            f"are resampled by {_LARGEST_FACTOR:g} times at most; take a level as it is with "
            "--level, or choose another --pixel-size"
        )
    reason = f"{because}, and no level is within {TOLERANCE:.0%} of it: pixels of "
    return Resolution(level, step, f"{reason}{_um(sizes[level])} are resampled")


def _misfit(size: Spacing, wanted: float) -> float:
    """Share of `wanted` by which the size differs, on the worse axis."""
    return max(abs(length / wanted - 1) for length in size)


def _um(size: Spacing) -> str:
    """A pixel's size for people.

    >>> _um(Spacing(0.5, 0.5)), _um(Spacing(0.5, 0.25))
    ('0.5 um', '0.5 x 0.25 um')
    """
    return f"{size.y:g} um" if size.y == size.x else f"{size.y:g} x {size.x:g} um"
