"""Polygons for geographic information systems: GeoPackage, FlatGeobuf, GeoJSON, GeoParquet.

They go to GDAL, or to Parquet, as batches of Arrow records: no more than one is in memory.
"""

import json
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely

from tilesegment.errors import OutputError
from tilesegment.storage.exporting.coordinates import Coordinates
from tilesegment.storage.exporting.labelled import Labelled
from tilesegment.storage.exporting.polygons import LabelPolygon

DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON"}
"""GDAL's names of the formats that it writes."""

_BATCH = 4096
_GEOMETRY = "geometry"


def write_vector(
    labelled: Labelled, found: Iterable[LabelPolygon], coordinates: Coordinates, path: Path
) -> int:
    """Write a layer of polygons; returns their number.

    Raises:
        OutputError: if GDAL cannot write.
    """
    table = _Table(labelled, coordinates)
    if path.suffix.lower() == ".parquet":
        _write_parquet(table, found, path)
    else:
        _write_with_gdal(table, found, path)
    return table.count


class _Table:
    """Turns polygons into batches of records, and counts them."""

    def __init__(self, labelled: Labelled, coordinates: Coordinates) -> None:
        self.name, self.coordinates, self._labelled = labelled.name, coordinates, labelled
        self.count = 0
        self.failure: BaseException | None = None
        """What ended `batches`: Arrow hands GDAL its text only."""
        fields = [
            (_GEOMETRY, pa.binary()),
            ("value", pa.int64()),
            ("class", pa.string()),
            ("colour", pa.string()),
            ("pixels", pa.int64()),
        ]
        if coordinates.unit is not None:
            fields.append((f"area_{coordinates.unit}2", pa.float64()))
        known = labelled.measurements
        self._measured = [name for name in known.names if _is_number(name)] if known else []
        fields.extend((name, pa.float64()) for name in self._measured)
        self.schema = pa.schema(fields)

    def batches(self, found: Iterable[LabelPolygon]) -> Iterator[pa.RecordBatch]:
        polygons = iter(found)
        try:
            while batch := list(islice(polygons, _BATCH)):
                self.count += len(batch)
                yield pa.record_batch(self._columns(batch), schema=self.schema)
        except BaseException as error:
            self.failure = error
            raise

    def _columns(self, batch: list[LabelPolygon]) -> list[list[Any]]:
        shapes = shapely.transform([item.shape for item in batch], self.coordinates.of)
        classes = [self._labelled.label_class(item.value) for item in batch]
        columns = [
            shapely.to_wkb(shapely.orient_polygons(shapes)).tolist(),
            [item.value for item in batch],
            [item.name for item in classes],
            ["#" + bytes(item.colour).hex() for item in classes],
            [item.pixels for item in batch],
        ]
        if self.coordinates.pixel_area is not None:
            columns.append([item.pixels * self.coordinates.pixel_area for item in batch])
        known = [self._labelled.measured(item.value) for item in batch]
        columns.extend([row.get(name) for row in known] for name in self._measured)
        return columns


def _is_number(column: str) -> bool:
    """Whether a column of measurements says what the polygon itself does not."""
    return column.startswith("mean_") or column in ("perimeter_px", "eccentricity")


def _write_with_gdal(table: _Table, found: Iterable[LabelPolygon], path: Path) -> None:
    driver = DRIVERS[path.suffix.lower()]
    crs = table.coordinates.crs
    # RFC 7946 knows one CRS, WGS 84; GDAL turns the coordinates into it.
    options = {"RFC7946": "YES"} if driver == "GeoJSON" else {}
    try:
        with warnings.catch_warnings():
            # A slide has no CRS, and needs none.
            warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
            pyogrio.write_arrow(
                pa.RecordBatchReader.from_batches(table.schema, table.batches(found)),
                path,
                layer=table.name,
                driver=driver,
                geometry_name=_GEOMETRY,
                geometry_type="Polygon",
                crs=None if crs is None else crs.to_wkt(),
                **options,
            )
    except RuntimeError as error:
        if table.failure is not None:
            raise table.failure from None
        raise OutputError(f"{path.name}: GDAL cannot write it ({error})") from error


def _write_parquet(table: _Table, found: Iterable[LabelPolygon], path: Path) -> None:
    """GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0/), one row group per batch."""
    crs = table.coordinates.crs
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "orientation": "counterclockwise",
        "crs": None if crs is None else crs.to_dict(projjson=True),
    }
    geo = {"version": "1.1.0", "primary_column": _GEOMETRY, "columns": {_GEOMETRY: column}}
    schema = table.schema.with_metadata({"geo": json.dumps(geo)})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in table.batches(found):
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
