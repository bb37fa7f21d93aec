"""``tilesegment objects``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesegment_cli.options import (
    cleaning_options,
    cluster_options,
    derived_labels_options,
    human_seconds,
    json_option,
)
from tilesegment_cli.progress import show_run, stopped_by_signals

if TYPE_CHECKING:
    from tilesegment.config import ClusterOptions
    from tilesegment.usecases.objects import ObjectsSummary


@click.command(
    epilog="""\b
Examples:
  tilesegment objects slide.zarr
  tilesegment objects slide.zarr --split distance --min-area 40 --fill-holes 100
  tilesegment objects slide.zarr --labels nuclei --table nuclei.parquet --density density.png
  tilesegment objects scene.zarr --labels houses --name buildings --table buildings.csv --json
"""
)
@click.argument("image", type=click.Path(), metavar="IMAGE.zarr")
@derived_labels_options("-objects")
@click.option(
    "--split",
    type=click.Choice(["none", "distance"]),
    default="none",
    show_default=True,
    help="Cut objects that touch at their necks.",
)
@click.option(
    "--reach",
    type=int,
    default=8,
    show_default=True,
    metavar="PIXELS",
    help="Splitting: the centres of two objects are farther apart than this.",
)
@cleaning_options
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the measurements as .parquet or .csv.",
)
@click.option(
    "--density",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a map of objects per mm², as .tif or .png.",
)
@click.option(
    "--density-cell",
    type=int,
    default=256,
    show_default=True,
    metavar="PIXELS",
    help="Side of a cell of that map.",
)
@cluster_options
@json_option
def objects(
    image: str,
    labels: str | None,
    name: str | None,
    split: Any,
    reach: int,
    min_area: int,
    fill_holes: int,
    table: Path | None,
    density: Path | None,
    density_cell: int,
    tile: int,
    overwrite: bool,
    cluster: "ClusterOptions",
    as_json: bool,
) -> None:
    """Find the objects in labels of IMAGE, number and measure them.

    An object is what hangs together of one class, by edges of pixels, across all tiles; with
    --split it is cut at its necks. The objects become a label image of identities, from 1 in the
    order of their first pixels, with their measurements inside: class, area, centroid, bounding
    box, perimeter, eccentricity, mean intensities. All of it is the same for every tile size and
    number of workers.

    With --min-area and --fill-holes the labels are cleaned first, as by `tilesegment clean`. After
    an interruption the same command goes on; finished blocks are not done again.
    """
    from tilesegment.cleaning import Cleaning
    from tilesegment.splitting import Split
    from tilesegment.usecases.objects import ObjectFiles
    from tilesegment.usecases.objects import objects as find_objects

    with stopped_by_signals(), show_run() as report:
        found = find_objects(
            image,
            labels,
            name=name,
            split=Split(split, reach),
            cleaning=Cleaning(min_area, fill_holes),
            files=ObjectFiles(table, density, density_cell),
            tile=tile,
            cluster=cluster,
            overwrite=overwrite,
            report=report,
        )
    click.echo(json.dumps(asdict(found)) if as_json else _text(found))


def _text(found: "ObjectsSummary") -> str:
    classes = ", ".join(f"{name} {count:,}" for name, count in found.classes.items())
    rows = [
        f"Labels:  {found.labels}",
        f"Objects: {found.objects:,}" + (f" ({classes})" if classes else ""),
        *(f"Table:   {path}" for path in (found.table,) if path),
        *(f"Density: {path}" for path in (found.density,) if path),
        f"Time:    {human_seconds(found.seconds)}",
    ]
    return "\n".join(rows)
