"""A scene through import, run and export: every pixel keeps its place on the Earth."""

from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import rasterio.features
import zarr
import zarr_cm
from ome_zarr_models.v05.image_label import ImageLabel

import tilesegment as ts
from tests.pictures import random_pixels

PLACE = rasterio.Affine(0.5, 0, 733601, 0, -0.25, 3725139)


def write_scene(path: Path) -> Path:
    pixels = random_pixels((3, 600, 530), "uint8")
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=600, width=530, dtype="uint8", tiled=True,
        crs="EPSG:32616", transform=PLACE, photometric="rgb",
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


def test_known_coordinates_come_back(
    tmp_path: Path, make_model: Callable[..., Path], one_worker: str
) -> None:
    image = tmp_path / "scene.zarr"
    ts.import_image(write_scene(tmp_path / "scene.tif"), image)
    cluster = ts.ClusterOptions(kind=one_worker)
    ts.segment(image, make_model(), labels="cells", cluster=cluster)
    group = zarr.open_group(image / "labels" / "cells", mode="r")
    labels = np.asarray(group["0"])
    assert len(np.unique(labels)) == 3

    ImageLabel.from_zarr(group)
    zarr_cm.validate_all(dict(group.attrs))

    raster = ts.export_labels(image, tmp_path / "cells.tif").path
    with rasterio.open(raster) as dataset:
        assert dataset.crs == rasterio.CRS.from_epsg(32616)
        # The centre of row 8, column 4: 4.5 pixels of 0.5 m to the east of the corner, 8.5 of
        # 0.25 m to the south.
        (found,) = dataset.sample([(733603.25, 3725136.875)])
        assert found == labels[8, 4]
        np.testing.assert_array_equal(dataset.read(1), labels)

    table = geopandas.read_file(ts.export_labels(image, tmp_path / "cells.gpkg").path)
    assert table.crs == "EPSG:32616"
    shapes = zip(table.geometry, table["value"], strict=True)
    drawn = rasterio.features.rasterize(shapes, labels.shape, transform=PLACE, dtype="uint8")
    np.testing.assert_array_equal(drawn, labels)

    # Without the image, as a label image of its own would be read.
    place = ts.open_image(image / "labels" / "cells").group.attrs["spatial:transform"]
    assert place == list(PLACE)[:6]
