"""How a level is cut into chunks, shards and units of work, as pure arithmetic."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tilesegment.geometry import YX, round_up
from tilesegment.storage.importing.source import TCZYX, ImageInfo, Plane, Window

CHUNK_SIDE = 512
SHARD_SIDES = (2048, 1024, 512)

_BLOCK_BYTES = 32 * 2**20
"""A shard may hold this much: each thread has a few of them in memory."""
_ROWS_BYTES = 192 * 2**20
"""Rows that are decoded at once to cut blocks from; less than what `tiff.py` keeps of them."""


@dataclass(frozen=True)
class Block:
    """A unit of work: the pixels of one shard, which nobody else writes."""

    plane: Plane
    window: Window


@dataclass(frozen=True)
class Layout:
    """One level of the output."""

    shape: TCZYX
    chunks: TCZYX
    shards: TCZYX
    """Multiples of the chunks, which reach beyond the image by less than a chunk."""

    @property
    def axes(self) -> str:
        """Axes that are stored: channel, y and x always, time and z where there are several.

        >>> layout(TCZYX(1, 3, 1, 700, 300)).axes
        'cyx'
        """
        return axes_of(self.shape)

    def stored(self, numbers: TCZYX) -> tuple[int, ...]:
        """The numbers of the axes that are stored."""
        return tuple(getattr(numbers, axis) for axis in self.axes)

    @property
    def is_sharded(self) -> bool:
        return self.shards != self.chunks

    def key(self, block: Block) -> str:
        """Of the object that stores a block, in the array.

        >>> lowest = Block(Plane(0, 0), Window.at(2048, 0, 919, 2048))
        >>> layout(TCZYX(1, 3, 1, 2967, 2220)).key(lowest)
        'c/0/1/0'
        """
        y, x = block.window.origin
        place = TCZYX(block.plane.t, 0, block.plane.z, y // self.shards.y, x // self.shards.x)
        return "/".join(["c", *map(str, self.stored(place))])

    def blocks(self) -> Iterator[Block]:
        """Every pixel is in exactly one block; rows of blocks follow each other."""
        for t in range(self.shape.t):
            for z in range(self.shape.z):
                for window in self._windows():
                    yield Block(Plane(t, z), window)

    def _windows(self) -> Iterator[Window]:
        for y in range(0, self.shape.y, self.shards.y):
            for x in range(0, self.shape.x, self.shards.x):
                yield self._window(y, x)

    def _window(self, y: int, x: int) -> Window:
        height = min(self.shards.y, self.shape.y - y)
        width = min(self.shards.x, self.shape.x - x)
        return Window(YX(y, x), YX(height, width))

    def block_above(self, below: Block) -> Block:
        """The block that has a block of the level below as one of its up to four quarters.

        >>> coarse = layout(TCZYX(1, 1, 1, 3000, 2500))
        >>> fine = Block(Plane(0, 0), Window.at(4096, 2048, 1904, 2048))
        >>> coarse.block_above(fine).window
        Window(origin=YX(y=2048, x=0), size=YX(y=952, x=2048))
        """
        y = below.window.origin.y // 2 // self.shards.y * self.shards.y
        x = below.window.origin.x // 2 // self.shards.x * self.shards.x
        return Block(below.plane, self._window(y, x))

    @property
    def pixels(self) -> int:
        """Positions along all axes but the channels."""
        return math.prod(self.shape) // self.shape.c


def axes_of(shape: TCZYX) -> str:
    return "".join(
        axis for axis, size in zip(TCZYX._fields, shape, strict=True) if axis in "cyx" or size > 1
    )


def layout(shape: TCZYX, *, is_colour: bool = False, side: int = 2048) -> Layout:
    """Chunks of 512 pixels in shards of `side`, both no larger than the image needs.

    Red, green and blue share a chunk, since nobody looks at one of them; other channels have
    their own. A shard holds all channels: a tile of work writes one object.

    >>> layout(TCZYX(1, 3, 1, 2967, 2220), is_colour=True).shards
    TCZYX(t=1, c=3, z=1, y=2048, x=2048)
    >>> layout(TCZYX(1, 1, 1, 700, 300))
    Layout(shape=TCZYX(t=1, c=1, z=1, y=700, x=300), chunks=TCZYX(t=1, c=1, z=1, y=512, x=300), \
shards=TCZYX(t=1, c=1, z=1, y=1024, x=300))
    """
    chunks = TCZYX(
        t=1,
        c=shape.c if is_colour else 1,
        z=1,
        y=min(CHUNK_SIDE, shape.y),
        x=min(CHUNK_SIDE, shape.x),
    )
    shards = chunks._replace(
        c=shape.c,
        y=min(side, round_up(shape.y, chunks.y)),
        x=min(side, round_up(shape.x, chunks.x)),
    )
    return Layout(shape, chunks, shards)


def shard_side(info: ImageInfo) -> int:
    """The largest side with which blocks, and rows that are decoded for them, fit in memory."""
    pixel_bytes = info.shape.c * info.dtype.itemsize
    for side in SHARD_SIDES:
        rows_bytes = side * info.shape.x * pixel_bytes if info.decodes_whole_rows else 0
        if side * side * pixel_bytes <= _BLOCK_BYTES and rows_bytes <= _ROWS_BYTES:
            return side
    return SHARD_SIDES[-1]
