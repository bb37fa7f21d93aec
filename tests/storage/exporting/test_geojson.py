"""GeoJSON for QuPath, as its reader wants it."""

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
import shapely

from tests.storage.exporting.labelled_images import blobs, write_labelled
from tilesegment.storage.exporting import PolygonOptions, export_labels

LABELS = blobs(90, 70)


def features(tmp_path: Path, labels: np.ndarray, **options: Any) -> list[dict[str, Any]]:
    image = write_labelled(tmp_path / "i.zarr", labels)
    out = tmp_path / "o.geojson"
    summary = export_labels(image, out, polygons=PolygonOptions(**options), overwrite=True)
    collection = json.loads(out.read_text())
    assert collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == summary.polygons
    found: list[dict[str, Any]] = collection["features"]
    return found


def test_a_feature_is_what_qupath_reads(tmp_path: Path) -> None:
    """QuPath: id is a UUID, colour an array of three, coordinates full-resolution pixels."""
    labels = np.zeros((90, 70), "uint8")
    labels[10:20, 30:35] = 2
    (feature,) = features(tmp_path, labels)
    assert uuid.UUID(feature["id"])
    assert feature["properties"] == {
        "objectType": "detection",
        "classification": {"name": "stroma", "color": [213, 94, 0]},
        "measurements": {"Area px^2": 50, "Area µm^2": 12.5},
    }
    (ring,) = feature["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert sorted(ring[1:]) == [[30, 10], [30, 20], [35, 10], [35, 20]]


def test_drawn_again_they_are_the_labels(tmp_path: Path) -> None:
    values = {"nucleus": 1, "stroma": 2}
    shapes = [
        (item["geometry"], values[item["properties"]["classification"]["name"]])
        for item in features(tmp_path, LABELS)
    ]
    drawn = rasterio.features.rasterize(shapes, LABELS.shape, dtype="uint8")
    np.testing.assert_array_equal(drawn, LABELS)


def test_the_same_export_gives_the_same_bytes_and_distinct_names(tmp_path: Path) -> None:
    names = [item["id"] for item in features(tmp_path, LABELS)]
    assert len(set(names)) == len(names)
    first = (tmp_path / "o.geojson").read_bytes()
    features(tmp_path, LABELS)
    assert (tmp_path / "o.geojson").read_bytes() == first


def test_classes_by_name_or_label_and_a_least_area(tmp_path: Path) -> None:
    def names(**options: Any) -> set[str]:
        found = features(tmp_path, LABELS, **options)
        return {item["properties"]["classification"]["name"] for item in found}

    assert names(classes=("stroma",)) == {"stroma"}
    assert names(classes=("1", "background")) == {"nucleus", "background"}
    large = features(tmp_path, LABELS, min_area=100)
    areas = [item["properties"]["measurements"]["Area px^2"] for item in large]
    assert min(areas) >= 100
    assert len(large) < len(features(tmp_path, LABELS))


def test_annotations_on_request(tmp_path: Path) -> None:
    found = features(tmp_path, LABELS, object_type="annotation")
    assert {item["properties"]["objectType"] for item in found} == {"annotation"}


def test_simplified_polygons_still_meet(tmp_path: Path) -> None:
    found = features(tmp_path, LABELS, simplify=6.0)
    shapes = [shapely.geometry.shape(item["geometry"]) for item in found]
    assert shapely.coverage_is_valid(shapes)
    plain = [shapely.geometry.shape(item["geometry"]) for item in features(tmp_path, LABELS)]
    assert not shapely.equals(shapes, plain).all()


def test_an_image_without_objects_gives_an_empty_collection(tmp_path: Path) -> None:
    assert features(tmp_path, np.zeros((90, 70), "uint8")) == []
    assert features(tmp_path, np.zeros((90, 70), "uint8"), simplify=1.0) == []
