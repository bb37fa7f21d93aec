"""Polygons as GeoJSON that QuPath reads: https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html

Coordinates are pixels of the finest level from the upper left corner, so this is for images
without a place on the Earth. One feature follows the other: nothing is kept in memory.
"""

import json
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import shapely

from tilesegment.storage.exporting.coordinates import Coordinates
from tilesegment.storage.exporting.labelled import Labelled
from tilesegment.storage.exporting.polygons import LabelPolygon

ObjectType = Literal["detection", "annotation"]

_NAMESPACE = uuid.UUID("5d6a3f2e-0d0c-4f0e-9a58-6f1f1c1f7a11")
"""Of the names that become identifiers: the same export gives the same file."""


def write_geojson(
    labelled: Labelled,
    found: Iterable[LabelPolygon],
    coordinates: Coordinates,
    object_type: ObjectType,
    path: Path,
) -> int:
    """Write a FeatureCollection; returns the number of features."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for count, polygon in enumerate(found, start=1):
            file.write(",\n" if count > 1 else "\n")
            file.write(json.dumps(_feature(labelled, polygon, coordinates, object_type)))
        file.write("\n]}\n")
    return count


def _feature(
    labelled: Labelled, polygon: LabelPolygon, coordinates: Coordinates, object_type: ObjectType
) -> dict[str, Any]:
    """A feature as QuPath's reader understands it: type, class with colour, measurements."""
    item = labelled.label_class(polygon.value)
    measurements: dict[str, float] = {"Area px^2": polygon.pixels}
    if coordinates.pixel_area is not None:
        measurements["Area µm^2"] = round(polygon.pixels * coordinates.pixel_area, 4)
    measurements.update(_measurements(labelled.measured(polygon.value)))
    rings = [polygon.shape.exterior, *polygon.shape.interiors]
    return {
        "type": "Feature",
        "id": str(
            uuid.uuid5(_NAMESPACE, f"{labelled.name} {polygon.value} {polygon.shape.wkb_hex}")
        ),
        "geometry": {"type": "Polygon", "coordinates": [_points(ring) for ring in rings]},
        "properties": {
            "objectType": object_type,
            "classification": {"name": item.name, "color": list(item.colour)},
            "measurements": measurements,
        },
    }


_NAMES = {"perimeter_px": "Perimeter px", "eccentricity": "Eccentricity"}


def _measurements(known: Mapping[str, Any]) -> dict[str, float]:
    """What was measured of an object, by the names that QuPath shows."""
    means = {name: name.capitalize().replace("_", " ") for name in known if name[:5] == "mean_"}
    shown = {**_NAMES, **means}
    return {shown[name]: round(known[name], 4) for name in shown if name in known}


def _points(ring: shapely.LinearRing) -> list[list[float]]:
    """Whole numbers without a decimal point: half the size of the file."""
    return [
        [int(number) if number.is_integer() else number for number in point]
        for point in shapely.get_coordinates(ring).tolist()
    ]
