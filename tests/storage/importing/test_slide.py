"""Slides, against OpenSlide reading the same pixels."""

from pathlib import Path

import numpy as np
import openslide
import pytest

from tilesegment.errors import InputError
from tilesegment.geometry import YX
from tilesegment.storage.importing.slide import SlideSource, is_slide
from tilesegment.storage.importing.source import PixelSize, Plane, Window

FIRST = Plane(0, 0)


def test_what_is_known_of_a_real_slide(slide: Path) -> None:
    with SlideSource(slide) as source:
        assert source.info.shape == (1, 3, 1, 2967, 2220)
        assert source.info.dtype == np.uint8
        assert source.info.pixel_size == PixelSize(y=0.499, x=0.499)
        assert source.info.is_colour
        assert source.info.format == "aperio slide"


@pytest.mark.parametrize(
    "window",
    [
        Window(YX(0, 0), YX(1, 1)),
        Window(YX(239, 241), YX(331, 17)),
        Window(YX(2944, 2048), YX(23, 172)),
    ],
)
def test_a_window_is_that_of_openslide(slide: Path, window: Window) -> None:
    (y, x), (height, width) = window.origin, window.size
    with SlideSource(slide) as source, openslide.OpenSlide(slide) as plain:
        expected = plain.read_region((x, y), 0, (width, height)).convert("RGB")
        read = source.read(FIRST, window)
    np.testing.assert_array_equal(read, np.asarray(expected).transpose(2, 0, 1))


def test_a_slide_with_jpeg_2000_and_without_pixel_size(shared: Path) -> None:
    (path,) = (shared / "slides").glob("tcga-*.svs")
    window = Window(YX(1000, 2000), YX(301, 257))
    with SlideSource(path) as source, openslide.OpenSlide(path) as plain:
        assert source.info.pixel_size is None
        expected = plain.read_region((2000, 1000), 0, (257, 301)).convert("RGB")
        read = source.read(FIRST, window)
    np.testing.assert_array_equal(read, np.asarray(expected).transpose(2, 0, 1))


def test_a_slide_with_damaged_tiles_gives_one_clear_error(slide: Path, tmp_path: Path) -> None:
    stored = bytearray(slide.read_bytes())
    stored[1000:400_000] = bytes(399_000)
    damaged = tmp_path / "damaged.svs"
    damaged.write_bytes(stored)
    with SlideSource(damaged) as source, pytest.raises(InputError, match="damaged or cut short"):
        source.read(FIRST, Window(YX(0, 0), YX(2967, 2220)))


def test_plain_tiff_is_no_slide(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "t.tif", np.zeros((64, 64), np.uint8), tile=(16, 16))
    assert not is_slide(tmp_path / "t.tif")
