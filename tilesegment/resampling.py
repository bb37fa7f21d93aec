"""Between the pixels of a level and those that the network is shown, where they differ.

One axis of one tile::

    level     |-- halo --|=========== tile ===========|-- halo --|    read, written
                 |------|================================|------|
    network        halo          network tile              halo       shown to the network

The network's pixels are `step` pixels of the level wide, and both grids begin at the image's
corner: pixel i of the network lies around (i + 0.5) * step - 0.5 of the level. Every position,
weight and phase follows from that i, never from where a tile begins, so that all tiles see the
same pixels, bit for bit (docs/exactness.md).
"""

from dataclasses import dataclass
from math import ceil, floor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tilesegment.geometry import YX, NetworkGeometry, Spacing, round_up
from tilesegment.tiling import Window


class _Taps(NamedTuple):
    """What the resampled pixels of one axis are made of."""

    first: npt.NDArray[np.intp]
    """(n,): the first of the pixels that each is the mean of."""
    weights: npt.NDArray[np.float64]
    """(taps, n): of that pixel and those behind it; their sum is 1."""


@dataclass(frozen=True)
class Resampling:
    """A level resampled, a network applied, and its labels brought back to the level."""

    step: Spacing
    """Size of the network's pixels, in pixels of the level."""
    network: NetworkGeometry

    @property
    def geometry(self) -> NetworkGeometry:
        """The whole, as a network that is given pixels of the level.

        Beyond the network's halo it needs two alignments, because the network's tile begins and
        ends on the alignment's grid wherever the level's does, the reach of the weights, and a
        pixel of each grid for rounding.
        """
        alignment = self.network.alignment
        border = max(
            ceil((self.network.halo + 2 * alignment + 1) * step + _reach(step)) + 1
            for step in self.step
        )
        return NetworkGeometry(border, alignment, border, residue=2 * border % alignment)

    def network_tile(self, tile: int) -> YX:
        """Pixels of the network that cover a tile of the level, wherever the tile begins."""
        alignment = self.network.alignment
        enough = (ceil((tile - 1) / step) + 1 + alignment for step in self.step)
        return YX(*(round_up(size, alignment) for size in enough))

    def shown(self, pixels: npt.NDArray[Any], tile: Window) -> npt.NDArray[np.float32]:
        """The network's input for one tile.

        A pixel that is shown is the weighted mean of those around its centre, with weights
        that fall linearly to 0 at a distance of one pixel, the level's or the network's, whichever
        is larger: linear interpolation where pixels become smaller, smoothing as in Pillow's
        `BILINEAR` where they become larger.

        Args:
            pixels: (c, tile + 2 * halo, tile + 2 * halo) of the level, finite.
            tile: where the tile begins; its size does not matter.

        Returns:
            (c, network tile + 2 * network halo per axis), in units of the image.
        """
        halo = self.geometry.halo
        size = self.network_tile(pixels.shape[-1] - 2 * halo)
        rows = self._taps(self.step.y, tile.y, size.y, tile.y - halo)
        columns = self._taps(self.step.x, tile.x, size.x, tile.x - halo)
        channels = [_means(_means(channel, rows).T, columns).T for channel in pixels]
        return np.stack(channels).astype(np.float32)

    def on_level(self, labels: npt.NDArray[Any], tile: Window) -> npt.NDArray[Any]:
        """The network's labels on the level's grid: each pixel takes that around its centre.

        Args:
            labels: (..., network tile), of the tile.
            tile: what is wanted of the level.

        Returns:
            (..., tile.height, tile.width), of the same type.
        """
        rows = self._nearest(self.step.y, tile.y, tile.height)
        columns = self._nearest(self.step.x, tile.x, tile.width)
        found: npt.NDArray[Any] = labels[..., rows[:, None], columns[None, :]]
        return found

    def _taps(self, step: float, start: int, size: int, origin: int) -> _Taps:
        """Taps of a network tile with its halo, counted from the pixel `origin` of the level."""
        halo, begin = self.network.halo, self._begin(step, start)
        first, weights = _taps(begin - halo, begin + size + halo, step)
        return _Taps(first - origin, weights)

    def _begin(self, step: float, start: int) -> int:
        """The network's pixel, on the alignment's grid, with which a tile's labels begin."""
        return floor((start + 0.5) / step) // self.network.alignment * self.network.alignment

    def _nearest(self, step: float, start: int, length: int) -> npt.NDArray[np.intp]:
        """Where in the network's labels the pixels start..start + length of the level lie."""
        around: npt.NDArray[np.intp] = np.floor(
            (np.arange(start, start + length) + 0.5) / step
        ).astype(np.intp)
        return around - self._begin(step, start)


def _reach(step: float) -> float:
    """Distance in pixels of the level at which the weights end."""
    return max(step, 1.0)


def _taps(start: int, stop: int, step: float) -> _Taps:
    """Taps of the network's pixels start..stop, counted from the level's first pixel.

    >>> first, weights = _taps(0, 2, step=0.5)
    >>> first, weights
    (array([-1,  0]), array([[0.25, 0.75],
           [0.75, 0.25],
           [0.  , 0.  ]]))
    """
    reach = _reach(step)
    centres = (np.arange(start, stop) + 0.5) * step - 0.5
    first = np.ceil(centres - reach)
    offsets = np.arange(floor(2 * reach) + 1)
    distances = np.abs(first + offsets[:, None] - centres)
    weights = np.maximum(1 - distances / reach, 0)
    # Row by row: numpy's own sum takes another order where there is one column only.
    return _Taps(first.astype(np.intp), weights / sum(weights))


def _means(lines: npt.NDArray[Any], taps: _Taps) -> npt.NDArray[np.float64]:
    """Weighted means along the first axis, (m, k) to (n, k), added in the order of the taps."""
    means = np.zeros((len(taps.first), lines.shape[1]))
    for offset, weights in enumerate(taps.weights):
        means += weights[:, None] * lines[taps.first + offset]
    return means
