"""GeoTIFF, read back by rasterio."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.enums
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from tests.storage.exporting.labelled_images import CLASSES, SCENE, blobs, write_labelled
from tilesegment.errors import InputError, OptionError, OutputError
from tilesegment.storage.exporting import export_labels
from tilesegment.storage.geozarr import Affine, Georeferencing


def test_labels_place_colours_and_names(tmp_path: Path) -> None:
    labels = blobs(1100, 1300)
    image = write_labelled(tmp_path / "i.zarr", labels, place=SCENE)
    export_labels(image, tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), labels)
        assert tuple(dataset.transform)[:6] == SCENE.transform
        assert dataset.crs == rasterio.CRS.from_epsg(32616)
        assert dataset.nodata is None
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.overviews(1) == [2, 4]
        assert [dataset.colormap(1)[item.value][:3] for item in CLASSES] == [
            item.colour for item in CLASSES
        ]
        assert dataset.tags(1)["CLASS_2"] == "stroma"
        assert dataset.descriptions == ("cells",)


def test_overviews_hold_labels_and_nothing_between(tmp_path: Path) -> None:
    labels = np.where(blobs(1100, 1300) > 0, 2, 0).astype("uint8")
    export_labels(write_labelled(tmp_path / "i.zarr", labels, place=SCENE), tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif", overview_level=0) as dataset:
        assert set(np.unique(dataset.read(1))) == {0, 2}


def test_probabilities_are_a_band_for_each_class(tmp_path: Path) -> None:
    probabilities = np.random.default_rng(0).integers(0, 256, (3, 1100, 1300), np.uint8)
    image = write_labelled(
        tmp_path / "i.zarr", blobs(1100, 1300), place=SCENE, probabilities=probabilities
    )
    export_labels(image, tmp_path / "o.tif", probabilities=True)
    with rasterio.open(tmp_path / "o.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), probabilities)
        assert tuple(dataset.transform)[:6] == SCENE.transform
        assert dataset.crs == rasterio.CRS.from_epsg(32616)
        assert dataset.descriptions == ("background", "nucleus", "stroma")
        assert dataset.scales == pytest.approx((1 / 255,) * 3)
        assert dataset.colorinterp[0] == rasterio.enums.ColorInterp.gray
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.overviews(1) == [2, 4]


def test_probabilities_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    image = write_labelled(tmp_path / "i.zarr", blobs(90, 70))
    with pytest.raises(InputError, match="has no probabilities; compute them with"):
        export_labels(image, tmp_path / "o.tif", probabilities=True)
    with pytest.raises(OptionError, match="become a GeoTIFF"):
        export_labels(image, tmp_path / "o.png", probabilities=True)
    assert not list(tmp_path.glob("o.*"))


def test_without_a_place_the_pixel_size_is_kept(tmp_path: Path) -> None:
    export_labels(write_labelled(tmp_path / "i.zarr", blobs(90, 70)), tmp_path / "o.tif")
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(tmp_path / "o.tif") as dataset:
        tags = dataset.tags()
    assert float(tags["TIFFTAG_XRESOLUTION"]) == pytest.approx(1e4 / 0.5)
    assert tags["TIFFTAG_RESOLUTIONUNIT"] == "3 (pixels/cm)"


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int32", "int64"])
def test_types_of_labels(dtype: str, tmp_path: Path) -> None:
    labels = blobs(90, 70, dtype) * np.array(20000, dtype)
    export_labels(write_labelled(tmp_path / "i.zarr", labels, place=SCENE), tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), labels)
        assert dataset.dtypes == (dtype,)


def test_a_rotated_scene_without_crs(tmp_path: Path) -> None:
    place = Georeferencing(Affine(17.3, 5, 100, 10, -8.7, 200), None)
    image = write_labelled(tmp_path / "i.zarr", blobs(90, 70), place=place)
    export_labels(image, tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as dataset:
        assert tuple(dataset.transform)[:6] == place.transform
        assert dataset.crs is None


def test_one_plane_of_several(tmp_path: Path) -> None:
    labels = np.stack([blobs(90, 70, seed=seed) for seed in range(3)])
    image = write_labelled(tmp_path / "i.zarr", labels, place=SCENE)
    export_labels(image, tmp_path / "o.tif", plane=2)
    with rasterio.open(tmp_path / "o.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), labels[2])


def test_tiles_that_gdal_did_not_write_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL itself raises nothing: tiles that are lost when a file is closed read as 0."""
    plain = rasterio.shutil.copy

    def lose(source: Path, *args: Any, **options: Any) -> None:
        with rasterio.open(source, "r+") as dataset:
            dataset.write(np.zeros((512, 512), "uint8"), 1, window=Window(512, 512, 512, 512))
        plain(source, *args, **options)

    monkeypatch.setattr(rasterio.shutil, "copy", lose)
    image = write_labelled(tmp_path / "i.zarr", blobs(1100, 1300), place=SCENE)
    with pytest.raises(OutputError, match="could not write all of it"):
        export_labels(image, tmp_path / "o.tif")
    assert [item.name for item in tmp_path.iterdir()] == ["i.zarr"]
