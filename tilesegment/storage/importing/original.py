"""An image file, seen as the OME-Zarr image that its import would give, without importing it.

To Zarr it is a store like any other, whose metadata is made when it is opened and whose chunks
are decoded when they are asked for: level 0 by the file's reader, a coarser one from the four
chunks' worth of pixels below it, down to level 0. So every pixel is the one that the import would
have stored. The store carries nothing but the path: each process opens the file for itself.
"""

import asyncio
import hashlib
import logging
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import MemoryStore, StorePath

from tilesegment.errors import InputError
from tilesegment.geometry import YX
from tilesegment.storage.importing.detect import open_source
from tilesegment.storage.importing.layout import Layout
from tilesegment.storage.importing.metadata import ValueRange, image_attributes
from tilesegment.storage.importing.part import Halved
from tilesegment.storage.importing.pyramid import level_sizes
from tilesegment.storage.importing.source import TCZYX, ImageInfo, Plane, Source, Window
from tilesegment.storage.importing.writer import create_array
from tilesegment.storage.inventory import Inventory

_SMALLEST_CHUNK = 256
_CHUNK_WITHOUT_TILES = 512
_HASHED_BYTES = 2**20
"""Of the beginning and of the end of each file; the rest is told by its size."""
_SAMPLE_SIDE = 512
_OPENING = threading.Lock()
"""So that no two threads open one file, which may be to decode it."""


class OriginalStore(Store):  # type: ignore[misc]
    """The Zarr store behind an image file; read-only."""

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, path: Path, *, tells: bool = True) -> None:
        super().__init__(read_only=True)
        self.path = path
        self._tells = tells
        """Whether what is odd about the file is logged when it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.path,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OriginalStore) and other.path == self.path

    __hash__ = None  # type: ignore[assignment]

    @property
    def _opened(self) -> "_Opened":
        with _OPENING:
            return _open(self.path, self.path.stat().st_mtime_ns, self._tells)

    @property
    def info(self) -> ImageInfo:
        """What is known of the file."""
        return self._opened.info

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """A document of metadata, or a chunk.

        Raises:
            InputError: if the file is damaged there.
        """
        content = await asyncio.to_thread(self.content, key)
        return None if content is None else prototype.buffer.from_bytes(content)

    def content(self, key: str) -> bytes | None:
        """What is stored under a key, None if there is nothing.

        Raises:
            InputError: as `get`.
        """
        level, separator, place = key.partition("/c/")
        if separator:
            numbers = [int(number) for number in place.split("/")]
            return self._opened.chunk(int(level), numbers)
        return self._opened.documents.get(key)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Each value whole: no array of this store has shards."""
        return [await self.get(key, prototype) for key, _ in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is metadata under a key; of chunks, all are there."""
        return "/c/" in key or key in self._opened.documents

    async def set(self, key: str, value: Buffer) -> None:
        """Refused."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refused."""
        self._check_writable()

    def list(self) -> AsyncIterator[str]:
        """The documents of metadata."""
        return self.list_prefix("")

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """The documents of metadata whose keys begin so."""
        for key in self._opened.documents:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """What lies at the root."""
        for name in sorted({key.split("/")[0] for key in self._opened.documents}):
            if not prefix:
                yield name


def _unpickled(path: Path) -> OriginalStore:
    """On a worker, which need not say again what the driver has said."""
    return OriginalStore(path, tells=False)


@dataclass(frozen=True)
class _Opened:
    """A file that this process has opened, and how it is cut into chunks."""

    levels: tuple[Source, ...]
    """Each the one before, halved."""
    layouts: tuple[Layout, ...]
    name: str

    @property
    def info(self) -> ImageInfo:
        return self.levels[0].info

    @cached_property
    def documents(self) -> dict[str, bytes]:
        """The metadata that the import would write, but for chunks and display windows."""
        documents: dict[str, Any] = {}
        memory, info = MemoryStore(documents), self.info
        group = zarr.create_group(memory)
        arrays = [
            create_array(StorePath(memory, str(number)), level, info, compressed=False)
            for number, level in enumerate(self.layouts)
        ]
        group.update_attributes(
            image_attributes(
                arrays, self.layouts[0].axes, info.pixel_size, info, self._sampled(), self.name
            )
        )
        return {key: document.to_bytes() for key, document in documents.items()}

    def _sampled(self) -> ValueRange:
        """Values in the middle of the image, for the contrast at which it is first shown."""
        shape = self.info.shape
        if self.info.dtype == np.uint8:
            return ValueRange((0.0,) * shape.c, (255.0,) * shape.c)
        size = YX(min(_SAMPLE_SIDE, shape.y), min(_SAMPLE_SIDE, shape.x))
        middle = Window(YX((shape.y - size.y) // 2, (shape.x - size.x) // 2), size)
        return ValueRange.of(self.levels[0].read(Plane(shape.t // 2, shape.z // 2), middle))

    def chunk(self, level: int, numbers: list[int]) -> bytes:
        """One chunk of all channels, of full size also at the image's rim."""
        layout = self.layouts[level]
        at = dict(zip(layout.axes, numbers, strict=True))
        origin = YX(at["y"] * layout.chunks.y, at["x"] * layout.chunks.x)
        size = YX(
            min(layout.chunks.y, layout.shape.y - origin.y),
            min(layout.chunks.x, layout.shape.x - origin.x),
        )
        plane = Plane(at.get("t", 0), at.get("z", 0))
        pixels = self.levels[level].read(plane, Window(origin, size))
        missing = (layout.chunks.y - size.y, layout.chunks.x - size.x)
        if any(missing):
            pixels = np.pad(pixels, ((0, 0), (0, missing[0]), (0, missing[1])))
        return pixels.tobytes()


@lru_cache(maxsize=2)
def _open(path: Path, changed_ns: int, tells: bool) -> _Opened:
    """Open a file once per process; `changed_ns` is its time of change."""
    logger = logging.getLogger(__package__)
    logger.disabled = not tells
    try:
        source = open_source(path)
    finally:
        logger.disabled = False
    levels: list[Source] = [source]
    layouts = list(_layouts(source.info))
    for _ in layouts[1:]:
        levels.append(Halved(levels[-1]))
    return _Opened(tuple(levels), tuple(layouts), path.stem)


def _layouts(info: ImageInfo) -> Iterator[Layout]:
    """The levels that the import makes, in chunks that the file decodes at once."""
    side = YX(_CHUNK_WITHOUT_TILES, _CHUNK_WITHOUT_TILES)
    if info.tile is not None:
        side = YX(*(edge * max(1, _SMALLEST_CHUNK // edge) for edge in info.tile))
    for size in level_sizes(YX(info.shape.y, info.shape.x)):
        shape = info.shape._replace(y=size.y, x=size.x)
        chunks = TCZYX(1, shape.c, 1, min(side.y, size.y), min(side.x, size.x))
        yield Layout(shape, chunks, chunks)


def open_original(path: Path) -> zarr.Group:
    """The group of the image that the import of a file would give.

    Raises:
        InputError: if it is no image file that is known, or it is damaged.
    """
    return zarr.open_group(OriginalStore(path), mode="r", zarr_format=3, use_consolidated=False)


def take_original_inventory(path: Path) -> Inventory:
    """The files that an image consists of, by size, time, and what they begin and end with."""
    sizes, times = hashlib.sha256(), hashlib.sha256()
    files = _files_of(path)
    try:
        for file in files:
            found = file.stat()
            sizes.update(f"{file.name} {found.st_size}\n".encode() + _ends(file))
            times.update(f"{file.name} {found.st_mtime_ns}\n".encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return Inventory(len(files), sizes.hexdigest(), times.hexdigest(), ())


def _files_of(path: Path) -> list[Path]:
    """A MIRAX slide has its pixels in a folder of its name, a DICOM slide in its siblings."""
    siblings: Iterable[Path] = ()
    if path.suffix.lower() == ".mrxs":
        siblings = path.with_suffix("").glob("*")
    elif path.suffix.lower() == ".dcm":
        siblings = path.parent.glob("*.dcm")
    return sorted({path, *(file for file in siblings if file.is_file())})


def _ends(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(_HASHED_BYTES)
        file.seek(max(path.stat().st_size - _HASHED_BYTES, 0))
        return hashlib.sha256(start + file.read(_HASHED_BYTES)).digest()
