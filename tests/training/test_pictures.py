from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tilesegment.errors import InputError
from tilesegment.training.pictures import find_pairs, read_image, read_label

SHARED = Path(__file__).parents[3] / "shared" / "data"
GREY = np.arange(7 * 11, dtype=np.uint8).reshape(7, 11)
COLOUR = np.stack([GREY, GREY + 60, GREY + 120], axis=-1)


def save(pixels, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_pairs_are_found_beside_each_other_and_in_folders_below(tmp_path):
    for place in ("scene1", "scene2"):
        save(COLOUR, tmp_path / place / "images" / "part.jpg")
        save(GREY, tmp_path / place / "masks" / "part.png")
    assert [pair.name for pair in find_pairs(tmp_path)] == ["scene1/part", "scene2/part"]


def test_pairs_are_found_by_the_ending_of_their_names(tmp_path):
    save(COLOUR, tmp_path / "a.png")
    save(GREY, tmp_path / "a_instances.png")
    (pair,) = find_pairs(tmp_path)
    assert (pair.name, pair.image.name, pair.instances) == ("a", "a.png", True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no pictures with labels"),
        (["images/a.png"], "has pictures but no labels"),
        (["images/a.png", "images/b.png", "labels/a.png"], "b.png has no partner"),
        (["images/a.png", "labels/a.png", "labels/c.png"], "c.png has no partner"),
        (["a.png", "a_labels.png", "b.png"], "b.png has no partner"),
    ],
)
def test_what_lacks_its_partner_is_named(tmp_path, files, message):
    for name in files:
        save(GREY, tmp_path / name)
    with pytest.raises(InputError, match=message):
        find_pairs(tmp_path)


@pytest.mark.parametrize(("folder", "count", "instances"), [
    ("nuclei/train", 117, True), ("em", 25, False), ("aerial", 54, False),
])  # fmt: skip
def test_shared_data_sets_are_understood(folder, count, instances):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"{SHARED / folder} is absent")
    pairs = find_pairs(SHARED / folder)
    assert (len(pairs), pairs[0].instances) == (count, instances)


@pytest.mark.parametrize("pixels", [GREY, COLOUR, GREY.astype(np.uint16) * 700])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_images_are_read_as_channels_rows_columns(tmp_path, pixels, suffix):
    path = tmp_path / f"a{suffix}"
    tifffile.imwrite(path, pixels) if suffix == ".tif" else save(pixels, path)
    image = read_image(path)
    assert image.dtype == pixels.dtype
    expected = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path, suffix):
    for alpha in (255, 254):
        pixels = np.dstack([COLOUR, np.full(GREY.shape, alpha, np.uint8)])
        path = tmp_path / f"a{suffix}"
        if suffix == ".tif":
            tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"])
        else:
            save(pixels, path)
        if alpha == 255:
            assert read_image(path).shape == (3, 7, 11)
        else:
            with pytest.raises(InputError, match="transparent in places"):
                read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_truncated_picture_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (50, 50), np.uint8)
    tifffile.imwrite(path, noise) if suffix == ".tif" else save(noise, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cannot read .*a\."):
        read_image(path)


def test_picture_with_nan_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((5, 5), np.nan, np.float32))
    with pytest.raises(InputError, match="NaN"):
        read_image(tmp_path / "a.tif")


def test_sixteen_bit_colour_png_is_refused(tmp_path):
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0\0\0\x05" * 2 + b"\x10\x02\0\0\0"
    (tmp_path / "a.png").write_bytes(header)
    with pytest.raises(InputError, match="16-bit colour PNG"):
        read_image(tmp_path / "a.png")


def test_stack_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6, 7), np.uint8), metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match="axes ZYX"):
        read_image(tmp_path / "a.tif")


def test_colours_of_labels_become_numbers_also_from_a_palette(tmp_path):
    colours = np.array([[[60, 16, 152], [132, 41, 246]]], np.uint8)
    palette = Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "p.png")
    save(colours, tmp_path / "c.png")
    np.testing.assert_array_equal(read_label(tmp_path / "c.png"), [[0x3C1098, 0x8429F6]])
    np.testing.assert_array_equal(read_label(tmp_path / "p.png"), [[0x3C1098, 0x8429F6]])


def test_grey_labels_keep_their_values(tmp_path):
    values = np.array([[0, 300, 65535]], np.uint16)
    save(values, tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), values)


def test_fractions_are_no_labels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((5, 5), 0.5, np.float32))
    with pytest.raises(InputError, match="no whole numbers"):
        read_label(tmp_path / "a.tif")
