"""The overlay picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tests.pictures import random_pixels, write_image
from tilesegment.storage.exporting.overview import _round_length, paint, write_overview
from tilesegment.storage.image import open_image
from tilesegment.storage.labels import (
    LabelLayout,
    LabelProperties,
    layout_volume,
    list_labels,
)
from tilesegment.tiling import Window

NUCLEUS = LabelProperties(1, "nucleus", (0, 158, 115))


def labelled(path: Path, side: int = 300) -> Path:
    image = write_image(path, np.full((3, side, side), 200, np.uint8))
    properties = (LabelProperties(0, "background", (0, 0, 0)), NUCLEUS)
    layout = LabelLayout("cells", "0.5", "uint8", side, side, properties, "../../")
    volume = layout_volume(open_image(image), layout, image / "labels" / "cells")
    labels = np.zeros((side, side), np.uint8)
    labels[60:120, 30:150] = 1
    volume.write(0, 0, Window(0, 0, side, side), labels)
    volume.publish({})
    list_labels(image / "labels", "cells", "0.5")
    return image


def test_classes_are_outlined_and_tinted(tmp_path: Path) -> None:
    path = write_overview(labelled(tmp_path / "i.zarr"), "cells", tmp_path / "o.png")
    picture = np.asarray(PILImage.open(path))
    assert tuple(picture[60, 90]) == NUCLEUS.colour
    assert tuple(picture[90, 90]) == tuple(round(200 + 0.2 * (c - 200)) for c in NUCLEUS.colour)
    assert tuple(picture[200, 200]) == (200, 200, 200)
    assert picture.shape[0] > 300


def test_a_large_image_is_thinned_to_the_size_asked_for(tmp_path: Path) -> None:
    path = write_overview(labelled(tmp_path / "i.zarr"), "cells", tmp_path / "o.png", largest=100)
    picture = np.asarray(PILImage.open(path))
    assert picture.shape[1] == 100
    assert tuple(picture[20, 30]) == NUCLEUS.colour


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_grey_pictures_of_other_types_are_stretched(dtype: str, tmp_path: Path) -> None:
    image = labelled(tmp_path / "i.zarr")
    write_image(tmp_path / "g.zarr", random_pixels((300, 300), dtype), "yx")
    (image / "labels").rename(tmp_path / "g.zarr" / "labels")
    path = write_overview(tmp_path / "g.zarr", "cells", tmp_path / "o.png")
    picture = np.asarray(PILImage.open(path))[:300]
    assert picture.min() == 0
    assert picture.max() == 255


def test_background_is_left_as_it_is() -> None:
    picture = np.full((4, 4, 3), 9, np.uint8)
    classes = [LabelProperties(0, "background", (255, 0, 0))]
    np.testing.assert_array_equal(paint(picture, np.zeros((4, 4), int), classes), picture)


@pytest.mark.parametrize(("length", "round_"), [(1.0, 1), (1.99, 1), (221.6, 200), (0.07, 0.05)])
def test_scale_bars_have_round_lengths(length: float, round_: float) -> None:
    assert _round_length(length) == pytest.approx(round_)


def test_labels_of_other_programs_are_shown_too(shared_data: Path, tmp_path: Path) -> None:
    plate = shared_data / "zarr" / "ez_zarr" / "example_data" / "plate_ones_mip.zarr"
    write_overview(plate / "B" / "03" / "0", "organoids", tmp_path / "o.png")
    assert (tmp_path / "o.png").stat().st_size > 1000
