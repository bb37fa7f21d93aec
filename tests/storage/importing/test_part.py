"""Parts of files: rectangles, coarser levels, single bands."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile

from tests.pictures import random_pixels
from tests.storage.importing.test_geotiff import NORTH_UP, geotiff, noise
from tilesegment.errors import OptionError
from tilesegment.storage.geozarr import read_georeferencing
from tilesegment.storage.image import open_image
from tilesegment.storage.importing import Part, import_image
from tilesegment.storage.importing.pyramid import halve
from tilesegment.storage.importing.source import Window


def imported(path: Path, part: Part) -> np.ndarray:
    output = path.with_name("part.zarr")
    import_image(path, output, part=part)
    image = open_image(output)
    size = image.plane_shape(0)
    return image.pixels(0).stored(0, 0, size.y, 0, size.x)


def test_a_region_is_what_numpy_cuts_out_and_keeps_its_place(tmp_path: Path) -> None:
    pixels = noise(3, 300, 400)
    path = geotiff(tmp_path / "t.tif", pixels, tiled=True, photometric="rgb")
    cut = imported(path, Part(region=Window.at(30, 70, 211, 97)))
    np.testing.assert_array_equal(cut, pixels[:, 30:241, 70:167])
    attributes = dict(open_image(tmp_path / "part.zarr").group.attrs)
    place = read_georeferencing(attributes, "it")
    assert place is not None
    with rasterio.open(path) as dataset:
        assert place.transform[2::3] == dataset.transform @ (70, 30)


def test_a_level_is_averaged_and_has_larger_pixels(tmp_path: Path) -> None:
    pixels = noise(1, 1101, 1300)
    path = geotiff(tmp_path / "t.tif", pixels)
    np.testing.assert_array_equal(imported(path, Part(level=1)), halve(pixels))
    image = open_image(tmp_path / "part.zarr")
    assert image.pixel_size_um(0) == (1e6, 1e6)
    place = read_georeferencing(dict(image.group.attrs), "it")
    assert place is not None
    assert place.transform == tuple(NORTH_UP @ rasterio.Affine.scale(2))[:6]


def test_bands_in_the_order_asked_for(tmp_path: Path) -> None:
    pixels = noise(5, 60, 70, dtype="uint16")
    path = geotiff(tmp_path / "t.tif", pixels)
    np.testing.assert_array_equal(imported(path, Part(bands=(4, 2))), pixels[[3, 1]])
    channels = dict(open_image(tmp_path / "part.zarr").group.attrs)["ome"]["omero"]["channels"]
    assert [channel["label"] for channel in channels] == ["Channel 4", "Channel 2"]


def test_region_level_and_bands_together(tmp_path: Path) -> None:
    pixels = random_pixels((1200, 1300, 3), "uint8")
    tifffile.imwrite(tmp_path / "t.tif", pixels, photometric="rgb", tile=(64, 64))
    part = Part(Window.at(101, 7, 1033, 1011), level=1, bands=(3,))
    fine = pixels[101:1134, 7:1018].transpose(2, 0, 1)
    np.testing.assert_array_equal(imported(tmp_path / "t.tif", part), halve(fine)[2:])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Part(region=Window.at(0, 0, 31, 40)), "region of 31 x 40 pixels .* has 30 x 40"),
        (Part(region=Window.at(3, 3, 0, 5)), "region of 0 x 5 pixels"),
        (Part(level=1), "level 1 of .* does not exist: there would be 0 to 0"),
        (Part(bands=(1, 4)), r"has the bands 1 to 3 \(Red, Green, Blue\); wanted were 1, 4"),
        (Part(bands=(0,)), "wanted were 0"),
    ],
)
def test_what_is_not_there_is_one_line_and_leaves_nothing(
    part: Part, message: str, tmp_path: Path
) -> None:
    path = geotiff(tmp_path / "t.tif", noise(3, 30, 40), photometric="rgb")
    with pytest.raises(OptionError, match=message) as caught:
        import_image(path, tmp_path / "part.zarr", part=part)
    assert "\n" not in str(caught.value)
    assert [item.name for item in tmp_path.iterdir()] == ["t.tif"]
