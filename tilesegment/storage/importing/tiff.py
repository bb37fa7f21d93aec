"""TIFF, BigTIFF, OME-TIFF and ImageJ stacks through tifffile, in windows.

tifffile reads whole pages, or windows on one thread through a Zarr store. Here tifffile finds
the pages and decodes single tiles or strips; what lies between is the arithmetic of windows::

    series axes "TZCYXS" -> page number of (t, z, c), samples S of the page -> channels
    page -> its tiles or strips -> the part of each that a window covers
"""

import logging
import math
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs  # noqa: F401  (tifffile imports it late, and would fail in the middle)
import numpy as np
import tifffile

from tilesegment.errors import InputError
from tilesegment.geometry import YX
from tilesegment.storage.importing.source import (
    TCZYX,
    ClosesItself,
    ImageInfo,
    Pixels,
    Plane,
    Window,
    channel_names,
    check_decode_bytes,
    checked_dtype,
    flatten,
    opaque_value,
)
from tilesegment.storage.importing.tiff_metadata import ome_image, stated_pixel_size

_CACHE_BYTES = 256 * 2**20
"""Decoded strips and tiles that are kept for the windows beside."""
_ALIGNED = 512
"""Tiles that divide this never straddle two windows, so none is kept."""

_DAMAGE = (ValueError, OSError, RuntimeError, LookupError)
"""What tifffile and the codecs raise over tiles and strips that are damaged."""
_DAMAGED_HEADER = (
    *_DAMAGE,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    SyntaxError,
    TypeError,
)
"""What tifffile raises over headers and OME-XML (SyntaxError) that are damaged; see the tests."""

_SAMPLE_SIDE = 64
_MOST_PARTLY_TRANSPARENT = 0.1
"""Share of pixels that are neither transparent nor opaque, beyond which alpha is no mask."""

logger = logging.getLogger(__name__)

_FORMATS = {"ome": "OME-TIFF", "imagej": "ImageJ TIFF"}
_COLOUR = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
_GREY = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
_GEOTIFF_TAGS = (33550, 33922, 34264, 34735)
"""Pixel scale, tiepoints, transformation and keys (OGC GeoTIFF 1.1, annex B)."""
_JPEG = (6, 7, 34892, 33007)
"""Compressions in which YCbCr comes out of the decoder as RGB."""


class TiffSource(ClosesItself):
    """The largest image of a TIFF; its coarser levels are left aside."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_georeferenced = False
        """Its tags say where on the Earth it lies; `geotiff.py` understands them."""
        try:
            with tifffile.TiffFile(path) as tiff:
                self._load(tiff)
        except _DAMAGED_HEADER as error:
            raise _damaged(path, error) from error

    def _load(self, tiff: tifffile.TiffFile) -> None:
        _check_page_list(tiff)
        number, series = max(
            enumerate(tiff.series), key=lambda item: math.prod(item[1].shape), default=(0, None)
        )
        if series is None:
            raise ValueError("no image in it")
        page = series.keyframe
        self._stack = _Stack.of(series, self._path)
        self._colours = _Colours.of(page, self._path)
        self._pages = _pages(series, self._stack, self._path)
        self._keep_band_that_is_called_alpha(YX(page.imagelength, page.imagewidth))
        self.info = self._describe(tiff, number, series)
        self.is_georeferenced = any(tag in page.tags for tag in _GEOTIFF_TAGS)

    def _keep_band_that_is_called_alpha(self, image: YX) -> None:
        """GDAL calls the fourth of any four bands alpha, as the near infrared of aerial images.

        Looked at in a few places: a mask is either 0 or opaque nearly everywhere.
        """
        if self._colours.alpha_is_ready is None:
            return
        alpha = np.concatenate(
            [self._pages[0].read(window)[-1].ravel() for window in _samples(image)]
        )
        partly = np.mean((alpha != 0) & (alpha != opaque_value(alpha.dtype)))
        if partly > _MOST_PARTLY_TRANSPARENT:
            logger.warning(
                "%s: its last band is called alpha but is no mask, so it is kept as a channel",
                self._path,
            )
            self._colours = replace(
                self._colours, count=self._colours.count + 1, alpha_is_ready=None
            )

    def _describe(
        self, tiff: tifffile.TiffFile, number: int, series: tifffile.TiffPageSeries
    ) -> ImageInfo:
        stack, page = self._stack, series.keyframe
        channels = stack.channels * self._colours.count
        is_colour = self._colours.count == 3 and channels == 3
        names = ome_image(tiff, number).channel_names
        if len(names) != channels:
            names = channel_names(channels, is_colour=is_colour)
        return ImageInfo(
            format=_FORMATS.get(series.kind, "TIFF"),
            shape=TCZYX(stack.times, channels, stack.sections, page.imagelength, page.imagewidth),
            dtype=checked_dtype(self._colours.dtype, self._path),
            pixel_size=stated_pixel_size(tiff, number, page),
            channel_names=names,
            is_colour=is_colour,
            decodes_whole_rows=isinstance(self._pages[0], _SegmentedPage) and not page.is_tiled,
            tile=YX(page.tilelength, page.tilewidth) if page.is_tiled else None,
        )

    def read(self, plane: Plane, window: Window) -> Pixels:
        try:
            planes = [
                self._colours.apply(self._pages[page].read(window))
                for page in self._stack.pages_of(plane)
            ]
        except _DAMAGE as error:
            raise _damaged(self._path, error) from error
        return planes[0] if len(planes) == 1 else np.concatenate(planes)


def _samples(image: YX) -> Iterator[Window]:
    """Small windows from the middle of the image and of its quarters."""
    for row, column in ((2, 2), (1, 1), (1, 3), (3, 1), (3, 3)):
        y, x = image.y * row // 4, image.x * column // 4
        yield Window(YX(y, x), YX(min(_SAMPLE_SIDE, image.y - y), min(_SAMPLE_SIDE, image.x - x)))


@dataclass(frozen=True)
class _Stack:
    """How the pages of a series make up times, sections and channels."""

    axes: str
    """Axes that count pages, slowest first: some order of T, Z and C."""
    sizes: tuple[int, ...]
    """Pages along each of them."""

    @classmethod
    def of(cls, series: tifffile.TiffPageSeries, path: Path) -> "_Stack":
        """Raises InputError for axes that mean neither time, section nor channel."""
        page_axes = series.keyframe.axes
        counted = [
            ("Z" if axis in "QI" else axis, size)
            for axis, size in zip(series.get_axes(False), series.get_shape(False), strict=True)
            if axis not in "YXS" and size > 1
        ]
        axes = "".join(axis for axis, _ in counted)
        if not set(axes) <= set("TZC") or len(set(axes)) < len(axes) or "Z" in page_axes:
            raise InputError(
                f"{path}: its axes are {series.axes}, but only time (T), section (Z), "
                "channel (C), Y, X and samples (S), in single pages, can be imported"
            )
        return cls(axes, tuple(size for _, size in counted))

    def _size(self, axis: str) -> int:
        return self.sizes[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def times(self) -> int:
        return self._size("T")

    @property
    def sections(self) -> int:
        return self._size("Z")

    @property
    def channels(self) -> int:
        return self._size("C")

    @property
    def count(self) -> int:
        return math.prod(self.sizes)

    def pages_of(self, plane: Plane) -> list[int]:
        """Numbers of the pages that hold the channels of a plane, in their order.

        >>> _Stack("TCZ", (2, 3, 5)).pages_of(Plane(t=1, z=4))
        [19, 24, 29]
        """
        return [self._number({"T": plane.t, "Z": plane.z, "C": c}) for c in range(self.channels)]

    def _number(self, position: dict[str, int]) -> int:
        number = 0
        for axis, size in zip(self.axes, self.sizes, strict=True):
            number = number * size + position[axis]
        return number


@dataclass(frozen=True)
class _Colours:
    """How the samples of a page become channels."""

    count: int
    """Channels that a page has in the end."""
    dtype: np.dtype[Any]
    """Their type."""
    palette: np.ndarray[Any, np.dtype[np.uint8]] | None
    """Colour of each value, (3, values), where the page stores indices."""
    alpha_is_ready: bool | None
    """The last sample is alpha, and the others were multiplied by it already; None: no alpha."""
    is_white_zero: bool
    """Grey that counts from white to black, and is turned round."""

    @classmethod
    def of(cls, page: tifffile.TiffPage, path: Path) -> "_Colours":
        """Raises InputError for colour spaces that are not RGB or grey."""
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
            palette = (page.colormap >> 8).astype(np.uint8)
            return cls(3, np.dtype(np.uint8), palette, None, False)
        _check_colour_space(page, path)
        # checked again with the whole description; here, since the alpha needs the type
        dtype = checked_dtype(page.dtype, path)
        base = 3 if page.photometric in _COLOUR else 1
        has_alpha = page.samplesperpixel == base + 1 and page.extrasamples[:1] in [
            (kind,) for kind in _ALPHA
        ]
        return cls(
            count=base if has_alpha else page.samplesperpixel,
            dtype=dtype,
            palette=None,
            alpha_is_ready=page.extrasamples[0] == _ALPHA[0] if has_alpha else None,
            is_white_zero=page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and dtype.kind == "u",
        )

    def apply(self, samples: Pixels) -> Pixels:
        """Samples as stored, (s, y, x), to channels, (c, y, x)."""
        if self.palette is not None:
            return self.palette[:, samples[0]]
        if self.is_white_zero:
            samples = np.invert(samples)
        if self.alpha_is_ready is None:
            return samples
        white = [opaque_value(self.dtype)] * self.count
        return flatten(samples[:-1], samples[-1], white, ready=self.alpha_is_ready)


def _check_colour_space(page: tifffile.TiffPage, path: Path) -> None:
    is_raw_ycbcr = page.photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression not in _JPEG
    if page.photometric not in _COLOUR + _GREY or is_raw_ycbcr:
        raise InputError(
            f"{path}: its colours are {tifffile.PHOTOMETRIC(page.photometric).name}, "
            "but RGB, grey or a palette are needed; convert it first (vips colourspace IN OUT srgb)"
        )


class _ContiguousPage:
    """A page that lies in the file as it would in memory."""

    def __init__(self, path: Path, page: tifffile.TiffPage, offset: int) -> None:
        separate, _, height, width, contiguous = page.shaped
        self._path, self._offset = path, offset
        self._shape = (separate, height, width, contiguous)
        self._dtype = np.dtype(page.parent.byteorder + _dtype(page).char)
        _check_inside(path, offset + page.nbytes)

    def read(self, window: Window) -> Pixels:
        """Samples of a window, (s, y, x)."""
        # Mapped anew each time: pages of a mapping that stays open count as this process's memory.
        mapped = np.memmap(self._path, self._dtype, "r", self._offset, self._shape)
        stored = mapped[:, *window.slices, :].astype(self._dtype.newbyteorder("="), copy=True)
        return _samples_first(stored)


class _SegmentedPage:
    """A page in tiles or strips, each of them compressed by itself."""

    def __init__(self, path: Path, page: Any, cache: "_SegmentCache") -> None:
        keyframe = page.keyframe
        self._path, self._cache = path, cache
        self._offsets, self._counts = page.dataoffsets, page.databytecounts
        self._grid = _SegmentGrid.of(keyframe)
        self._dtype, self._empty = _dtype(keyframe).newbyteorder("="), keyframe.nodata
        self._decode = partial(keyframe.decode, **_decode_options(page), _fullsize=False)
        if len(self._offsets) < self._grid.count or len(self._counts) < self._grid.count:
            raise ValueError(f"{len(self._offsets)} of {self._grid.count} tiles or strips")
        _check_inside(path, int(np.add(self._offsets, self._counts, dtype=np.int64).max()))

    def read(self, window: Window) -> Pixels:
        """Samples of a window, (s, y, x)."""
        grid = self._grid
        shape = (grid.separate, *window.size, grid.contiguous)
        samples = np.full(shape, self._empty, self._dtype)
        for segment in grid.covering(window):
            if self._counts[segment.number] and self._offsets[segment.number]:
                self._paste(samples, segment, window)
        return _samples_first(samples)

    def _paste(self, samples: Pixels, segment: "_Segment", window: Window) -> None:
        decoded = self._segment(segment.number)
        top = max(segment.origin.y, window.origin.y)
        left = max(segment.origin.x, window.origin.x)
        bottom = min(segment.origin.y + decoded.shape[0], window.origin.y + window.size.y)
        right = min(segment.origin.x + decoded.shape[1], window.origin.x + window.size.x)
        samples[
            segment.sample,
            top - window.origin.y : bottom - window.origin.y,
            left - window.origin.x : right - window.origin.x,
        ] = decoded[
            top - segment.origin.y : bottom - segment.origin.y,
            left - segment.origin.x : right - segment.origin.x,
        ]

    def _segment(self, number: int) -> Pixels:
        """A decoded tile or strip, (y, x, s)."""
        offset = self._offsets[number]
        return self._cache.get((self._path, offset), partial(self._decoded, number))

    def _decoded(self, number: int) -> Pixels:
        with self._path.open("rb") as file:
            file.seek(self._offsets[number])
            stored = file.read(self._counts[number])
        return np.asarray(self._decode(stored, number)[0][0])


@dataclass(frozen=True)
class _Segment:
    number: int
    sample: int
    origin: YX


@dataclass(frozen=True)
class _SegmentGrid:
    """Where the tiles or strips of a page lie."""

    image: YX
    segment: YX
    """A tile; or a strip, as wide as the image."""
    separate: int
    """Samples that have segments of their own (planar colour), or 1."""
    contiguous: int
    """Samples that lie together in a segment."""

    @classmethod
    def of(cls, page: tifffile.TiffPage) -> "_SegmentGrid":
        separate, _, height, width, contiguous = page.shaped
        if page.is_tiled:
            segment = YX(page.tilelength, page.tilewidth)
        else:
            segment = YX(min(page.rowsperstrip, height), width)
        return cls(YX(height, width), segment, separate, contiguous)

    @property
    def rows(self) -> int:
        return -(-self.image.y // self.segment.y)

    @property
    def columns(self) -> int:
        return -(-self.image.x // self.segment.x)

    @property
    def count(self) -> int:
        return self.separate * self.rows * self.columns

    def covering(self, window: Window) -> Iterator[_Segment]:
        """The segments of which a window shows a part."""
        (y, x), (height, width) = window.origin, window.size
        for sample in range(self.separate):
            for row in range(y // self.segment.y, (y + height - 1) // self.segment.y + 1):
                for column in range(x // self.segment.x, (x + width - 1) // self.segment.x + 1):
                    number = (sample * self.rows + row) * self.columns + column
                    origin = YX(row * self.segment.y, column * self.segment.x)
                    yield _Segment(number, sample, origin)


class _SegmentCache:
    """Decoded tiles or strips, the latest used, each decoded once even if two threads ask."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[object, Future[Pixels]] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def get(self, key: object, decode: Callable[[], Pixels]) -> Pixels:
        with self._lock:
            is_first = key not in self._entries
            entry = self._entries.setdefault(key, Future())
            self._entries.move_to_end(key)
        if is_first:
            self._fill(key, entry, decode)
        return entry.result()

    def _fill(self, key: object, entry: Future[Pixels], decode: Callable[[], Pixels]) -> None:
        try:
            pixels = decode()
        except BaseException as error:
            # Whoever waits for this entry must hear of it too.
            entry.set_exception(error)
            with self._lock:
                del self._entries[key]
            raise
        entry.set_result(pixels)
        with self._lock:
            self._held_bytes += pixels.nbytes
            self._evict()

    def _evict(self) -> None:
        for key, entry in list(self._entries.items()):
            if self._held_bytes <= self._budget_bytes or len(self._entries) == 1:
                return  # a single strip may be the whole image: decoding it again costs more
            if entry.done():
                del self._entries[key]
                self._held_bytes -= entry.result().nbytes


def _pages(
    series: tifffile.TiffPageSeries, stack: _Stack, path: Path
) -> list[_ContiguousPage | _SegmentedPage]:
    """The pages in the order of the stack. Raises InputError or ValueError if one is missing."""
    keyframe = series.keyframe
    if len(series) < stack.count:
        raise ValueError(f"{len(series)} of {stack.count} pages")
    if series.dataoffset is not None:
        return [
            _ContiguousPage(path, keyframe, series.dataoffset + number * keyframe.nbytes)
            for number in range(stack.count)
        ]
    check_decode_bytes(_segment_bytes(keyframe), "largest tile or strip", path)
    cache = _SegmentCache(_cache_bytes(keyframe))
    return [_page(series[number], cache) for number in range(stack.count)]


def _page(page: Any, cache: _SegmentCache) -> _ContiguousPage | _SegmentedPage:
    if page is None:
        raise ValueError("a page is missing")
    path = Path(page.parent.filehandle.path)
    if page.is_memmappable and not page.is_tiled:
        return _ContiguousPage(path, page.keyframe, page.dataoffsets[0])
    return _SegmentedPage(path, page, cache)


def _dtype(page: tifffile.TiffPage) -> np.dtype[Any]:
    """Type of the samples as stored. Raises ValueError if tifffile knows none."""
    if page.dtype is None:
        raise ValueError(f"samples of {page.bitspersample} bits")
    dtype: np.dtype[Any] = page.dtype
    return dtype


def _segment_bytes(page: tifffile.TiffPage) -> int:
    if page.is_contiguous and not page.is_tiled:
        return 0
    grid = _SegmentGrid.of(page)
    return math.prod(grid.segment) * grid.contiguous * _dtype(page).itemsize


def _cache_bytes(page: tifffile.TiffPage) -> int:
    segment = _SegmentGrid.of(page).segment
    is_aligned = page.is_tiled and not (_ALIGNED % segment.y or _ALIGNED % segment.x)
    return 0 if is_aligned else _CACHE_BYTES


def _decode_options(page: Any) -> dict[str, Any]:
    """What the decoder needs of a page beside its tiles."""
    if page.keyframe.compression not in _JPEG:
        return {}
    return {"jpegtables": page.jpegtables, "jpegheader": page.keyframe.jpegheader}


def _samples_first(stored: Pixels) -> Pixels:
    """(separate samples, y, x, contiguous samples) to (samples, y, x)."""
    separate, height, width, contiguous = stored.shape
    return stored.transpose(0, 3, 1, 2).reshape(separate * contiguous, height, width)


def _check_page_list(tiff: tifffile.TiffFile) -> None:
    """Raises ValueError if the last page that is there names another: the file is cut short.

    tifffile only logs this, and gives the pages that it found.
    """
    if not len(tiff.pages):
        raise ValueError("no page in it")
    form, file = tiff.tiff, tiff.filehandle
    file.seek(tiff.pages[-1].offset)
    (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(tags * form.tagsize, os.SEEK_CUR)
    (following,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    if following:
        raise ValueError(f"the list of pages breaks off after {len(tiff.pages)}")


def _check_inside(path: Path, end: int) -> None:
    """Raises ValueError if the pixels end behind the end of the file."""
    size = path.stat().st_size
    if end > size:
        raise ValueError(f"there are {size} of at least {end} bytes")


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(
        f"{path}: the TIFF is damaged or cut short, or tifffile cannot read this kind "
        f"({reason}); copy or export it again"
    )
