"""From stored pixels to the input of a foreign network, in numpy: the same on every device.

Some steps need numbers of the whole image (`Standardise`, `ScaleRange`). They are measured once,
block by block, and replaced by a `Scale` with these numbers before the first tile: no tile is
ever normalised by itself.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from tilesegment.statistics import (
    Counts,
    Moments,
    Values,
    lower_counts,
    moments,
    percentile_ranks,
    upper_counts,
    value_of,
)

EPSILON = 1e-6
"""Added to what is divided by, as bioimage.io's operations do by default."""


@dataclass(frozen=True)
class Scale:
    """(value - centre) / spread, in float32."""

    centre: tuple[float, ...] = (0.0,)
    """Per channel, or one for all."""
    spread: tuple[float, ...] = (1.0,)
    """Per channel, or one for all."""

    def apply(self, values: Values) -> Values:
        centre, spread = (
            np.array(numbers, np.float32).reshape(-1, 1, 1)
            for numbers in (self.centre, self.spread)
        )
        return (values - centre) / spread


@dataclass(frozen=True)
class Clip:
    """Values outside an interval become its ends."""

    low: float
    high: float

    def apply(self, values: Values) -> Values:
        return values.clip(np.float32(self.low), np.float32(self.high))


@dataclass(frozen=True)
class DivideByLargest:
    """Integers by the largest value of their type; floats stay as they are."""


@dataclass(frozen=True)
class Standardise:
    """To mean 0 and standard deviation 1 over the whole image."""

    per_channel: bool = True
    epsilon: float = EPSILON


@dataclass(frozen=True)
class ScaleRange:
    """Two percentiles of the whole image become 0 and 1; 0 and 100 are its least and largest."""

    low: float
    high: float
    per_channel: bool = True
    epsilon: float = EPSILON


WholeImageStep = Standardise | ScaleRange
Step = Scale | Clip | DivideByLargest | WholeImageStep


Collect = Callable[[Callable[[npt.NDArray[Any]], tuple[Any, ...]]], Iterable[tuple[Any, ...]]]
"""Applies a function to all blocks (c, y, x) that make up the image, and hands back its results."""


def prepare(pixels: npt.NDArray[Any], steps: Sequence[Step]) -> Values:
    """The network's input.

    Args:
        pixels: (c, y, x), in the image's dtype.
        steps: with their whole-image steps measured.

    Returns:
        (c, y, x) float32.
    """
    values: Values = pixels.astype(np.float32)
    for step in steps:
        if isinstance(step, DivideByLargest):
            step = _divide(pixels.dtype)
        if isinstance(step, WholeImageStep):
            raise ValueError(f"{step} was not measured before the first tile")
        values = step.apply(values)
    return values


def _divide(pixels: np.dtype[Any]) -> Scale:
    largest = 1.0 if pixels.kind == "f" else float(np.iinfo(pixels).max)
    return Scale(spread=(largest,))


def needs_statistics(steps: Iterable[Step]) -> bool:
    return any(isinstance(step, WholeImageStep) for step in steps)


def measured(steps: Sequence[Step], scales: Iterable[Scale]) -> tuple[Step, ...]:
    """The steps with their whole-image steps replaced, in order, by `scales`."""
    following = iter(scales)
    return tuple(next(following) if isinstance(step, WholeImageStep) else step for step in steps)


def measure_scales(steps: Sequence[Step], collect: Collect) -> Iterator[Scale]:
    """For each whole-image step the numbers of an image; one or two readings of it each."""
    known: list[Step] = []
    for step in steps:
        if isinstance(step, Standardise):
            step = _standardise(step, known, collect)
            yield step
        elif isinstance(step, ScaleRange):
            step = _scale_range(step, known, collect)
            yield step
        known.append(step)


def _standardise(step: Standardise, before: Sequence[Step], collect: Collect) -> Scale:
    found: tuple[Moments, ...] = _sum(collect(partial(_moments, tuple(before), step.per_channel)))
    return Scale(
        tuple(item.mean for item in found),
        tuple(item.deviation + step.epsilon for item in found),
    )


def _scale_range(step: ScaleRange, before: Sequence[Step], collect: Collect) -> Scale:
    """Two readings: the upper bits of all values, then the lower ones of those that are needed."""
    arguments = tuple(before), step.per_channel
    upper: tuple[Counts, ...] = _sum(collect(partial(_upper_counts, *arguments)))
    ranks = [
        [percentile_ranks(counts.count, percentile) for percentile in (step.low, step.high)]
        for counts in upper
    ]
    needed = {
        (group, upper[group].find(rank)[0])
        for group, both in enumerate(ranks)
        for below, above, _ in both
        for rank in (below, above)
    }
    bins = tuple(sorted(needed))
    lower = dict(zip(bins, _sum(collect(partial(_lower_counts, *arguments, bins))), strict=True))

    def value(group: int, rank: int) -> float:
        position, rank = upper[group].find(rank)
        return value_of(position, lower[group, position].find(rank)[0])

    def percentile(group: int, below: int, above: int, share: float) -> float:
        return value(group, below) + share * (value(group, above) - value(group, below))

    ends = [tuple(percentile(group, *rank) for rank in both) for group, both in enumerate(ranks)]
    return Scale(
        tuple(low for low, _ in ends), tuple(high - low + step.epsilon for low, high in ends)
    )


def _sum(results: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return reduce(
        lambda total, more: tuple(a + b for a, b in zip(total, more, strict=True)), results
    )


def _groups(
    pixels: npt.NDArray[Any], before: Sequence[Step], per_channel: bool
) -> tuple[Values, ...]:
    """The values that share one statistic: each channel's, or all."""
    values = prepare(pixels, before)
    return tuple(values) if per_channel else (values,)


def _moments(
    before: Sequence[Step], per_channel: bool, pixels: npt.NDArray[Any]
) -> tuple[Moments, ...]:
    return tuple(moments(values) for values in _groups(pixels, before, per_channel))


def _upper_counts(
    before: Sequence[Step], per_channel: bool, pixels: npt.NDArray[Any]
) -> tuple[Counts, ...]:
    return tuple(upper_counts(values) for values in _groups(pixels, before, per_channel))


def _lower_counts(
    before: Sequence[Step],
    per_channel: bool,
    bins: Sequence[tuple[int, int]],
    pixels: npt.NDArray[Any],
) -> tuple[Counts, ...]:
    groups = _groups(pixels, before, per_channel)
    return tuple(lower_counts(groups[group], upper) for group, upper in bins)
