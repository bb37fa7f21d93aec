"""Which input sizes a network takes."""

from dataclasses import dataclass
from itertools import pairwise
from math import lcm

from tilesegment.errors import ModelError
from tilesegment.geometry import YX, round_up
from tilesegment.model.probing.subject import Subject

LARGEST_TRIED = 1024
"""Pixels per side at which the search for a size that the network takes is given up."""
_SMALLEST_COMPARED = 8
_SCALE_TOLERANCE = 0.4
_MEMBERS = 3
"""Sizes at equal distances that make a rule."""


@dataclass(frozen=True)
class Sizes:
    """The sizes, same in y and x, that a network takes and loses the fewest pixels of."""

    first: int
    """The least."""
    step: int
    """The others are `first` plus multiples of it; 0 if there is no other."""
    loss: YX
    """Input size minus output size."""

    def at_least(self, size: int) -> int:
        """The least of the sizes that is not smaller, or the only one."""
        if self.step == 0:
            return self.first
        return self.first + round_up(max(size - self.first, 0), self.step)

    def on_grid(self, period: int) -> "Sizes":
        """Those of the sizes that differ by multiples of the period too.

        The multiples of the period themselves, if they are among the sizes, else even ones.
        """
        if self.step == 0:
            return self
        step = lcm(self.step, period)
        candidates = range(self.first, self.first + step, self.step)
        first = min(candidates, key=lambda size: (size % period != 0, size % 2, size))
        return Sizes(first, step, self.loss)


def find_sizes(subject: Subject, fixed_size: int | None) -> Sizes:
    """Try one size after the other until a rule shows.

    A network that drops rows which do not fill a pooling window gives an output for any size,
    but only where it drops none do all its pooling windows fall on one grid: legal are the
    sizes with the least loss. Even ones go first, for a tile with equal halos on both sides
    is even.

    Raises:
        ModelError: if it runs on none, or if the output has another scale than the input.
    """
    if fixed_size is not None:
        return _only_size(subject, fixed_size)
    losses: dict[int, YX] = {}
    cause: Exception | None = None
    for size in range(1, LARGEST_TRIED + 1):
        try:
            losses[size] = _loss(subject, size)
        except ModelError:
            raise
        except Exception as error:  # a foreign network may raise anything at an illegal size
            cause = error
            continue
        _check_scale(losses, size)
        rule = _rule(losses)
        if rule is not None:
            return rule
    if losses:
        raise ModelError("the size of the network's output follows no rule that tiles could use")
    raise ModelError(
        f"the network ran on no square of up to {LARGEST_TRIED} pixels per side ({cause})"
    ) from cause


def _only_size(subject: Subject, size: int) -> Sizes:
    loss = _loss(subject, size)
    output = size - loss.y
    if output != size and max(size, output) % min(size, output) == 0:
        raise ModelError(_other_scale(size, output))
    return Sizes(size, 0, loss)


def _check_scale(losses: dict[int, YX], size: int) -> None:
    """Refuse outputs that do not grow by a pixel for each pixel of the input.

    A network that drops incomplete pooling windows may be off by a third over a doubled size.
    """
    half = size // 2
    if size % 2 or half < _SMALLEST_COMPARED or half not in losses:
        return
    if abs(losses[size].y - losses[half].y) > _SCALE_TOLERANCE * half:
        raise ModelError(_other_scale(size, size - losses[size].y))


def _other_scale(size: int, output: int) -> str:
    return (
        f"the network gives {output} pixels per side for {size}; labels need one output pixel per "
        "input pixel, so let the network resize its output"
    )


def _loss(subject: Subject, size: int) -> YX:
    shape = subject.output(subject.picture(YX(size, size))).shape[-2:]
    if min(shape) < 1:
        raise ValueError("the output is empty")
    return YX(size - shape[0], size - shape[1])


def _rule(losses: dict[int, YX]) -> Sizes | None:
    """The rule that the sizes seen so far follow, if the last one completes it."""
    even = {size: loss for size, loss in losses.items() if size % 2 == 0}
    rule = _progression(even)
    if rule is None:
        odd = _progression({size: loss for size, loss in losses.items() if size % 2})
        return odd if odd is not None and not even else None
    return _with_odd_sizes(rule, losses)


def _progression(losses: dict[int, YX]) -> Sizes | None:
    """Three sizes at equal distances with the least loss of all."""
    if not losses:
        return None
    least = min(losses.values(), key=lambda loss: abs(loss.y) + abs(loss.x))
    members = [size for size, loss in losses.items() if loss == least][-_MEMBERS:]
    steps = {after - before for before, after in pairwise(members)}
    if len(members) < _MEMBERS or len(steps) > 1:
        return None
    return Sizes(members[0], steps.pop(), least)


def _with_odd_sizes(rule: Sizes, losses: dict[int, YX]) -> Sizes:
    half = rule.step // 2
    if half % 2 and losses.get(rule.first + half) == rule.loss:
        first = min(size for size, loss in losses.items() if loss == rule.loss)
        return Sizes(first, half, rule.loss)
    return rule
