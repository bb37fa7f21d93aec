"""From an open source to an OME-Zarr 0.5 image: blocks that are whole shards, level by level.

The image grows in a folder beside the output and is renamed when it is whole, its OME metadata
written last: a crash leaves a folder named `.partial`, never half an image.
"""

import base64
import logging
import math
import os
import shutil
import struct
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore, StorePath

from tilesegment.errors import InputError, OptionError, OutputError, StoreError
from tilesegment.geometry import YX
from tilesegment.storage import buckets
from tilesegment.storage.importing.detect import open_source
from tilesegment.storage.importing.layout import Block, Layout, layout, shard_side
from tilesegment.storage.importing.levels import LevelWriter, Put
from tilesegment.storage.importing.metadata import ValueRange, image_attributes
from tilesegment.storage.importing.part import Part, cut
from tilesegment.storage.importing.pyramid import level_sizes
from tilesegment.storage.importing.shards import zarr_compressor
from tilesegment.storage.importing.source import ImageInfo, Pixels, PixelSize, Source
from tilesegment.storage.remote import Location, NoAnswerError, RemotePath, locate

logger = logging.getLogger(__name__)

FILL_VALUE = "_FillValue"
"""Attribute of an array with the value that stands for "nothing was recorded here" (CF conventions,
section 2.5.1)."""

Result = TypeVar("Result")
ZarrArray: TypeAlias = "zarr.Array[Any]"

Progress = Callable[[int, int], None]
"""Called with the pixels done and the pixels in all, over all levels, on the caller's thread."""

_MOST_THREADS = 8
"""Each holds a few blocks of up to 32 MiB."""


@dataclass(frozen=True)
class _Seen:
    """What was met in one block."""

    values: ValueRange
    """Of the pixels as they were written."""
    holds_data: bool
    """A pixel was not nodata."""
    has_nan: bool
    """A pixel that was written is NaN."""


@dataclass(frozen=True)
class ImportSummary:
    """What an import has made."""

    path: Location
    """The image."""
    format: str
    """What the source was: "aperio slide", "OME-TIFF", "PNG"."""
    axes: str
    """Axes of `shape`: "cyx", with t and z where the source has several."""
    shape: tuple[int, ...]
    """Pixels of the finest level."""
    dtype: str
    levels: int
    pixel_size_um: PixelSize | None
    """Micrometres per pixel of the finest level; None if nobody has told."""
    crs: str | None
    """Coordinate reference system, as "EPSG:32633" or WKT 2; None for what has none."""
    bytes: int
    """Size of the image on disk."""
    seconds: float


def import_image(
    source: str | Path,
    output: str | Location,
    *,
    pixel_size_um: float | None = None,
    fill_nodata: float | None = None,
    part: Part = Part(),  # noqa: B008 - frozen
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportSummary:
    """Turn a slide, TIFF, GeoTIFF, PNG or JPEG into an OME-Zarr 0.5 image with a pyramid.

    `pixel_size_um` is the size of a pixel in micrometres, and goes before what the file says.
    `fill_nodata` is put in the place of pixels that hold nothing: NaN, and the nodata value of
    a GeoTIFF. The CRS and affine of a GeoTIFF are kept (`storage.geozarr`).
    `part` is what is imported of the source: by default all of it.
    An existing image is replaced, with its labels, if `overwrite` is given, and only once the
    new one is whole; in an object store none is replaced. Memory is bounded whatever the size
    of the image.

    Raises InputError if the source cannot be read or holds nothing but nodata, OutputError if
    the output exists or cannot be written, OptionError for a pixel size that is none, a
    value that the pixels cannot have, or a part that is not in the source. Then nothing is left
    behind.
    """
    started = time.perf_counter()
    source, output = Path(source), locate(output)
    _check_pixel_size(pixel_size_um)
    _check_output(output, overwrite)
    with open_source(source) as whole:
        opened = cut(whole, part, source)
        info = opened.info
        _check_fill(fill_nodata, info, source)
        pixel_size = _known_pixel_size(info, pixel_size_um, source)
        layouts = _layouts(info)
        with _published(output) as put:
            _write_image(opened, put, layouts, pixel_size, fill_nodata, source, progress)
    return ImportSummary(
        path=output,
        format=info.format,
        axes=layouts[0].axes,
        shape=layouts[0].stored(info.shape),
        dtype=info.dtype.name,
        levels=len(layouts),
        pixel_size_um=pixel_size,
        crs=info.georeferencing.crs if info.georeferencing else None,
        bytes=_bytes(output),
        seconds=time.perf_counter() - started,
    )


def _bytes(output: Location) -> int:
    if isinstance(output, RemotePath):
        return sum(item.size for item in output.objects())
    return sum(file.stat().st_size for file in output.rglob("*") if file.is_file())


def _check_pixel_size(pixel_size_um: float | None) -> None:
    if pixel_size_um is not None and not (math.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise OptionError(
            f"a pixel size of {pixel_size_um} um is none; give micrometres per pixel, such as 0.5"
        )


def _check_fill(fill_nodata: float | None, info: ImageInfo, source: Path) -> None:
    if fill_nodata is not None and not _is_stored_as(fill_nodata, info.dtype):
        raise OptionError(
            f"--fill-nodata {fill_nodata:g} is no value that the {info.dtype} pixels of {source} "
            "can have; give another"
        )


def _is_stored_as(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether pixels of this type can have the value."""
    if dtype.kind == "f":
        return math.isfinite(value)
    return value == round(value) and 0 <= value <= np.iinfo(dtype).max


def _check_output(output: Location, overwrite: bool) -> None:
    """Raises OutputError if the image cannot go there, before any work is done."""
    if isinstance(output, RemotePath):
        _check_is_free(output)
        return
    if not output.parent.is_dir():
        raise OutputError(f"{output}: there is no folder {output.parent}; make it first")
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise OutputError(
            f"{output}: exists already; name another output, or use --overwrite to replace it"
        )
    if not (output / "zarr.json").is_file() and not (output / ".zgroup").is_file():
        raise OutputError(
            f"{output}: exists and is no Zarr group, so it is not replaced; name another output"
        )


def _check_is_free(output: RemotePath) -> None:
    if output.is_web:
        raise OutputError(f"{output}: web servers are only read from; name an s3:// URL or a path")
    try:
        is_taken = output.is_dir()
    except NoAnswerError as error:
        raise OutputError(f"{output}: cannot be written: {error}; try again later") from error
    if is_taken:
        raise OutputError(
            f"{output}: there are objects already, which no import replaces in an object store; "
            "name another output, or delete them first"
        )


def _known_pixel_size(
    info: ImageInfo, pixel_size_um: float | None, source: Path
) -> PixelSize | None:
    """The pixel size to write, with a warning if nobody knows it."""
    if pixel_size_um is not None:
        return PixelSize(pixel_size_um, pixel_size_um, info.pixel_size and info.pixel_size.z)
    if info.pixel_size is None:
        logger.warning(
            "%s: it does not say how large a pixel is; lengths are then in pixels, not um, and "
            "no model can be matched to its scale (give the size with --pixel-size)",
            source,
        )
    return info.pixel_size


def _layouts(info: ImageInfo) -> list[Layout]:
    """The levels, finest first."""
    side = shard_side(info)
    return [
        layout(
            info.shape._replace(y=size.y, x=size.x),
            is_colour=info.is_colour,
            side=side,
        )
        for size in level_sizes(YX(info.shape.y, info.shape.x))
    ]


@contextmanager
def _published(output: Location) -> Iterator[Put]:
    """What stores the objects of the output, none of which is left if something goes wrong."""
    try:
        with _in_bucket(output) if isinstance(output, RemotePath) else _in_folder(output) as put:
            yield put
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written: {error.strerror or error}; "
            "nothing was left there, so free the disk or choose another place and start again"
        ) from error


@contextmanager
def _in_folder(output: Path) -> Iterator[Put]:
    """Into a new folder, that becomes the output if all goes well, and is removed if not."""
    folder = output.with_name(f"{output.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        folder.mkdir()
        yield partial(_put, folder)
        _replace(output, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(folder: Path, key: str, content: bytes) -> None:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@contextmanager
def _in_bucket(output: RemotePath) -> Iterator[Put]:
    """To their keys; no image is there before its last object, the metadata of the root."""
    made: list[RemotePath] = []

    def put(key: str, content: bytes) -> None:
        made.append(output / key)
        buckets.put(output / key, content)

    try:
        yield put
    except BaseException:
        # A store that has failed may refuse this too; what it had to say first is told.
        with suppress(OSError, StoreError):
            buckets.delete(made)
        raise


def _replace(output: Path, folder: Path) -> None:
    """Put a whole image in the place of the old one, if there is one."""
    if not output.exists():
        folder.rename(output)
        return
    old = folder.with_suffix(".old")
    output.rename(old)
    folder.rename(output)
    shutil.rmtree(old)


def _write_image(
    source: Source,
    put: Put,
    layouts: Sequence[Layout],
    pixel_size: PixelSize | None,
    fill_nodata: float | None,
    path: Path,
    progress: Progress | None,
) -> None:
    """Store all levels, and then the metadata that make them an image."""
    nodata = source.info.nodata
    # What is filled holds something from then on.
    stored = source.info if fill_nodata is None else replace(source.info, nodata=None)
    counter = _Counter(sum(level.pixels for level in layouts), progress)
    documents: dict[str, Any] = {}
    memory = MemoryStore(documents)
    group = zarr.create_group(memory)
    arrays = [
        create_array(StorePath(memory, str(number)), level, stored)
        for number, level in enumerate(layouts)
    ]
    levels = LevelWriter(layouts, stored.nodata, arrays[0].fill_value, put)
    seen: list[_Seen] = []

    def copy(block: Block) -> tuple[_Seen, int]:
        # Readers may give interleaved colours, on which the rest is several times slower.
        pixels = np.ascontiguousarray(source.read(block.plane, block.window))
        missing = _is_nodata(pixels, nodata)
        if fill_nodata is not None:
            pixels[missing] = fill_nodata
        found = _Seen(ValueRange.of(pixels), not missing.all(), bool(_is_nan(pixels).any()))
        return found, levels.write(block, pixels)

    def copied(result: tuple[_Seen, int]) -> None:
        found, pixels = result
        seen.append(found)
        counter.add(pixels)

    _for_each(copy, _in_order(layouts[0], source.info), copied)
    values = ValueRange.over(each.values for each in seen)
    _check_seen(seen, path)
    group.update_attributes(
        image_attributes(arrays, layouts[0].axes, pixel_size, stored, values, path.stem)
    )
    for key in sorted(documents, key="zarr.json".__eq__):  # that of the root last
        put(key, documents[key].to_bytes())


def _is_nodata(pixels: Pixels, nodata: float | None) -> NDArray[np.bool_]:
    """Which pixels hold nothing, (c, y, x), or False for all: NaN, and the nodata value."""
    missing = _is_nan(pixels)
    return missing if nodata is None else missing | (pixels == nodata)


def _is_nan(pixels: Pixels) -> NDArray[np.bool_]:
    return np.isnan(pixels) if pixels.dtype.kind == "f" else np.zeros((), bool)


def _check_seen(seen: Sequence[_Seen], path: Path) -> None:
    """Raises InputError if there is nothing but nodata; warns of NaN, which no network takes."""
    if not any(each.holds_data for each in seen):
        raise InputError(
            f"{path}: every pixel is nodata; there is nothing to segment, so check the file, and "
            "the nodata value that it states"
        )
    if any(each.has_nan for each in seen):
        logger.warning(
            "%s: some of its pixels are NaN, which no network can use; to segment it, import it "
            "with --fill-nodata VALUE",
            path,
        )


def _in_order(finest: Layout, info: ImageInfo) -> Iterable[Block]:
    """Blocks so that few of the coarser levels are begun at a time.

    Those of four go together, and four of these, as in a quadtree (Morton's order); but where
    the file is decoded in whole rows, by rows.
    """
    if info.decodes_whole_rows:
        return finest.blocks()
    return sorted(finest.blocks(), key=lambda block: (block.plane, _z_order(finest, block)))


def _z_order(finest: Layout, block: Block) -> int:
    y = block.window.origin.y // finest.shards.y
    x = block.window.origin.x // finest.shards.x
    return sum((y >> bit & 1) << 2 * bit + 1 | (x >> bit & 1) << 2 * bit for bit in range(32))


def create_array(
    place: StorePath, level: Layout, info: ImageInfo, *, compressed: bool = True
) -> ZarrArray:
    """An array for a level, with nothing in it."""
    nodata = info.nodata if info.nodata is None or _is_value(info.nodata, info.dtype) else None
    array: ZarrArray = zarr.create_array(
        place,
        shape=level.stored(level.shape),
        dtype=info.dtype,
        chunks=level.stored(level.chunks),
        shards=level.stored(level.shards) if level.is_sharded else None,
        compressors=zarr_compressor() if compressed else None,
        fill_value=0 if nodata is None else info.dtype.type(nodata),
        dimension_names=list(level.axes),
        attributes={} if nodata is None else {FILL_VALUE: _as_xarray(nodata, info.dtype)},
        # A chunk that is absent is then a lost one, and never just black.
        config={"write_empty_chunks": True},
    )
    return array


def _is_value(nodata: float, dtype: np.dtype[Any]) -> bool:
    """Whether pixels can have it: some files state what theirs cannot."""
    return _is_stored_as(nodata, dtype) or (dtype.kind == "f" and math.isnan(nodata))


def _as_xarray(nodata: float, dtype: np.dtype[Any]) -> int | str:
    """The attribute as xarray writes it for Zarr 3: floats in base64, since JSON has no NaN."""
    if dtype.kind == "f":
        return base64.b64encode(struct.pack("<d", nodata)).decode()
    return int(nodata)


class _Counter:
    """Adds up pixels and tells the caller."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, pixels: int) -> None:
        self._done += pixels
        if self._progress is not None:
            self._progress(self._done, self._total)


def _for_each(
    work: Callable[[Block], Result],
    blocks: Iterable[Block],
    finished: Callable[[Result], None],
) -> None:
    """Work on blocks with several threads; `finished` is called on this one.

    Only as many blocks as threads are under way, so memory does not grow with the image. The
    first error, or Ctrl-C, ends it; blocks under way are waited for, so that nothing is written
    to a folder that is being removed.
    """
    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    running: set[Future[Result]] = set()
    with ThreadPoolExecutor(threads, thread_name_prefix="import") as pool:
        for block in blocks:
            if len(running) == threads:
                running = _collected(running, finished)
            running.add(pool.submit(work, block))
        while running:
            running = _collected(running, finished)


def _collected(
    running: set[Future[Result]], finished: Callable[[Result], None]
) -> set[Future[Result]]:
    """Wait for at least one block and report those that are done; the others are returned."""
    done, still = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        finished(future.result())
    return still
