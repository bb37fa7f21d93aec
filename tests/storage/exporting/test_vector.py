"""Polygons for GIS, read back by geopandas: through GDAL, and through Parquet."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio.features

from tests.storage.exporting.labelled_images import SCENE, blobs, write_labelled
from tilesegment.errors import InputError
from tilesegment.storage.exporting import PolygonOptions, export_labels, vector
from tilesegment.storage.geozarr import Affine, Georeferencing

LABELS = blobs(90, 70)
ENDINGS = ["gpkg", "fgb", "parquet"]


def exported(image: Path, ending: str, **options: object) -> geopandas.GeoDataFrame:
    out = image.with_name(f"o.{ending}")
    summary = export_labels(image, out, polygons=PolygonOptions(**options))  # type: ignore[arg-type]
    read = geopandas.read_parquet if ending == "parquet" else geopandas.read_file
    table = read(out)
    assert len(table) == summary.polygons
    return table


@pytest.mark.parametrize("ending", ENDINGS)
def test_polygons_lie_where_the_pixels_lie(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector, "_BATCH", 5)
    table = exported(write_labelled(tmp_path / "i.zarr", LABELS, place=SCENE), ending)
    assert table.crs == "EPSG:32616"
    assert table.is_valid.all()
    drawn = rasterio.features.rasterize(
        zip(table.geometry, table["value"], strict=True),
        LABELS.shape,
        transform=rasterio.Affine(*SCENE.transform),
        dtype="uint8",
    )
    np.testing.assert_array_equal(drawn, LABELS)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_known_pixel_has_known_coordinates(ending: str, tmp_path: Path) -> None:
    labels = np.zeros((90, 70), "uint8")
    labels[8, 4:6] = 2
    table = exported(write_labelled(tmp_path / "i.zarr", labels, place=SCENE), ending)
    (row,) = table.to_dict("records")
    assert row["geometry"].bounds == (733603.0, 3725136.75, 733604.0, 3725137.0)
    assert row["geometry"].exterior.is_ccw
    assert {key: value for key, value in row.items() if key != "geometry"} == {
        "value": 2, "class": "stroma", "colour": "#d55e00", "pixels": 2, "area_m2": 0.25,
    }  # fmt: skip


def test_geojson_of_a_scene_is_in_wgs84(tmp_path: Path) -> None:
    """RFC 7946, 4: the coordinate reference system for all GeoJSON coordinates is WGS 84."""
    image = write_labelled(tmp_path / "i.zarr", LABELS, place=SCENE)
    expected = exported(image, "gpkg").to_crs("EPSG:4326").total_bounds
    table = exported(image, "geojson")
    assert table.crs == "EPSG:4326"
    assert table.total_bounds == pytest.approx(expected, abs=1e-6)
    assert set(table["class"]) == {"nucleus", "stroma"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_slide_has_pixels_for_coordinates(ending: str, tmp_path: Path) -> None:
    table = exported(write_labelled(tmp_path / "i.zarr", LABELS), ending)
    assert table.crs is None or "Undefined" in table.crs.name
    assert table.total_bounds.tolist() == [0, 0, 70, 90]
    assert table["area_um2"].sum() == pytest.approx(np.count_nonzero(LABELS) / 4)


def test_degrees_give_no_area(tmp_path: Path) -> None:
    place = Georeferencing(Affine(1e-5, 0, 8, 0, -1e-5, 47), "EPSG:4326")
    table = exported(write_labelled(tmp_path / "i.zarr", LABELS, place=place), "gpkg")
    assert [name for name in table.columns if name.startswith("area")] == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_polygons_make_an_empty_layer(ending: str, tmp_path: Path) -> None:
    image = write_labelled(tmp_path / "i.zarr", LABELS, place=SCENE)
    assert len(exported(image, ending, min_area=10**6)) == 0


@pytest.mark.parametrize("ending", [*ENDINGS, "geojson"])
def test_a_damaged_chunk_is_one_line_and_leaves_nothing(ending: str, tmp_path: Path) -> None:
    image = write_labelled(tmp_path / "i.zarr", LABELS, place=SCENE)
    for chunk in (image / "labels" / "cells" / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged" + chunk.read_bytes()[7:])
    with pytest.raises(InputError, match="damaged chunk"):
        exported(image, ending)
    assert [item.name for item in tmp_path.iterdir()] == ["i.zarr"]


def test_a_crs_that_nobody_knows(tmp_path: Path) -> None:
    place = Georeferencing(SCENE.transform, "EPSG:999999")
    image = write_labelled(tmp_path / "i.zarr", LABELS, place=place)
    with pytest.raises(InputError, match="CRS that PROJ does not know"):
        exported(image, "gpkg")
