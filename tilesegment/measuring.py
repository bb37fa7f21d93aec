"""Measurements of objects, added up over blocks: exact, so that blocks do not matter.

A block gives one row of whole numbers for each object in it: sums over pixels, and extremes. The
rows of one object are added up, and only then rounded, once. The definitions are those of
`skimage.measure.regionprops`: the perimeter counts the object's own rim pixels by how their
neighbours lie (Benkrid and Crookes 2000), which is a local rule; eccentricity is that of the
ellipse with the same second moments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilesegment.components import Classes, Identities, Numbers
from tilesegment.tiling import Window

BORDER = 2
"""Pixels around a block on which the perimeter depends."""

_SUMS = ("area", "y", "x", "yy", "xy", "xx", "straight", "diagonal", "mixed")
COLUMNS = (
    "identity", "class", "plane", "origin_y", "origin_x", "top", "left", "bottom", "right", *_SUMS,
)  # fmt: skip
"""Of a row; then follow the sums of the channels. Positions are sums from the block's origin."""
_AT = {name: number for number, name in enumerate(COLUMNS)}

_KINDS = np.zeros(50, np.uint8)
_KINDS[[5, 7, 15, 17, 25, 27]], _KINDS[[21, 33]], _KINDS[[13, 23]] = 1, 2, 3
_DIAGONAL = 2**0.5
_LOW_BITS = 26
_FLOAT_BITS = 40

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Intensities:
    """How pixel values become whole numbers that add up exactly."""

    exponent: int = 0
    """They are taken in units of 2 to the minus this."""

    @classmethod
    def of(cls, dtype: np.dtype[Any], largest: float) -> "Intensities":
        """Integers of up to 32 bits as they are; others to 2**-40 of the largest magnitude."""
        if dtype.kind in "ui" and dtype.itemsize <= 4:
            return cls()
        return cls(_FLOAT_BITS - int(np.frexp(largest)[1]))

    def whole(self, pixels: npt.NDArray[Any]) -> Numbers:
        """The values in units, rounded: int64."""
        if not self.exponent and pixels.dtype.kind in "ui":
            return pixels.astype(np.int64)
        return np.rint(np.ldexp(pixels.astype(np.float64), self.exponent)).astype(np.int64)


@dataclass(frozen=True)
class Channel:
    """Values of pixels that are averaged over objects."""

    column: str
    """Name of the measurement."""
    intensities: Intensities = Intensities()
    divisor: int = 1
    """What the mean is divided by."""


def measure_block(
    identities: Identities,
    classes: Classes,
    values: Sequence[npt.NDArray[Any]],
    channels: Sequence[Channel],
    plane: int,
    window: Window,
) -> Rows:
    """One row for each object with a pixel in the block, by identity: (objects, columns).

    Args:
        identities: of the block with `BORDER` more pixels on each side; 0 beyond the image.
        classes: of the block.
        values: of the pixels of the block, (y, x) for each channel.
        channels: what these are.
        plane: which one the block lies in.
        window: of the block.
    """
    inner = identities[BORDER:-BORDER, BORDER:-BORDER]
    inside = np.flatnonzero(inner)
    found, firsts, position = np.unique(
        inner.ravel()[inside], return_index=True, return_inverse=True
    )
    y, x = np.divmod(inside, window.width)

    def add_up(values: Numbers) -> Numbers:
        return np.bincount(position, values, len(found)).astype(np.int64)

    rows = np.zeros((len(found), len(COLUMNS) + len(channels)), np.int64)
    kinds = _rim_kinds(identities).ravel()[inside]
    lows, highs = np.full(len(found), window.width), np.zeros(len(found), np.int64)
    np.minimum.at(lows, position, x)
    np.maximum.at(highs, position, x)
    last = np.zeros(len(found), np.int64)
    last[position] = y
    named: dict[str, Any] = {
        "identity": found,
        "class": classes.ravel()[inside][firsts],
        "plane": plane,
        "origin_y": window.y,
        "origin_x": window.x,
        "top": window.y + y[firsts],
        "left": window.x + lows,
        "bottom": window.y + last + 1,
        "right": window.x + highs + 1,
        "area": np.bincount(position, minlength=len(found)),
        "y": add_up(y),
        "x": add_up(x),
        "yy": add_up(y * y),
        "xy": add_up(x * y),
        "xx": add_up(x * x),
        "straight": add_up(kinds == 1),
        "diagonal": add_up(kinds == 2),
        "mixed": add_up(kinds == 3),
    }
    for name, numbers in named.items():
        rows[:, _AT[name]] = numbers
    for number, (channel, pixels) in enumerate(zip(channels, values, strict=True)):
        whole = channel.intensities.whole(pixels.ravel()[inside])
        # In two parts, each of which a float64 adds up exactly.
        total = add_up(whole & (2**_LOW_BITS - 1)) + (add_up(whole >> _LOW_BITS) << _LOW_BITS)
        rows[:, len(COLUMNS) + number] = total
    return rows


def _rim_kinds(identities: Identities) -> npt.NDArray[np.uint8]:
    """How the rim goes on at each pixel of the block: 1 straight, 2 diagonal, 3 mixed, 0 no rim."""
    height, width = (size - 2 for size in identities.shape)
    centre = identities[1:-1, 1:-1]

    def moved(pixels: npt.NDArray[Any], dy: int, dx: int) -> npt.NDArray[Any]:
        rows, columns = pixels.shape
        return pixels[1 + dy : rows - 1 + dy, 1 + dx : columns - 1 + dx]

    within = np.ones((height, width), bool)
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        within &= moved(identities, dy, dx) == centre
    rim = np.where(within, 0, centre)
    own = rim[1:-1, 1:-1]
    total = np.ones(own.shape, np.uint8)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy or dx:
                same = moved(rim, dy, dx) == own
                total += same * np.uint8(10 if dy and dx else 2)
    return np.where(own > 0, _KINDS[total], 0).astype(np.uint8)


@dataclass(frozen=True)
class Measurements:
    """Of some objects, rounded; by column."""

    columns: dict[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["identity"])


def combine(rows: Rows, channels: Sequence[Channel], pixel_area: float | None) -> Measurements:
    """The measurements of objects, from all their rows in any order.

    Args:
        rows: (n, columns).
        channels: in the order of the rows' last columns.
        pixel_area: square micrometres of a pixel; None if unknown.
    """
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    identities, begins = np.unique(rows[:, 0], return_index=True)
    if not len(identities):
        rows, begins = np.zeros((0, rows.shape[1]), np.int64), np.zeros(0, np.int64)

    def reduced(name: str, how: np.ufunc) -> Numbers:
        values = rows[:, _AT[name]]
        return how.reduceat(values, begins) if len(begins) else values

    top, left = reduced("top", np.minimum), reduced("left", np.minimum)
    area, y, x, yy, xy, xx = _moments(rows, begins, top, left)
    a, b, c = (area * yy - y * y, area * xx - x * x, area * xy - x * y)
    straight, diagonal, mixed = (reduced(name, np.add) for name in _SUMS[-3:])
    columns: dict[str, npt.NDArray[Any]] = {
        "identity": identities.astype(np.int32),
        "class": reduced("class", np.minimum).astype(np.int32),
        "plane": reduced("plane", np.minimum).astype(np.int32),
        "area_px": area.astype(np.int64),
        **({} if pixel_area is None else {"area_um2": area.astype(np.float64) * pixel_area}),
        "centroid_y": _quotient(top.astype(object) * area + y, area),
        "centroid_x": _quotient(left.astype(object) * area + x, area),
        "top": top,
        "left": left,
        "bottom": reduced("bottom", np.maximum),
        "right": reduced("right", np.maximum),
        "perimeter_px": straight + _DIAGONAL * diagonal + (1 + _DIAGONAL) / 2 * mixed,
        "eccentricity": _eccentricity(a, b, c),
    }
    for number, channel in enumerate(channels):
        total = _add_up(rows[:, len(COLUMNS) + number].astype(object), begins)
        exponent = channel.intensities.exponent
        unit, larger = 2 ** max(exponent, 0), 2 ** max(-exponent, 0)
        columns[channel.column] = _quotient(total * larger, area * (unit * channel.divisor))
    return Measurements(columns)


def _moments(rows: Rows, begins: Numbers, top: Numbers, left: Numbers) -> list[Any]:
    """Sums of 1, y, x, y², xy and x² of each object from its own corner: Python's integers."""
    counts = np.diff(begins, append=len(rows))
    column = {name: rows[:, _AT[name]].astype(object) for name in _SUMS[:6]}
    dy = rows[:, _AT["origin_y"]].astype(object) - np.repeat(top, counts)
    dx = rows[:, _AT["origin_x"]].astype(object) - np.repeat(left, counts)
    area, y, x = column["area"], column["y"], column["x"]
    moved = (
        area,
        y + dy * area,
        x + dx * area,
        column["yy"] + 2 * dy * y + dy * dy * area,
        column["xy"] + dy * x + dx * y + dx * dy * area,
        column["xx"] + 2 * dx * x + dx * dx * area,
    )
    return [_add_up(values, begins) for values in moved]


def _add_up(values: npt.NDArray[Any], begins: Numbers) -> npt.NDArray[Any]:
    return np.add.reduceat(values, begins) if len(begins) else values[:0]


def _quotient(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Integers divided, rounded once."""
    quotient: npt.NDArray[np.float64] = (part / whole).astype(np.float64)
    return quotient


def _eccentricity(
    a: npt.NDArray[Any], b: npt.NDArray[Any], c: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Of the ellipse whose second moments are a, b and c, times any number; 0 for a point."""
    spread = np.sqrt(((a - b) ** 2 + 4 * c * c).astype(np.float64))
    total = (a + b).astype(np.float64)
    long, short = total + spread, np.maximum(total - spread, 0)
    ratio = np.divide(short, long, out=np.ones(len(long)), where=long > 0)
    eccentricity: npt.NDArray[np.float64] = np.sqrt(1 - ratio)
    return eccentricity
