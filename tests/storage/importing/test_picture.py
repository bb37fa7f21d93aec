"""PNG and JPEG, against Pillow."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tilesegment.errors import InputError
from tilesegment.geometry import YX
from tilesegment.storage.importing.picture import PictureSource
from tilesegment.storage.importing.source import Plane, Window

RANDOM = np.random.default_rng(11)


def whole(path: Path) -> np.ndarray:
    source = PictureSource(path)
    return source.read(Plane(0, 0), Window(YX(0, 0), YX(*source.info.shape[-2:])))


@pytest.mark.parametrize(
    ("shape", "dtype", "suffix"),
    [
        ((17, 23), "uint8", ".png"),
        ((17, 23), "uint16", ".png"),
        ((17, 23, 3), "uint8", ".png"),
        ((17, 23), "uint8", ".jpg"),
        ((17, 23, 3), "uint8", ".jpg"),
    ],
)
def test_pixels_are_those_of_pillow(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, suffix: str
) -> None:
    path = (tmp_path / "picture").with_suffix(suffix)
    Image.fromarray(RANDOM.integers(0, np.iinfo(dtype).max, shape, dtype)).save(path)
    expected = np.atleast_3d(np.asarray(Image.open(path))).transpose(2, 0, 1)
    np.testing.assert_array_equal(whole(path), expected)
    assert whole(path).dtype == dtype
    assert PictureSource(path).info.is_colour == (len(shape) == 3)


def test_a_window_is_that_part_of_the_picture(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 255, (17, 23, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    read = PictureSource(tmp_path / "p.png").read(Plane(0, 0), Window(YX(3, 5), YX(7, 11)))
    np.testing.assert_array_equal(read, pixels[3:10, 5:16].transpose(2, 0, 1))


@pytest.mark.parametrize("channels", [2, 4])
def test_opaque_alpha_is_dropped(tmp_path: Path, channels: int) -> None:
    pixels = RANDOM.integers(0, 255, (17, 23, channels), np.uint8)
    pixels[..., -1] = 255
    Image.fromarray(pixels).save(tmp_path / "p.png")
    np.testing.assert_array_equal(whole(tmp_path / "p.png"), pixels[..., :-1].transpose(2, 0, 1))


def test_transparent_pixels_are_shown_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 0] = 100
    pixels[0, :, 3] = (0, 51, 255)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    # a fifth of (100, 0, 0) and four fifths of white
    assert whole(tmp_path / "p.png")[:, 0].T.tolist() == [
        [255, 255, 255],
        [224, 204, 204],
        [100, 0, 0],
    ]


def test_palette_and_cmyk_become_colour(tmp_path: Path) -> None:
    picture = Image.fromarray(RANDOM.integers(0, 255, (17, 23, 3), np.uint8))
    palette = picture.quantize(16)
    palette.save(tmp_path / "p.png")
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(whole(tmp_path / "p.png"), expected)
    picture.convert("CMYK").save(tmp_path / "c.jpg")
    assert len(whole(tmp_path / "c.jpg")) == 3


def test_real_pictures(shared: Path) -> None:
    path = next((shared / "nuclei/train").rglob("*he*.png"), None)
    if path is None:
        pytest.skip("no such picture in the shared data")
    expected = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(whole(path), expected)


def test_pixel_size_from_dots_per_inch_only_if_a_scanner_wrote_them(tmp_path: Path) -> None:
    picture = Image.fromarray(np.zeros((5, 5), np.uint8))
    picture.save(tmp_path / "scan.png", dpi=(50800, 50800))
    picture.save(tmp_path / "screen.png", dpi=(72, 72))
    size = PictureSource(tmp_path / "scan.png").info.pixel_size
    assert size is not None
    assert (size.y, size.x) == pytest.approx((0.5, 0.5), rel=1e-3)
    assert PictureSource(tmp_path / "screen.png").info.pixel_size is None


def test_colours_of_16_bits_are_refused_rather_than_halved(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    path = tmp_path / "deep.png"
    path.write_bytes(imagecodecs.png_encode(np.zeros((16, 16, 3), np.uint16)))
    with pytest.raises(InputError, match="16 bits per colour"):
        PictureSource(path)


def test_bilevel_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 5), bool)).save(tmp_path / "p.png")
    with pytest.raises(InputError, match="bool"):
        PictureSource(tmp_path / "p.png")


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(tmp_path / "p.png")
    monkeypatch.setattr("tilesegment.storage.importing.source.LARGEST_DECODE_BYTES", 2499)
    with pytest.raises(InputError, match="tiled TIFF"):
        PictureSource(tmp_path / "p.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="tiled TIFF"):
        PictureSource(tmp_path / "p.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_cut_at_any_place_is_refused(tmp_path: Path, suffix: str) -> None:
    path = (tmp_path / "p").with_suffix(suffix)
    Image.fromarray(RANDOM.integers(0, 255, (17, 23, 3), np.uint8)).save(path)
    stored = path.read_bytes()
    for size in range(10, len(stored) - 30, len(stored) // 15):
        path.write_bytes(stored[:size])
        with pytest.raises(InputError, match="cut short"):
            PictureSource(path)
