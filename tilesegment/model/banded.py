"""The U-Net with the large maps of its expansive path in bands of rows, for inference on a CPU.

That is where most features live at once: those skipped, those from below, both joined, and what
two convolutions make of them. A band is computed with the rows above and below that its
convolutions see, so that it holds the same bits as in the whole map.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tilesegment.model.unet import UNet, crop_to

_LARGE_BYTES = 3 * 2**26
"""Of a map of one level; smaller ones are computed at once, which is a few per cent faster."""
_BAND_BYTES = 2**24
"""Of the map's part that is a band."""
_REACH = 2
"""Rows above and below a row on which it depends after two 3x3 convolutions."""


@dataclass(frozen=True)
class _Band:
    """Some rows of what two convolutions give."""

    start: int
    stop: int
    first: int
    """First row of the map that they are computed from, and the row behind the last one."""
    last: int
    above: int = 0
    """Rows that two padded convolutions give above the band."""

    def of(self, rows: Tensor) -> Tensor:
        """What belongs to the band, of the rows that were computed."""
        return rows[:, :, self.above : self.above + self.stop - self.start]


class BandedUNet(nn.Module):
    """The same network, in bands where its maps are large.

    Args:
        network: fused or quantised.
        large_bytes: of a map, from which on it is computed in bands.
        band_bytes: of the map's part that is a band.
    """

    def __init__(
        self, network: UNet, large_bytes: int = _LARGE_BYTES, band_bytes: int = _BAND_BYTES
    ) -> None:
        super().__init__()
        self.network = network
        self.large_bytes, self.band_bytes = large_bytes, band_bytes
        self.is_padded = network.arguments["padding"] == "same"
        # Rows on each side that upsampling depends on, before it.
        self.around = 1 if network.arguments["upsampling"] == "interpolate" else 0

    def forward(self, image: Tensor) -> Tensor:
        """Logits: (n, channels, h, w), channels last, to (n, classes, h', w')."""
        network, skipped = self.network, []
        features: Tensor = network.contracting[0](image)
        for level in range(len(network.up)):
            skipped.append(features)
            features = network.contracting[level + 1](network.pool(features))
        for level in reversed(range(len(network.up))):
            features = self._expand(level, features, skipped.pop())
        return features

    def _expand(self, level: int, below: Tensor, skip: Tensor) -> Tensor:
        """The features of a level on the way up; of the first level the logits."""
        lost = 0 if self.is_padded else 2 * self.around
        height, width = (2 * size - lost for size in below.shape[-2:])
        skip = crop_to(skip, height, width)
        row_bytes = width * skip.shape[1] * skip.element_size()
        is_large = height * row_bytes >= self.large_bytes
        rows = max(self.band_bytes // row_bytes // 2 * 2, 2) if is_large else height
        bands = list(self._bands(height, rows))
        features: Tensor | None = None
        for band in bands:
            joined = torch.cat(
                [skip[:, :, band.first : band.last], self._up(level, below, band)], dim=1
            )
            found = band.of(self.network.expansive[level](joined))
            del joined
            if level == 0:
                found = self.network.head(found)
            if len(bands) == 1:
                return found
            if features is None:
                features = _empty_like(found, bands[-1].stop)
            features[:, :, band.start : band.stop] = found
        assert features is not None  # noqa: S101 - a map has rows
        return features

    def _up(self, level: int, below: Tensor, band: _Band) -> Tensor:
        """The rows that a band is computed from, upsampled; the first and last are even."""
        start, stop = band.first // 2, band.last // 2 + self.around
        if self.is_padded:
            start = max(start - self.around, 0)
        up: Tensor = self.network.up[level](below[:, :, start:stop])
        first = band.first - 2 * start
        return up[:, :, first : first + band.last - band.first]

    def _bands(self, height: int, rows: int) -> Iterator[_Band]:
        """Bands of what two convolutions leave of a map, each of so many rows."""
        if not self.is_padded:
            for start in range(0, height - 2 * _REACH, rows):
                stop = min(start + rows, height - 2 * _REACH)
                yield _Band(start, stop, start, stop + 2 * _REACH)
            return
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            first = max(start - _REACH, 0)
            yield _Band(start, stop, first, min(stop + _REACH, height), start - first)


def _empty_like(rows: Tensor, height: int) -> Tensor:
    """A map of this height, channels last as all maps are."""
    count, channels, _, width = rows.shape
    return rows.new_empty(count, height, width, channels).permute(0, 3, 1, 2)
