"""What is told of an image."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from PIL import Image as Picture

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tests.storage.importing.test_geotiff import geotiff
from tests.view.conftest import write_labels
from tilesegment.errors import OptionError
from tilesegment.storage.labels import LabelProperties
from tilesegment.usecases.describe import describe_image, draw_thumbnail

CLASSES = [LabelProperties(0, "ground", (0, 0, 0)), LabelProperties(7, "roof", (9, 9, 9))]


def test_everything_of_an_image_with_labels(tmp_path: Path) -> None:
    path = write_image(
        tmp_path / "i.zarr", random_pixels((2, 96, 128), "uint16"), chunks=(1, 32, 32),
        shards=(1, 64, 64), levels=2,
    )  # fmt: skip
    labels = np.zeros((96, 128), "uint8")
    labels[:24] = 7
    write_labels(path, "roofs", labels, CLASSES)
    facts = describe_image(path)
    assert (facts.format, facts.axes, facts.type) == ("OME-Zarr 0.5", ("c", "y", "x"), "uint16")
    assert (facts.pixel_size_um, facts.crs, facts.nodata) == ((0.5, 0.5), None, None)
    assert facts.levels[0].shape == (2, 96, 128)
    assert facts.levels[0].shards == (1, 64, 64)
    assert facts.levels[0].bytes == 2 * 2 * 96 * 128
    files = [file for level in "01" for file in (path / level).rglob("*") if file.is_file()]
    assert facts.stored_bytes == sum(file.stat().st_size for file in files)
    (found,) = facts.labels
    assert found.shares == {"ground": 0.75, "roof": 0.25}
    assert not found.exact
    json.dumps(asdict(facts))


def test_shares_are_those_that_run_has_counted(
    tmp_path: Path, make_model: Callable[..., Path], one_worker: str
) -> None:
    path = write_image(tmp_path / "i.zarr", random_pixels((3, 96, 128), "uint8"))
    summary = ts.segment(path, make_model(), cluster=ts.ClusterOptions(kind=one_worker))
    (found,) = describe_image(path).labels
    assert found.exact
    assert found.shares == summary.shares


def test_a_damaged_label_image_does_not_hide_the_rest(tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", random_pixels((3, 96, 128), "uint8"))
    write_labels(path, "roofs", np.zeros((96, 128), "uint8"), CLASSES)
    zarr.open_group(path / "labels/roofs").attrs["ome"] = {"version": "0.5"}
    (found,) = describe_image(path).labels
    assert found.fault is not None
    assert "without OME-Zarr metadata" in found.fault


def test_a_scene_that_was_not_imported(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "t.tif", random_pixels((4, 90, 70), "uint16"), nodata=3)
    facts = describe_image(path)
    assert facts.format == "GeoTIFF, not imported"
    assert (facts.crs, facts.nodata, facts.stored_bytes) == ("EPSG:32616", 3, path.stat().st_size)
    with rasterio.open(path) as dataset:
        assert facts.affine == tuple(dataset.transform)[:6]


def test_a_thumbnail_shows_the_image_and_not_what_holds_nothing(tmp_path: Path) -> None:
    pixels = np.tile(np.linspace(5, 6, 80, dtype="float32"), (1, 60, 1))
    pixels[:, :, :20] = -9999
    path = geotiff(tmp_path / "t.tif", pixels, nodata=-9999)
    draw_thumbnail(path, tmp_path / "t.png", 40)
    drawn = np.asarray(Picture.open(tmp_path / "t.png"))
    assert drawn.shape == (30, 40, 3)
    assert (drawn[:, :10] == 0).all()
    assert (np.diff(drawn[7, 11:, 0].astype(int)) > 0).sum() > 25
    with pytest.raises(OptionError, match=r"a thumbnail is a \.png or \.jpg"):
        draw_thumbnail(path, tmp_path / "t.tif", 40)
