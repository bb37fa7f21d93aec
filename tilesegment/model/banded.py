"""The U-Net as it is computed: its expansive path only where wanted, and on a CPU in bands of rows.

With "same" padding the output is as large as the input, but only the tile in its middle is wanted,
without the halo. The contracting path needs the halo, the expansive path hardly: each of its levels
is computed only where the next one sees it.

Large maps of the expansive path are computed in bands. That is where most features live at once:
those skipped, those from below, both joined, and what two convolutions make of them.

What is computed is computed with the pixels around it that its convolutions see, so that it holds
the same bits as in the whole map.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tilesegment.config import LARGE_MAP_BYTES
from tilesegment.model.unet import UNet, crop_to

_BAND_BYTES = 2**24
"""Of the map's part that is a band."""
_REACH = 2
"""Pixels on each side of a pixel on which it depends after two 3x3 convolutions."""


class _Span(NamedTuple):
    """Rows or columns of a map."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def within(self, other: "_Span") -> slice:
        """Where these are in a tensor that holds the others."""
        return slice(self.start - other.start, self.stop - other.start)

    def clipped(self, size: int) -> "_Span":
        return _Span(max(self.start, 0), min(self.stop, size))


class _Area(NamedTuple):
    """A rectangle of a map."""

    rows: _Span
    columns: _Span


class BandedUNet(nn.Module):
    """The same network.

    Args:
        network: fused, quantised or folded, see `fuse`.
        margin: pixels on each side of the output that nobody wants; 0 without padding.
        large_bytes: of a map of one level, from which on it is computed in bands; smaller ones
            are a few per cent faster at once.
        band_bytes: of the map's part that is a band.
    """

    def __init__(
        self,
        network: UNet,
        margin: int = 0,
        large_bytes: int = LARGE_MAP_BYTES,
        band_bytes: int = _BAND_BYTES,
    ) -> None:
        super().__init__()
        self.network, self.margin = network, margin
        self.large_bytes, self.band_bytes = large_bytes, band_bytes
        self.is_padded = network.arguments["padding"] == "same"
        self.interpolates = network.arguments["upsampling"] == "interpolate"

    def forward(self, image: Tensor) -> Tensor:
        """(n, channels, h, w), channels last, to logits without margin, (n, classes, h', w')."""
        network, skipped = self.network, []
        features: Tensor = network.contracting[0](image)
        for level in range(len(network.up)):
            skipped.append(features)
            features = network.contracting[level + 1](network.pool(features))
        wanted = self._wanted(image)
        for level in reversed(range(len(network.up))):
            features = self._expand(level, features, skipped.pop(), wanted)
        return features

    def _wanted(self, image: Tensor) -> list[_Area]:
        """Of the features of each level; the last one's are all there.

        Empty without padding: each convolution leaves no more than is needed.
        """
        if not self.is_padded:
            return []
        height, width = image.shape[-2:]
        margin = self.margin
        areas = [_Area(_Span(margin, height - margin), _Span(margin, width - margin))]
        for _ in self.network.up[1:]:
            rows = self._below(self._around(areas[-1].rows, height)).clipped(height // 2)
            columns = self._below(self._around(areas[-1].columns, width)).clipped(width // 2)
            areas.append(_Area(rows, columns))
            height, width = height // 2, width // 2
        height, width = height // 2, width // 2
        return [*areas, _Area(_Span(0, height), _Span(0, width))]

    def _expand(self, level: int, below: Tensor, skip: Tensor, wanted: list[_Area]) -> Tensor:
        """The wanted features of a level on the way up; of the first level the logits."""
        if wanted:
            held, area = wanted[level + 1], wanted[level]
            height, width = skip.shape[-2:]
        else:
            held = _Area(*(_Span(0, size) for size in below.shape[-2:]))
            lost = 2 if self.interpolates else 0
            height, width = (2 * size - lost for size in below.shape[-2:])
            area = _Area(*(_Span(_REACH, size - _REACH) for size in (height, width)))
        skip = crop_to(skip, height, width)
        columns = self._around(area.columns, width)
        features: Tensor | None = None
        for band in self._bands(area, skip):
            rows = self._around(band, height)
            seen = _Area(rows, columns)
            joined = torch.cat([_part(skip, seen), self._up(level, below, held, seen)], dim=1)
            found = self.network.expansive[level](joined)
            del joined
            if self.is_padded:
                found = found[:, :, band.within(rows), area.columns.within(columns)]
            if level == 0:
                found = self.network.head(found)
            if band == area.rows:
                features = found
                break
            if features is None:
                features = _empty_like(found, area.rows.size)
            features[:, :, band.within(area.rows)] = found
        assert features is not None  # noqa: S101 - a map has rows
        return features

    def _up(self, level: int, below: Tensor, held: _Area, seen: _Area) -> Tensor:
        """What is seen of a level's map from below, of which `below` holds an area."""
        used = _Area(
            self._below(seen.rows).clipped(held.rows.stop),
            self._below(seen.columns).clipped(held.columns.stop),
        )
        part = below[:, :, used.rows.within(held.rows), used.columns.within(held.columns)]
        up: Tensor = self.network.up[level](part)
        rows, columns = (_Span(2 * span.start, 2 * span.stop) for span in used)
        return up[:, :, seen.rows.within(rows), seen.columns.within(columns)]

    def _around(self, span: _Span, size: int) -> _Span:
        """What two convolutions see for a span of a map of this size."""
        return _Span(span.start - _REACH, span.stop + _REACH).clipped(size)

    def _below(self, span: _Span) -> _Span:
        """What a span of a map is upsampled from."""
        start, stop = span
        if not self.interpolates:
            return _Span(start // 2, (stop + 1) // 2)
        # A convolution of three pixels follows: it sees one on each side, or two behind.
        before, behind = (1, 2) if self.is_padded else (0, 3)
        return _Span((start - before) // 2, (stop + behind) // 2)

    def _bands(self, area: _Area, like: Tensor) -> Iterator[_Span]:
        """The rows of an area, in bands if they are many bytes."""
        row_bytes = area.columns.size * like.shape[1] * like.element_size()
        rows = area.rows.size
        if rows * row_bytes >= self.large_bytes:
            rows = max(self.band_bytes // row_bytes // 2 * 2, 2)
        for start in range(area.rows.start, area.rows.stop, rows):
            yield _Span(start, min(start + rows, area.rows.stop))


def _part(features: Tensor, area: _Area) -> Tensor:
    return features[:, :, slice(*area.rows), slice(*area.columns)]


def _empty_like(rows: Tensor, height: int) -> Tensor:
    """A map of this height, channels last as all maps are."""
    count, channels, _, width = rows.shape
    return rows.new_empty(count, height, width, channels).permute(0, 3, 1, 2)
