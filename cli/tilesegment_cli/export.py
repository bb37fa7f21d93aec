"""``tilesegment export``."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tilesegment_cli.options import human_bytes, json_option

if TYPE_CHECKING:
    from tilesegment.storage.exporting import ExportSummary
    from tilesegment.storage.exporting.geojson import ObjectType


@click.command(
    epilog="""\b
Examples:
  tilesegment export slide.zarr overlay.png
  tilesegment export slide.zarr nuclei.geojson --min-area 40
  tilesegment export slide.zarr nuclei.ome.tif --labels nuclei
  tilesegment export scene.zarr roads.gpkg --class road --simplify 1.5
  tilesegment export scene.zarr roads.tif
  tilesegment export scene.zarr probabilities.tif --probabilities
"""
)
@click.argument("image", type=click.Path(path_type=Path), metavar="IMAGE.zarr")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--labels", metavar="NAME", help="Which label image; not needed if there is one.")
@click.option(
    "--plane",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Which plane of an image with t or z, counted through.",
)
@click.option(
    "--largest",
    type=click.IntRange(min=64),
    help="Pictures: pixels of the longer side, at most.  [default: 2000]",
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME",
    help="Polygons: only of this class; can be given several times.  [default: all but label 0]",
)
@click.option(
    "--min-area",
    type=click.IntRange(min=0),
    default=0,
    metavar="PIXELS",
    help="Polygons: leave out smaller ones.",
)
@click.option(
    "--simplify",
    type=click.FloatRange(min=0, min_open=True),
    metavar="PIXELS",
    help="Polygons: smooth steps of about this size; neighbours keep their common borders.",
)
@click.option(
    "--object-type",
    type=click.Choice(["detection", "annotation"]),
    help="Polygons for QuPath: what they are there.  [default: detection]",
)
@click.option(
    "--probabilities",
    is_flag=True,
    help="GeoTIFF: the probabilities of the classes (of `run --probabilities`), a band each.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT, once the new file is whole.")
@json_option
def export(
    image: Path,
    out: Path,
    labels: str | None,
    plane: int,
    largest: int | None,
    classes: tuple[str, ...],
    min_area: int,
    simplify: float | None,
    object_type: "ObjectType | None",
    probabilities: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the labels of an image to a file that other programs open.

    \b
    The ending of OUT says what it becomes:
      .png .jpg      picture of the image with its classes, a legend and a scale bar
      .tif           GeoTIFF (COG) with colours, class names, overviews and CRS
      .ome.tif       OME-TIFF pyramid of all planes
      .geojson       polygons: for QuPath in pixels; of an image with a CRS in WGS 84
      .gpkg .fgb     polygons for GIS: GeoPackage, FlatGeobuf
      .parquet       polygons for data frames: GeoParquet

    OUT appears once it is whole. Polygons are the same whatever the tiles of the run were.
    """
    from tilesegment.storage.exporting import PolygonOptions, export_labels
    from tilesegment_cli.progress import pixel_bar

    # It logs what goes wrong besides raising; the error alone is the one clear line.
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)
    with pixel_bar(f"Exporting {out.name}") as progress:
        summary = export_labels(
            image,
            out,
            labels,
            plane=plane,
            largest=largest,
            polygons=PolygonOptions(classes, min_area, simplify, object_type),
            probabilities=probabilities,
            overwrite=overwrite,
            progress=progress,
        )
    click.echo(_json(summary) if as_json else _text(summary))


def _json(summary: "ExportSummary") -> str:
    return json.dumps({**asdict(summary), "path": str(summary.path)})


def _text(summary: "ExportSummary") -> str:
    count = "" if summary.polygons is None else f"{summary.polygons} polygons, "
    return (
        f"{summary.path}: {count}{human_bytes(summary.bytes)}, from labels {summary.labels!r} "
        f"in {summary.seconds:.1f} s"
    )
