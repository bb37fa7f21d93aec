"""How much a network must see, and on which grid: the arithmetic behind seamless tiles.

One axis of one tile, for the network of the paper (depth 4, valid convolutions)::

        halo 94            tile 1024            halo 94
    |-----------|===========================|-----------|   read: 1212 = 12 (mod 16), legal
     loss 92 |---------------------------------| loss 92    network output: 1028
               2 |===========================| 2            cropped to the tile

Two conditions make the tiles equal to one pass over the whole image (docs/exactness.md):
the halo is at least the border, and every tile origin is a multiple of the alignment, so
that the pooling windows of all tiles fall on one grid.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Padding = Literal["valid", "same"]
Upsampling = Literal["transposed", "interpolate"]


class YX(NamedTuple):
    """Two numbers that belong to the axes y and x, in this order."""

    y: int
    x: int


class Spacing(NamedTuple):
    """Distance of pixel centres along y and x, in micrometres or in other pixels."""

    y: float
    x: float


@dataclass(frozen=True)
class Sides:
    """Pixels at each side of an output pixel or of a tile."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def largest(self) -> int:
        return max(self.top, self.bottom, self.left, self.right)


@dataclass(frozen=True)
class NetworkGeometry:
    """What tiling must know of a network; the same for y and x."""

    border: int
    """Pixels per side beyond its own position on which an output pixel can depend."""
    alignment: int
    """Product of all pooling strides: tile origins and sizes are multiples of it."""
    loss: int
    """Pixels per side by which the output is smaller than the input; 0 for "same" padding.
    Negative where it is larger."""
    residue: int
    """Legal input sizes are `residue` modulo `alignment`."""
    extra_loss: int = 0
    """Pixels that the output lacks at the bottom and right beyond `loss`, as networks with
    kernels of even size do."""

    @property
    def halo(self) -> int:
        """Pixels read beyond a tile, per side: the border, plus the slack that makes inputs legal.

        With "same" padding the halo is a multiple of the alignment, so that the pooling
        windows start at the image's own origin, as in one pass over the whole image.

        >>> unet_geometry(depth=4, padding="valid").halo
        94
        >>> unet_geometry(depth=4, padding="same").halo
        112
        """
        halo = max(self.border, self.loss, self.loss + self.extra_loss)
        while not self._keeps_phase(halo):
            halo += 1
        return halo

    def _keeps_phase(self, halo: int) -> bool:
        if self.loss == self.residue == 0:
            return halo % self.alignment == 0
        return self.is_legal_input(2 * halo)

    @property
    def crop(self) -> int:
        """Pixels above and left of the tile in the network's output.

        Below and right of it are `extra_loss` pixels fewer.
        """
        return self.halo - self.loss

    def is_legal_input(self, size: int) -> bool:
        """Whether every pooling of an input of `size` pixels meets an even number of them."""
        return size % self.alignment == self.residue

    def input_size(self, tile: int) -> int:
        """Pixels per axis that the network is given for a tile of `tile` pixels."""
        return tile + 2 * self.halo

    @property
    def smallest_tile(self) -> int:
        """The least multiple of the alignment that is not smaller than the halo.

        A halo must come from the direct neighbours of a tile (dask.array.overlap).
        """
        return round_up(self.halo, self.alignment) or self.alignment


def unet_geometry(
    depth: int, padding: Padding = "valid", upsampling: Upsampling = "transposed"
) -> NetworkGeometry:
    """Geometry of the U-Net of `tilesegment.model.unet` (Ronneberger et al. 2015, figure 1).

    >>> unet_geometry(depth=4)
    NetworkGeometry(border=92, alignment=16, loss=92, residue=12, extra_loss=0)
    """
    alignment = 2**depth
    if padding == "same":
        border = _receptive_radius(depth, upsampling)
        return NetworkGeometry(border, alignment, loss=0, residue=0)
    loss = _valid_loss(depth, upsampling)
    # The bottom holds n pixels after its two convolutions and received n + 4; going up the
    # contracting path each level doubles and adds the 4 of its own convolutions.
    smallest = 1
    for _ in range(depth):
        smallest = 2 * (smallest + 4)
    return NetworkGeometry(loss, alignment, loss, residue=(smallest + 4) % alignment)


def _valid_loss(depth: int, upsampling: Upsampling) -> int:
    """Pixels per side that unpadded convolutions consume: the paper's 6 * 2**depth - 4."""
    up_convolution = 1 if upsampling == "interpolate" else 0
    contracting = 2 * ((2 << depth) - 1)
    expansive = (2 + up_convolution) * ((1 << depth) - 1)
    return contracting + expansive


def _receptive_radius(depth: int, upsampling: Upsampling) -> int:
    """Largest distance at which an input pixel can reach an output pixel, over all grid phases."""
    return max(
        max(position - low, high - position)
        for position in range(2**depth)
        for low, high in [_decoder_needs(0, position, position, depth, upsampling)]
    )


def _encoder_needs(level: int, low: int, high: int) -> tuple[int, int]:
    """The image interval behind the features [low, high] of a contracting level."""
    low, high = low - 2, high + 2
    if level == 0:
        return low, high
    return _encoder_needs(level - 1, 2 * low, 2 * high + 1)


def _decoder_needs(
    level: int, low: int, high: int, depth: int, upsampling: Upsampling
) -> tuple[int, int]:
    """The image interval behind the features [low, high] of an expansive level."""
    if level == depth:
        return _encoder_needs(depth, low, high)
    low, high = low - 2, high + 2
    skipped = _encoder_needs(level, low, high)
    around = 1 if upsampling == "interpolate" else 0
    below = _decoder_needs(level + 1, (low - around) // 2, (high + around) // 2, depth, upsampling)
    return min(skipped[0], below[0]), max(skipped[1], below[1])


def round_up(size: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `size`."""
    return -(-size // multiple) * multiple


def nearest_multiples(size: int, multiple: int) -> tuple[int, int]:
    """The multiples of `multiple` just below and above `size`; the lower one is not 0.

    >>> nearest_multiples(500, 16)
    (496, 512)
    """
    below = max(size // multiple, 1) * multiple
    return below, max(round_up(size, multiple), below)
