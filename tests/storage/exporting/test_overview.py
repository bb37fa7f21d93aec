"""The overlay picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tests.pictures import random_pixels, write_image
from tests.storage.exporting.labelled_images import CLASSES, write_labelled
from tilesegment.errors import OptionError
from tilesegment.storage.exporting.export import export_labels
from tilesegment.storage.exporting.overview import _round_length, paint
from tilesegment.storage.labels import LabelProperties

NUCLEUS = CLASSES[1]


def labelled(path: Path, side: int = 300) -> Path:
    labels = np.zeros((side, side), np.uint8)
    labels[60:120, 30:150] = 1
    return write_labelled(path, labels)


def overview(image: Path, largest: int | None = None, name: str = "o.png") -> np.ndarray:
    out = image.with_name(name)
    export_labels(image, out, largest=largest)
    return np.asarray(PILImage.open(out))


def test_classes_are_outlined_and_tinted(tmp_path: Path) -> None:
    picture = overview(labelled(tmp_path / "i.zarr"))
    assert tuple(picture[60, 90]) == NUCLEUS.colour
    assert tuple(picture[90, 90]) == tuple(round(200 + 0.2 * (c - 200)) for c in NUCLEUS.colour)
    assert tuple(picture[200, 200]) == (200, 200, 200)
    assert picture.shape[0] > 300


def test_a_large_image_is_thinned_to_the_size_asked_for(tmp_path: Path) -> None:
    picture = overview(labelled(tmp_path / "i.zarr"), largest=100)
    assert picture.shape[1] == 100
    assert tuple(picture[20, 30]) == NUCLEUS.colour


def test_a_jpeg_looks_the_same(tmp_path: Path) -> None:
    image = labelled(tmp_path / "i.zarr")
    difference = overview(image).astype(int) - overview(image, name="o.jpg")
    assert np.abs(difference).mean() < 2


def test_a_jpeg_cannot_be_of_any_size(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--largest 70000 is more than a JPEG can have"):
        overview(labelled(tmp_path / "i.zarr"), largest=70000, name="o.jpg")


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_grey_pictures_of_other_types_are_stretched(dtype: str, tmp_path: Path) -> None:
    image = labelled(tmp_path / "i.zarr")
    write_image(tmp_path / "g.zarr", random_pixels((300, 300), dtype), "yx")
    (image / "labels").rename(tmp_path / "g.zarr" / "labels")
    picture = overview(tmp_path / "g.zarr")[:300]
    assert picture.min() == 0
    assert picture.max() == 255


def test_labels_without_classes_have_colours_too(tmp_path: Path) -> None:
    labels = np.zeros((300, 300), np.uint16)
    labels[60:120, 30:150] = 777
    picture = overview(write_labelled(tmp_path / "i.zarr", labels, classes=()))
    assert tuple(picture[60, 90]) != (200, 200, 200)


def test_many_classes_take_several_lines(tmp_path: Path) -> None:
    many = tuple(LabelProperties(value, f"class {value}", (9, 9, 9)) for value in range(1, 40))
    few = overview(labelled(tmp_path / "i.zarr"))
    labels = np.zeros((300, 300), np.uint8)
    picture = overview(write_labelled(tmp_path / "m.zarr", labels, classes=many), name="m.png")
    assert picture.shape[0] > few.shape[0] + 300
    assert picture.shape[1] == 300


def test_background_is_left_as_it_is() -> None:
    picture = np.full((4, 4, 3), 9, np.uint8)
    classes = [LabelProperties(0, "background", (255, 0, 0))]
    np.testing.assert_array_equal(paint(picture, np.zeros((4, 4), int), classes), picture)


@pytest.mark.parametrize(("length", "round_"), [(1.0, 1), (1.99, 1), (221.6, 200), (0.07, 0.05)])
def test_scale_bars_have_round_lengths(length: float, round_: float) -> None:
    assert _round_length(length) == pytest.approx(round_)


def test_labels_of_other_programs_are_shown_too(shared_data: Path, tmp_path: Path) -> None:
    plate = shared_data / "zarr" / "ez_zarr" / "example_data" / "plate_ones_mip.zarr"
    export_labels(plate / "B" / "03" / "0", tmp_path / "o.png", "organoids")
    assert (tmp_path / "o.png").stat().st_size > 1000
