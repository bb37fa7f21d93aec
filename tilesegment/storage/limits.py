"""What is refused of an image from a stranger, before anything of its size is allocated.

Metadata is a claim: it may name a shape of 10^18, or chunks of a terabyte; and a chunk of 16 KB
may unpack to half a gigabyte. So the claims are checked when an image is opened, and each
chunk says how large it is, in its compressor's header, before it is unpacked.
"""

import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numcodecs
import zarr
from numcodecs.abc import Codec as Numcodec
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)

from tilesegment.errors import InputError
from tilesegment.storage.remote import Location, size_of

LARGEST_DOCUMENT_BYTES = 16 * 2**20
_MOST_PIXELS = 2**50
_MOST_OBJECTS = 10**7
_LARGEST_CHUNK_BYTES = 2 * 2**30
_SHARE_OF_MEMORY = 4
"""A decoded chunk may be one part in so many of this machine's memory."""
_SPARE_BYTES = 64
"""For checksums that are packed with the pixels."""

_V3_COMPRESSORS = {ZstdCodec: "zstd", BloscCodec: "blosc", GzipCodec: "gzip"}
_V3_OTHERS = (BytesCodec, Crc32cCodec, TransposeCodec)
_V2_COMPRESSORS = {"zstd", "blosc", "gzip", "zlib", "lz4"}

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK_BYTES = 128 * 2**10
_ZSTD_UNKNOWN_FACTOR = 4
"""Packed pieces without a size are counted as if each block were full; streams flush early."""


def check_document(path: Location) -> None:
    """Refuse metadata that is too large to be read, or no file: a pipe would be read for ever.

    Raises:
        InputError: if it is.
    """
    if isinstance(path, Path) and path.exists() and not path.is_file():
        raise InputError(f"{path} is damaged: metadata is a file, and this is none")
    size = size_of(path) or 0
    if size > LARGEST_DOCUMENT_BYTES:
        raise InputError(
            f"{path} has {size} bytes of metadata; at most {LARGEST_DOCUMENT_BYTES} are read"
        )


def check_array(array: zarr.Array, name: str) -> None:
    """Refuse an array that is larger than anything, or packed by a codec that is not known.

    Raises:
        InputError: with what is too large, and what is allowed.
    """
    steps = array.shards or array.chunks
    if not all(steps):
        raise InputError(f"{name} has chunks of shape {steps}; each size must be 1 or more")
    objects = prod(-(-size // step) for size, step in zip(array.shape, steps, strict=True))
    chunk_bytes = prod(steps) * array.dtype.itemsize
    largest = min(_LARGEST_CHUNK_BYTES, _memory_bytes() // _SHARE_OF_MEMORY)
    for found, allowed, what in (
        (prod(array.shape), _MOST_PIXELS, "pixels"),
        (objects, _MOST_OBJECTS, "chunks or shards"),
        (chunk_bytes, largest, "bytes in a chunk or shard"),
    ):
        if found > allowed:
            raise InputError(f"{name} claims {found} {what}; at most {allowed} are read")
    _check_codecs(array, name)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check_codecs(array: zarr.Array, name: str) -> None:
    if array.metadata.zarr_format == 2:
        compressor = array.metadata.compressor
        codecs = [] if compressor is None else [compressor.codec_id]
        unknown = [codec for codec in codecs if codec not in _V2_COMPRESSORS]
        unknown += [item.codec_id for item in array.metadata.filters or ()]
    else:
        unknown = list(_unknown(array.metadata.codecs))
    if unknown:
        raise InputError(
            f"{name} is packed with {', '.join(unknown)}; write it again with zstd, blosc, gzip or "
            "without compression"
        )


def _unknown(codecs: Iterable[Any]) -> Iterable[str]:
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            yield from _unknown((*codec.codecs, *codec.index_codecs))
        elif not isinstance(codec, (*_V3_COMPRESSORS, *_V3_OTHERS)):
            yield type(codec).__name__


def guarded(array: zarr.Array) -> zarr.Array:
    """The same array, with a look at each chunk before it is unpacked.

    Args:
        array: one that `check_array` has accepted.
    """
    metadata = array.metadata
    # Inner chunks, where there are shards: they are what is packed.
    chunk_bytes = prod(array.chunks) * array.dtype.itemsize
    if metadata.zarr_format == 3:
        metadata = replace(metadata, codecs=_guard(metadata.codecs, chunk_bytes))
    elif metadata.compressor is not None:
        compressor = _GuardedCompressor(metadata.compressor, chunk_bytes)
        metadata = replace(metadata, compressor=compressor)
    return zarr.Array(zarr.AsyncArray(metadata, array.store_path))


def _guard(codecs: Iterable[Any], chunk_bytes: int) -> tuple[Any, ...]:
    """The codecs, with a guard where the bytes come to each compressor when they are read."""
    result: list[Any] = []
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            codec = replace_inner(codec, _guard(codec.codecs, chunk_bytes))
        result.append(codec)
        kind = _V3_COMPRESSORS.get(type(codec))
        if kind is not None:
            result.append(_Guard(kind, chunk_bytes))
    return tuple(result)


def replace_inner(codec: ShardingCodec, inner: tuple[Any, ...]) -> ShardingCodec:
    """The same shards, with other codecs for the chunks in them."""
    return ShardingCodec(
        chunk_shape=codec.chunk_shape,
        codecs=inner,
        index_codecs=codec.index_codecs,
        index_location=codec.index_location,
    )


@dataclass(frozen=True)
class _Guard(BytesBytesCodec):  # type: ignore[misc]
    """Changes nothing; raises ValueError if the compressor behind it would unpack too much."""

    kind: str
    chunk_bytes: int
    is_fixed_size = True

    def compute_encoded_size(self, input_byte_length: int, _: Any) -> int:
        return input_byte_length

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        refuse_bomb(self.kind, chunk_bytes.to_bytes(), self.chunk_bytes)
        return chunk_bytes


class _GuardedCompressor(Numcodec):  # type: ignore[misc]
    """A compressor of Zarr's format 2 that looks before it unpacks."""

    codec_id = "guarded"

    def __init__(self, inner: Numcodec, chunk_bytes: int) -> None:
        self.inner, self.chunk_bytes = inner, chunk_bytes

    def encode(self, buf: Any) -> Any:
        return self.inner.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        packed = bytes(numcodecs.compat.ensure_contiguous_ndarray(buf).data)
        refuse_bomb(self.inner.codec_id, packed, self.chunk_bytes)
        return self.inner.decode(buf, out)


def refuse_bomb(kind: str, packed: bytes, chunk_bytes: int) -> None:
    """Refuse a chunk that would unpack to more than its array has room for.

    Raises:
        ValueError: if it would.
    """
    allowed = chunk_bytes + _SPARE_BYTES
    unpacked = unpacked_bytes(kind, packed, allowed)
    if unpacked > allowed:
        raise ValueError(f"it unpacks to {unpacked} bytes or more, and has {chunk_bytes}")


def unpacked_bytes(kind: str, packed: bytes, allowed: int) -> int:
    """Bytes that a packed chunk becomes; not exact where it is more than allowed.

    >>> unpacked_bytes("zstd", numcodecs.Zstd().encode(bytes(1000)), 2000)
    1000
    >>> unpacked_bytes("gzip", numcodecs.GZip().encode(bytes(5000)), 2000)
    2001
    """
    if kind == "zstd":
        return _zstd_bytes(packed, allowed)
    if kind == "blosc":
        return int(struct.unpack_from("<I", packed.ljust(8, b"\0"), 4)[0])
    if kind == "lz4":
        return int(struct.unpack_from("<I", packed.ljust(4, b"\0"))[0])
    # Both have no size that can be trusted: unpack, but no further than allowed.
    stream = zlib.decompressobj(wbits=47)
    try:
        return len(stream.decompress(packed, allowed + 1))
    except zlib.error as error:
        raise ValueError(str(error)) from error


def _zstd_bytes(packed: bytes, allowed: int) -> int:
    """By the frame's header; RFC 8878, section 3.1.1.1."""
    if len(packed) < 6 or packed[:4] != _ZSTD_MAGIC:
        raise ValueError("it is not zstd")
    descriptor = packed[4]
    size_flag, single_segment = descriptor >> 6, descriptor >> 5 & 1
    start = 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3]
    length = (1 if single_segment else 0, 2, 4, 8)[size_flag]
    if length:
        size = int.from_bytes(packed[start : start + length], "little")
        return size + 256 if length == 2 else size
    most = _zstd_blocks_bytes(packed, start)
    return 0 if most <= _ZSTD_UNKNOWN_FACTOR * (allowed + _ZSTD_BLOCK_BYTES) else most


def _zstd_blocks_bytes(packed: bytes, position: int) -> int:
    """The most that the blocks of a frame can become; RFC 8878, section 3.1.1.2."""
    most = 0
    while position + 3 <= len(packed):
        header = int.from_bytes(packed[position : position + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        repeats = kind == 1
        most += _ZSTD_BLOCK_BYTES if kind == 2 else size
        position += 3 + (1 if repeats else size)
        if last:
            break
    return most
