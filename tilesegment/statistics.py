"""Statistics of a whole image from its blocks: exact, so that the order of blocks is nothing.

Pixels are taken as float32, as a network is given them. Two kinds of summary, each of which can
be added to another of its kind; the sum over all blocks is the same for every way of cutting
the image:

* `Moments`: count, sum and sum of squares as integers, from which mean and standard deviation
  are rounded once, at the end;
* `Counts`: how many pixels have which leading bits. Two readings, of the upper and then of the
  lower 16 bits, give order statistics exactly (a radix selection), in bounded memory.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]

_UNIT_BITS = 400
"""Sums are integers in units of 2**-400: the square of the least float32 is 2**-298."""
_MANTISSA_BITS = 53
_LOW_BITS = 27
_LARGEST_SUM = 2**24
"""Values that are summed at once: 2**24 parts of at most 27 bits are exact in a float64."""


@dataclass(frozen=True)
class Moments:
    """Exact sums over pixels."""

    count: int
    total: int
    """Sum of the values, in units of 2**-400."""
    squares: int
    """Sum of their squares, in the same unit."""

    def __add__(self, other: Self) -> "Moments":
        return Moments(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    @property
    def mean(self) -> float:
        """The mean, rounded once."""
        return float(self._mean)

    @property
    def deviation(self) -> float:
        """The standard deviation (of the population), of the exact variance rounded once."""
        return math.sqrt(float(Fraction(self.squares, self.count << _UNIT_BITS) - self._mean**2))

    @property
    def _mean(self) -> Fraction:
        return Fraction(self.total, self.count << _UNIT_BITS)


def moments(values: Values) -> Moments:
    """Exact sums over an array of any shape, float32 and finite.

    >>> found = moments(np.array([1e30, 1, -1e30], np.float32)) + moments(np.ones(1, np.float32))
    >>> found.mean
    0.5
    """
    wide = values.ravel().astype(np.float64)
    return Moments(values.size, _exact_sum(wide), _exact_sum(wide * wide))


def _exact_sum(values: npt.NDArray[np.float64]) -> int:
    """The sum in units of 2**-400: mantissas are added up per exponent, in two exact parts."""
    total = 0
    for start in range(0, values.size, _LARGEST_SUM):
        fractions, exponents = np.frexp(values[start : start + _LARGEST_SUM])
        mantissas = np.ldexp(fractions, _MANTISSA_BITS).astype(np.int64)
        shifts = exponents.astype(np.int64) + (_UNIT_BITS - _MANTISSA_BITS)
        # Zero has the exponent 0, and nothing to add.
        low = np.bincount(shifts, mantissas & (2**_LOW_BITS - 1))
        high = np.bincount(shifts, mantissas >> _LOW_BITS)
        for shift in np.flatnonzero((low != 0) | (high != 0)):
            total += (int(low[shift]) + (int(high[shift]) << _LOW_BITS)) << int(shift)
    return total


@dataclass(frozen=True)
class Counts:
    """How many pixels have which 16 bits of their sort key; only bins that occur are held."""

    bins: Mapping[int, int]

    def __add__(self, other: Self) -> "Counts":
        merged = dict(self.bins)
        for position, count in other.bins.items():
            merged[position] = merged.get(position, 0) + count
        return Counts(merged)

    @property
    def count(self) -> int:
        return sum(self.bins.values())

    def find(self, rank: int) -> tuple[int, int]:
        """The bin that holds the value of this rank (from 0), and its rank within the bin."""
        for position in sorted(self.bins):
            if rank < self.bins[position]:
                return position, rank
            rank -= self.bins[position]
        raise IndexError(rank)


def upper_counts(values: Values) -> Counts:
    """Pixels by the upper 16 bits of their keys."""
    return _count(_keys(values) >> 16)


def lower_counts(values: Values, upper: int) -> Counts:
    """Pixels by the lower 16 bits, of those whose upper 16 bits are `upper`."""
    keys = _keys(values)
    return _count(keys[keys >> 16 == upper] & 0xFFFF)


def value_of(upper: int, lower: int) -> float:
    """The value with this key.

    >>> keys = [int(key) for key in _keys(np.array([-2.5, 7.25], np.float32))]
    >>> [value_of(key >> 16, key & 0xFFFF) for key in keys]
    [-2.5, 7.25]
    """
    key = upper << 16 | lower
    bits = key ^ (0x80000000 if key & 0x80000000 else 0xFFFFFFFF)
    return float(np.array(bits, np.uint32).view(np.float32))


def _keys(values: Values) -> npt.NDArray[np.uint32]:
    """Unsigned integers in the order of the float32 values."""
    # Adding zero turns -0 into 0.
    bits = (values.ravel() + np.float32(0)).view(np.uint32)
    return bits ^ np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))


def _count(positions: npt.NDArray[Any]) -> Counts:
    counts = np.bincount(positions, minlength=1)
    occur = np.flatnonzero(counts)
    return Counts(dict(zip(occur.tolist(), counts[occur].tolist(), strict=True)))


def percentile_ranks(count: int, percentile: float) -> tuple[int, int, float]:
    """Ranks between which a percentile lies, and how far: numpy's "linear" method.

    >>> percentile_ranks(5, 50)
    (2, 2, 0.0)
    >>> percentile_ranks(4, 50)
    (1, 2, 0.5)
    """
    position = Fraction(percentile) * (count - 1) / 100
    below = math.floor(position)
    return below, math.ceil(position), float(position - below)
