"""TIFF in all its kinds, against tifffile reading whole pages."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilesegment.errors import InputError
from tilesegment.geometry import YX
from tilesegment.storage.importing import tiff as tiff_module
from tilesegment.storage.importing.source import PixelSize, Plane, Window
from tilesegment.storage.importing.tiff import TiffSource

RANDOM = np.random.default_rng(7)
FIRST = Plane(0, 0)


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    if dtype == "float32":
        return RANDOM.normal(size=shape).astype(dtype)
    return RANDOM.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def write(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, pixels, **options)
    return path


def whole(source: TiffSource, plane: Plane = FIRST) -> np.ndarray:
    shape = source.info.shape
    return source.read(plane, Window(YX(0, 0), YX(shape.y, shape.x)))


LAYOUTS: dict[str, dict[str, Any]] = {
    "raw": {},
    "raw strips": {"rowsperstrip": 7},
    "bigtiff": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "lzw strips": {"compression": "lzw", "rowsperstrip": 7},
    "zlib with predictor": {"compression": "zlib", "predictor": True, "rowsperstrip": 7},
    "raw tiles": {"tile": (32, 48)},
    "zlib tiles": {"tile": (48, 32), "compression": "zlib"},
    "big-endian zstd tiles": {"tile": (16, 16), "compression": "zstd", "byteorder": ">"},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, np.ndarray]]:
    """One file for each layout and type, with its pixels as (c, y, x)."""
    folder = tmp_path_factory.mktemp("tiff")
    found = {}
    for name, options in LAYOUTS.items():
        for dtype in ("uint8", "uint16", "float32"):
            grey, colour = noise(61, 83, dtype=dtype), noise(61, 83, 3, dtype=dtype)
            planar = noise(3, 61, 83, dtype=dtype)
            if "predictor" in options and dtype == "float32":
                options = options | {"predictor": 3}
            key = f"{name} {dtype}"
            path = folder / key.replace(" ", "-")
            found[f"{key} grey"] = (
                write(path.with_suffix(".g.tif"), grey, photometric="minisblack", **options),
                grey[np.newaxis],
            )
            found[f"{key} colour"] = (
                write(path.with_suffix(".c.tif"), colour, photometric="rgb", **options),
                colour.transpose(2, 0, 1),
            )
            found[f"{key} planar"] = (
                write(
                    path.with_suffix(".p.tif"),
                    planar,
                    photometric="rgb",
                    planarconfig="separate",
                    **options,
                ),
                planar,
            )
    return found


def test_every_layout_gives_the_pixels_of_tifffile(
    files: dict[str, tuple[Path, np.ndarray]],
) -> None:
    for key, (path, pixels) in files.items():
        source = TiffSource(path)
        read = whole(source)
        np.testing.assert_array_equal(read, pixels, err_msg=key)
        assert read.dtype == source.info.dtype == pixels.dtype.newbyteorder("="), key
        assert source.info.is_colour == (len(pixels) == 3), key


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_window_is_that_part_of_the_image(
    files: dict[str, tuple[Path, np.ndarray]], data: st.DataObject
) -> None:
    path, pixels = files[data.draw(st.sampled_from(sorted(files)))]
    y, x = data.draw(st.integers(0, 60)), data.draw(st.integers(0, 82))
    size = YX(data.draw(st.integers(1, 61 - y)), data.draw(st.integers(1, 83 - x)))
    window = Window(YX(y, x), size)
    read = TiffSource(path).read(FIRST, window)
    np.testing.assert_array_equal(read, pixels[:, *window.slices])


def test_jpeg_tiles_are_those_of_tifffile(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 61 * 83 * 3).reshape(61, 83, 3).astype(np.uint8)
    path = write(
        tmp_path / "jpeg.tif", smooth, photometric="rgb", compression="jpeg", tile=(32, 48)
    )
    np.testing.assert_array_equal(whole(TiffSource(path)), tifffile.imread(path).transpose(2, 0, 1))


@pytest.mark.parametrize("axes", ["TCZYX", "TZCYX", "ZCYX", "CYX", "ZYX", "TYX", "ZCYXS"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_axes_of_an_ome_stack_are_kept(tmp_path: Path, axes: str, compression: str) -> None:
    sizes = {"T": 2, "C": 5, "Z": 3, "Y": 19, "X": 23, "S": 3}
    pixels = noise(*(sizes[axis] for axis in axes), dtype="uint16")
    path = write(
        tmp_path / "stack.ome.tif",
        pixels,
        compression=compression,
        photometric="rgb" if "S" in axes else "minisblack",
        metadata={"axes": axes},
    )
    source = TiffSource(path)
    expected = _tzcyxs(pixels, axes)
    assert source.info.shape[:3] == (
        expected.shape[0],
        expected.shape[2] * expected.shape[5],
        expected.shape[1],
    )
    for t, z in np.ndindex(*expected.shape[:2]):
        plane = expected[t, z].transpose(0, 3, 1, 2).reshape(-1, 19, 23)
        np.testing.assert_array_equal(whole(source, Plane(t, z)), plane)


def _tzcyxs(pixels: np.ndarray, axes: str) -> np.ndarray:
    """The pixels with all axes, in one order."""
    missing = [axis for axis in "TZCYXS" if axis not in axes]
    full = pixels[(...,) + (np.newaxis,) * len(missing)]
    names = axes + "".join(missing)
    return full.transpose([names.index(axis) for axis in "TZCYXS"])


def test_imagej_stack_with_its_pixel_size(tmp_path: Path) -> None:
    pixels = noise(3, 2, 19, 23, dtype="uint16")
    path = write(
        tmp_path / "imagej.tif",
        pixels,
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"axes": "ZCYX", "unit": "um", "spacing": 1.5},
    )
    source = TiffSource(path)
    assert source.info.shape == (1, 2, 3, 19, 23)
    assert source.info.pixel_size == PixelSize(y=0.5, x=0.25, z=1.5)
    np.testing.assert_array_equal(whole(source, Plane(0, 2)), pixels[2])


def test_ome_pixel_size_and_channel_names(tmp_path: Path) -> None:
    path = write(
        tmp_path / "named.ome.tif",
        noise(2, 19, 23),
        photometric="minisblack",
        metadata={
            "axes": "CYX",
            "PhysicalSizeX": 250.0,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 0.5,
            "PhysicalSizeYUnit": "µm",
            "Channel": {"Name": ["DAPI", "CD3"]},
        },
    )
    info = TiffSource(path).info
    assert info.pixel_size == PixelSize(y=0.5, x=0.25)
    assert info.channel_names == ("DAPI", "CD3")


def test_resolution_of_a_scanner_is_believed_and_that_of_a_screen_is_not(tmp_path: Path) -> None:
    scan = write(
        tmp_path / "scan.tif", noise(9, 9), resolution=(20000, 40000), resolutionunit="CENTIMETER"
    )
    screen = write(tmp_path / "screen.tif", noise(9, 9), resolution=(72, 72), resolutionunit="INCH")
    assert TiffSource(scan).info.pixel_size == PixelSize(y=0.25, x=0.5)
    assert TiffSource(screen).info.pixel_size is None


def test_coarser_levels_of_a_pyramid_are_left_aside(tmp_path: Path) -> None:
    pixels = noise(64, 64)
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, subifds=1, tile=(16, 16))
        writer.write(pixels[::2, ::2], subfiletype=1, tile=(16, 16))
    np.testing.assert_array_equal(whole(TiffSource(path)), pixels[np.newaxis])


def test_palette_becomes_colour(tmp_path: Path) -> None:
    palette = noise(3, 256, dtype="uint16")
    indices = noise(19, 23)
    path = write(tmp_path / "palette.tif", indices, photometric="palette", colormap=palette)
    source = TiffSource(path)
    np.testing.assert_array_equal(whole(source), (palette >> 8)[:, indices])
    assert source.info.is_colour


def test_grey_that_counts_from_white_is_turned_round(tmp_path: Path) -> None:
    pixels = noise(19, 23, dtype="uint16")
    path = write(tmp_path / "white.tif", pixels, photometric="miniswhite")
    np.testing.assert_array_equal(whole(TiffSource(path))[0], 65535 - pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_transparent_pixels_are_white_and_opaque_ones_unchanged(tmp_path: Path, dtype: str) -> None:
    white = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    pixels = noise(19, 23, 4, dtype=dtype)
    pixels[..., 3] = white
    pixels[:5, :, 3] = 0
    path = write(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    read = whole(TiffSource(path))
    np.testing.assert_array_equal(read[:, 5:], pixels[5:, :, :3].transpose(2, 0, 1))
    assert (read[:, :5] == white).all()


def test_fourth_band_that_is_no_alpha_is_kept(tmp_path: Path) -> None:
    pixels = noise(19, 23, 4)
    path = write(tmp_path / "nir.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    source = TiffSource(path)
    np.testing.assert_array_equal(whole(source), pixels.transpose(2, 0, 1))
    assert not source.info.is_colour
    assert len(source.info.channel_names) == 4


def test_band_that_gdal_calls_alpha_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = noise(19, 23, 4)
    path = write(tmp_path / "nir.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    source = TiffSource(path)
    np.testing.assert_array_equal(whole(source), pixels.transpose(2, 0, 1))
    assert "no mask" in caplog.text


def test_near_infrared_of_a_real_aerial_image_is_kept(shared: Path) -> None:
    (path,) = (shared / "geotiff").glob("m_4709963*.tif")
    np.testing.assert_array_equal(whole(TiffSource(path)), tifffile.imread(path).transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", ["int64", "complex64", "bool", "float64", "int16"])
def test_other_types_are_refused_by_name(tmp_path: Path, dtype: str) -> None:
    path = write(tmp_path / "t.tif", np.zeros((9, 9), dtype))
    with pytest.raises(InputError, match=f"{dtype}.*uint8, uint16 and float32"):
        TiffSource(path)


def test_other_colour_spaces_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tif", noise(9, 9, 4), photometric="separated")
    with pytest.raises(InputError, match=r"SEPARATED.*RGB"):
        TiffSource(path)


def test_a_strip_too_large_for_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilesegment.storage.importing.source.LARGEST_DECODE_BYTES", 1000)
    path = write(tmp_path / "t.tif", noise(40, 40), compression="zlib", rowsperstrip=40)
    with pytest.raises(InputError, match=r"strip.*convert it to a tiled TIFF"):
        TiffSource(path)


@pytest.mark.parametrize("layout", ["raw", "lzw strips", "zlib tiles"])
def test_a_file_cut_at_any_place_is_refused(tmp_path: Path, layout: str) -> None:
    stored = write(
        tmp_path / "t.tif", noise(61, 83), photometric="minisblack", **LAYOUTS[layout]
    ).read_bytes()
    cut = tmp_path / "cut.tif"
    for size in range(8, len(stored), len(stored) // 20):
        cut.write_bytes(stored[:size])
        with pytest.raises(InputError, match="cut short"):
            whole(TiffSource(cut))


def test_a_missing_page_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tif", noise(5, 19, 23), metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        last = tiff.pages[4].offset
    path.write_bytes(path.read_bytes()[:last])
    with pytest.raises(InputError, match="cut short"):
        TiffSource(path)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_flipped_bytes_give_pixels_or_one_clear_error(
    damaged: Path, intact: dict[str, bytes], data: st.DataObject
) -> None:
    stored = bytearray(intact[data.draw(st.sampled_from(sorted(intact)))])
    near_ends = st.integers(0, 700) | st.integers(len(stored) - 700, len(stored) - 1)
    for place in data.draw(st.lists(near_ends, min_size=1, max_size=4)):
        stored[place] = data.draw(st.integers(0, 255))
    damaged.write_bytes(stored)
    # any other error, or a warning, fails the test
    with suppress(InputError):
        TiffSource(damaged).read(FIRST, Window(YX(0, 0), YX(1, 1)))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return tmp_path_factory.mktemp("damaged") / "damaged.tif"


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("intact")
    strips = write(folder / "s.tif", noise(61, 83), compression="lzw", rowsperstrip=7)
    tiles = write(folder / "t.tif", noise(61, 83, 3), compression="zlib", tile=(16, 32))
    stack = write(folder / "o.ome.tif", noise(2, 61, 83), compression="zlib")
    return {path.name: path.read_bytes() for path in (strips, tiles, stack)}


def test_threads_decode_a_strip_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    plain = tiff_module._SegmentedPage._decoded

    def counted(self: Any, number: int) -> np.ndarray:
        decoded.append(number)
        return plain(self, number)

    monkeypatch.setattr(tiff_module._SegmentedPage, "_decoded", counted)
    pixels = noise(61, 83)
    path = write(tmp_path / "t.tif", pixels, compression="zlib", rowsperstrip=7)
    source = TiffSource(path)
    start = threading.Barrier(4)

    def read(x: int) -> np.ndarray:
        start.wait()
        return source.read(FIRST, Window(YX(0, x), YX(61, 20)))

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(read, range(0, 80, 20)))
    np.testing.assert_array_equal(np.concatenate(parts, axis=2)[0], pixels[:, :80])
    assert sorted(decoded) == list(range(9))


def test_decoded_strips_are_kept_within_a_budget() -> None:
    cache = tiff_module._SegmentCache(budget_bytes=250)
    for key in range(5):
        cache.get(key, lambda: np.zeros(100, np.uint8))
    assert list(cache._entries) == [3, 4]
    assert cache._held_bytes == 200
