"""The bytes of a shard, encoded on the thread that asks for them.

Zarr hands each chunk to a pool of its own by way of one event loop, which takes a third as much
again as the encoding itself. The format is that of `sharding_indexed` with its default codecs
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/): the chunks, then where
each of them lies, then the CRC32C of that.
"""

from itertools import product
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
from zarr.codecs import ZstdCodec

from tilesegment.storage.importing.layout import Layout
from tilesegment.storage.importing.source import Pixels

_LEVEL = 3
_ABSENT = 2**64 - 1
"""Offset and length of a chunk that is not there: all beyond the image."""


def zarr_compressor() -> ZstdCodec:
    """What the metadata of an array says of chunks that `encoded_shard` makes."""
    return ZstdCodec(level=_LEVEL, checksum=True)


def encoded_shard(pixels: Pixels, layout: Layout, fill_value: Any) -> bytes:
    """The object that stores a block, (c, y, x), of a level.

    Args:
        pixels: of a whole block; those of one at the image's rim are fewer.
        layout: of the level, which may have chunks only.
        fill_value: of what chunks have beyond the image.
    """
    sides = layout.chunks.c, layout.chunks.y, layout.chunks.x
    shard = layout.shards.c, layout.shards.y, layout.shards.x
    codec = numcodecs.Zstd(level=_LEVEL, checksum=True)
    stored = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    counts = [whole // side for whole, side in zip(shard, sides, strict=True)]
    index = np.full((*counts, 2), _ABSENT, "<u8")
    chunks: list[bytes] = []
    offset = 0
    for place in product(*map(range, counts)):
        origin = np.multiply(place, sides)
        part = stored[tuple(map(slice, origin, origin + sides))]
        if part.size == 0:
            continue
        missing = [(0, side - size) for side, size in zip(sides, part.shape, strict=True)]
        if np.any(missing):
            part = np.pad(part, missing, constant_values=fill_value)
        chunks.append(codec.encode(np.ascontiguousarray(part)))
        index[place] = offset, len(chunks[-1])
        offset += len(chunks[-1])
    if layout.is_sharded:
        checksum = google_crc32c.value(index.tobytes())
        chunks += [index.tobytes(), checksum.to_bytes(4, "little")]
    return b"".join(chunks)
