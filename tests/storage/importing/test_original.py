"""Image files read as they are: every pixel and word that their import would have stored."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image as Picture

from tests.pictures import random_pixels
from tilesegment.errors import InputError
from tilesegment.storage.geozarr import read_georeferencing
from tilesegment.storage.image import Image, open_image
from tilesegment.storage.importing import import_image

PLACE = rasterio.Affine(0.5, 0, 733601, 0, -0.5, 3725139)


def a_tiled_tiff(path: Path) -> None:
    pixels = random_pixels((1031, 1201, 3), "uint8")
    tifffile.imwrite(path, pixels, tile=(128, 112), photometric="rgb", compression="deflate")


def a_stack_in_strips(path: Path) -> None:
    pixels = random_pixels((2, 3, 2, 531, 577), "uint16")
    tifffile.imwrite(
        path, pixels, ome=True, metadata={"axes": "TCZYX", "PhysicalSizeX": 0.3,
        "PhysicalSizeY": 0.4}, compression="deflate", rowsperstrip=50,
    )  # fmt: skip


def a_scene_with_nodata(path: Path) -> None:
    pixels = random_pixels((2, 1100, 577), "float32")
    pixels[:, 40:300, 100:211] = -9999.25
    with rasterio.open(
        path, "w", driver="GTiff", count=2, height=1100, width=577, dtype="float32", tiled=True,
        crs="EPSG:32616", transform=PLACE, nodata=-9999.25,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)


def a_picture(path: Path) -> None:
    Picture.fromarray(random_pixels((530, 611, 3), "uint8")).save(path, format="PNG")


def pixels_of(image: Image, level: int) -> np.ndarray:
    size = image.plane_shape(level)
    pixels = image.pixels(level)
    planes = range(image.planes(level))
    return np.stack([pixels.stored(plane, 0, size.y, 0, size.x) for plane in planes])


def assert_as_imported(path: Path, folder: Path) -> None:
    import_image(path, folder / "imported.zarr")
    original, imported = open_image(path), open_image(folder / "imported.zarr")
    assert original.is_original
    assert not imported.is_original
    assert original.axes == imported.axes
    places = [read_georeferencing(dict(image.group.attrs), "it") for image in (original, imported)]
    assert places[0] == places[1]
    assert len(original.levels) == len(imported.levels)
    for number, (ours, theirs) in enumerate(zip(original.levels, imported.levels, strict=True)):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert (ours.scale, ours.translation) == (theirs.scale, theirs.translation)
        assert original.nodata(number) == imported.nodata(number)
        np.testing.assert_array_equal(pixels_of(original, number), pixels_of(imported, number))


@pytest.mark.parametrize("make", [a_tiled_tiff, a_stack_in_strips, a_scene_with_nodata, a_picture])
def test_pixels_and_metadata_are_those_of_the_import(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "it")
    assert_as_imported(tmp_path / "it", tmp_path)


def test_a_slide_is_read_as_it_is_imported(slide: Path, tmp_path: Path) -> None:
    assert_as_imported(slide, tmp_path)


@pytest.mark.parametrize("name", ["slides/tcga-cr-7395-01a-01-ts1.svs", "geotiff/dsm.tif"])
def test_real_files_are_read_as_they_are_imported(name: str, shared: Path, tmp_path: Path) -> None:
    assert_as_imported(shared / name, tmp_path)


def test_nodata_is_known_and_left_out_of_averages(tmp_path: Path) -> None:
    a_scene_with_nodata(tmp_path / "it.tif")
    image = open_image(tmp_path / "it.tif")
    assert image.nodata(0) == image.nodata(1) == -9999.25
    coarse = pixels_of(image, 1)
    # Columns 100 to 210 hold nothing: column 105 of the coarser level has one that does.
    assert set(np.unique(coarse[0, :, 20:150, 50:105])) == {-9999.25}
    assert coarse[0, :, 20:150, 105].min() >= 0


def test_it_is_sent_to_workers_by_its_path_alone(tmp_path: Path) -> None:
    a_tiled_tiff(tmp_path / "it.tif")
    pixels = open_image(tmp_path / "it.tif").pixels(1)
    sent = pickle.dumps(pixels)
    assert len(sent) < 4000
    there = pickle.loads(sent)  # noqa: S301
    np.testing.assert_array_equal(there.stored(0, 3, 300, 7, 500), pixels.stored(0, 3, 300, 7, 500))


def test_chunks_are_tiles_of_the_file(tmp_path: Path) -> None:
    a_tiled_tiff(tmp_path / "it.tif")
    assert open_image(tmp_path / "it.tif").levels[0].chunks == (3, 256, 224)


def test_the_inventory_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "it.tif"
    a_tiled_tiff(path)
    before = open_image(path).inventory(0)
    assert open_image(path).inventory(0) == before
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    after = open_image(path).inventory(0)
    assert after.sizes != before.sizes
    assert after.times != before.times


def test_a_damaged_tile_is_an_error_where_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "it.tif"
    a_tiled_tiff(path)
    with tifffile.TiffFile(path) as tiff:
        start, length = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    pixels = open_image(path).pixels(0)
    pixels.stored(0, 512, 600, 512, 600)
    with pytest.raises(InputError, match="it.tif: the TIFF is damaged or cut short"):
        pixels.stored(0, 0, 10, 0, 10)


def test_what_is_no_image_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.tif"
    path.write_text("these are no pixels")
    with pytest.raises(InputError, match="it is no image that can be") as caught:
        open_image(path)
    assert "\n" not in str(caught.value)
