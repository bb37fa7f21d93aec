"""Refinement of probabilities, see `tilesegment.refinement`; plain torch.

Each step takes an array that is larger than what it gives, by its border per side. All sums are
products and sums of single pixels in one order, so that a pixel gets the same bits wherever it
lies in the array: a convolution would not promise that.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import exp
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from torch import Tensor

from tilesegment.model.probabilities import normalised
from tilesegment.refinement import CRF, Refinement, Smoothing

_Values = TypeVar("_Values", Tensor, npt.NDArray[Any])

_BAND_VALUES = 32_000
"""Numbers that the CRF looks at together on a CPU: they stay in a core's cache."""

_LEAST = 1e-6
"""Likeness of pixels that have nothing in common: also for a pixel unlike all its neighbours there
must be a mean of them."""


def refine(probabilities: Tensor, colours: Tensor, refinement: Refinement) -> Tensor:
    """Smoothed, and then consistent with what the pixels look like.

    Args:
        probabilities: (classes, y, x) float32, of a tile and a margin around it.
        colours: (c, y, x) float32 of the same pixels, as shares of the pixel type's range.
        refinement: the steps.

    Returns:
        (classes, y - 2 border, x - 2 border).
    """
    if refinement.smoothing is not None:
        probabilities = smooth(probabilities, refinement.smoothing)
        colours = inner(colours, refinement.smoothing.border)
    if refinement.crf is not None:
        probabilities = infer(probabilities, colours, refinement.crf)
    return probabilities


def smooth(values: Tensor, smoothing: Smoothing) -> Tensor:
    """Weighted means with a truncated Gaussian: (k, y, x) to (k, y - 2 border, x - 2 border)."""
    weights = [float(weight) for weight in smoothing.weights()]
    return _weighted(_weighted(values, weights, axis=-2), weights, axis=-1)


def _weighted(values: Tensor, weights: list[float], axis: int) -> Tensor:
    """Weighted sums along one axis, from the centre outwards."""
    border = len(weights) - 1
    length = values.shape[axis] - 2 * border
    total = values.narrow(axis, border, length) * weights[0]
    for distance, weight in enumerate(weights[1:], start=1):
        pair = values.narrow(axis, border - distance, length) + values.narrow(
            axis, border + distance, length
        )
        total.add_(pair.mul_(weight))
    return total


def infer(probabilities: Tensor, colours: Tensor, crf: CRF) -> Tensor:
    """Mean-field inference of the CRF (Krähenbühl and Koltun 2011, algorithm 1).

    A pixel's probability of a class is multiplied by exp(message), and normalised. The message is
    the mean of its neighbours' probabilities, once weighted by likeness and once by distance
    alone; it leaves out the pixel itself. The labels' compatibility is Potts'.

    Args:
        probabilities: (classes, y, x) float32.
        colours: (c, y, x) float32.
        crf: the field.

    Returns:
        (classes, y - 2 border, x - 2 border).
    """
    now = probabilities
    with _one_thread():
        likeness = _likeness(colours, crf)
        for iteration in range(1, crf.iterations + 1):
            reached = iteration * crf.radius
            # Of the arrays of the beginning, what `now` covers.
            around = [inner(item, reached - crf.radius) for item in likeness]
            now = _iterate(inner(probabilities, reached), now, around, crf)
    return now


@contextmanager
def _one_thread() -> Iterator[None]:
    """Thousands of short steps are not shared out among threads, which would wait for one another.

    Measured with two threads, where other programs had the cores: 25 times the work of one. Bands
    on threads of their own give the same bits, but wait for the interpreter's lock: 1.4 times the
    time and twice the work of one thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _iterate(given: Tensor, now: Tensor, likeness: list[Tensor], crf: CRF) -> Tensor:
    """One iteration, band by band: (classes, y, x) to (classes, y - 2 radius, x - 2 radius)."""
    both = 2 * crf.radius
    bands = []
    for top, rows in _bands(given):
        near = [item[top : top + rows + both] for item in likeness]
        message = _message(now[:, top : top + rows + both], near, crf)
        weights = message.sub_(message.amax(dim=0)).exp_()
        bands.append(normalised(weights.mul_(given[:, top : top + rows])))
    return torch.cat(bands, dim=1)


def _bands(values: Tensor) -> Iterator[tuple[int, int]]:
    """First row and number of rows of the bands in which an array (k, y, x) is gone through."""
    classes, height, width = values.shape
    largest = height if values.is_cuda else max(_BAND_VALUES // (classes * width), 1)
    for top in range(0, height, largest):
        yield top, min(largest, height - top)


def _message(now: Tensor, likeness: list[Tensor], crf: CRF) -> Tensor:
    """What the neighbours tell: (classes, y, x) to (classes, y - 2 radius, x - 2 radius)."""
    radius = crf.radius
    height, width = (size - 2 * radius for size in now.shape[-2:])
    alike = now.new_zeros((len(now), height, width))
    near = torch.zeros_like(alike)
    norm = now.new_zeros((height, width))
    whole = 0.0
    for (y, x), weights in zip(crf.offsets, likeness, strict=True):
        distance = exp(-(y * y + x * x) / (2 * crf.deviation**2))
        whole += 2 * distance
        here = _shifted(weights, 0, 0, radius)
        back = _shifted(weights, -y, -x, radius)
        ahead, behind = _shifted(now, y, x, radius), _shifted(now, -y, -x, radius)
        alike.add_(ahead * here).add_(behind * back)
        norm.add_(here).add_(back)
        near.add_((ahead + behind).mul_(distance))
    return alike.div_(norm).mul_(crf.appearance).add_(near.mul_(crf.smoothness / whole))


def _likeness(colours: Tensor, crf: CRF) -> list[Tensor]:
    """How alike each pixel and its neighbour at each of the offsets are: maps (y, x), 0 to 1.

    A map is as large as the colours; where the neighbour lies outside it is 1, and never used.
    """
    height, width = colours.shape[-2:]
    maps = [torch.ones((height, width), device=colours.device) for _ in crf.offsets]
    for top, rows in _bands(colours):
        for (y, x), full in zip(crf.offsets, maps, strict=True):
            bottom = min(top + rows, height - y)
            if bottom <= top:
                continue
            left, right = max(-x, 0), max(x, 0)
            here = colours[:, top:bottom, left : width - right]
            there = colours[:, top + y : bottom + y, right : width - left]
            full[top:bottom, left : width - right] = _alike(here, there, crf)
    return maps


def _alike(here: Tensor, there: Tensor, crf: CRF) -> Tensor:
    """Likeness of colours (c, y, x), pixel by pixel."""
    distance = torch.zeros_like(here[0])
    for ours, theirs in zip(here, there, strict=True):
        distance.add_((ours - theirs).square_())
    return distance.mul_(-1 / (2 * crf.contrast**2 * len(here))).exp_().add_(_LEAST)


def _shifted(values: Tensor, y: int, x: int, radius: int) -> Tensor:
    """The neighbours at an offset, without a rim of one radius."""
    height, width = (size - 2 * radius for size in values.shape[-2:])
    return values[..., radius + y : radius + y + height, radius + x : radius + x + width]


def inner(values: _Values, border: int) -> _Values:
    """Without `border` pixels per side."""
    height, width = values.shape[-2:]
    part: _Values = values[..., border : height - border, border : width - border]
    return part


def choose(probabilities: Tensor, thresholds: Sequence[tuple[int, float]]) -> Tensor:
    """Positions of the classes, (y, x), int64.

    A pixel belongs to a class with a threshold where its probability is not below that; of
    several such to the most probable. Where there is none, it belongs to the most probable class
    without a threshold; where all have one, to the first class.

    Args:
        probabilities: (classes, y, x).
        thresholds: position of a class, and its threshold.
    """
    if not thresholds:
        return probabilities.argmax(dim=0)
    open_to_all = probabilities.clone()
    open_to_all[[position for position, _ in thresholds]] = -1
    reached = torch.full_like(probabilities, -1)
    for position, threshold in thresholds:
        enough = probabilities[position] >= threshold
        reached[position] = torch.where(enough, probabilities[position], reached[position])
    any_reached = reached.amax(dim=0) >= 0
    return torch.where(any_reached, reached.argmax(dim=0), open_to_all.argmax(dim=0))
