"""``tilesegment clean``."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

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


@click.command(
    epilog="""\b
Examples:
  tilesegment clean slide.zarr --min-area 50
  tilesegment clean slide.zarr --labels tumour --min-area 500 --fill-holes 2000 --name tumour-smooth
"""
)
@click.argument("image", type=click.Path(), metavar="IMAGE.zarr")
@derived_labels_options("-clean")
@cleaning_options
@cluster_options
@json_option
def clean(
    image: str,
    labels: str | None,
    name: str | None,
    min_area: int,
    fill_holes: int,
    tile: int,
    overwrite: bool,
    cluster: "ClusterOptions",
    as_json: bool,
) -> None:
    """Write labels of IMAGE without small regions and small holes, as a new label image.

    A region is what hangs together of one class (by edges of pixels); small ones become
    background. A hole is background without a way to the image's rim; small ones get the class
    around them. Both are looked at across all tiles: the result is that of the whole image. After
    an interruption the same command goes on; finished blocks are not done again.
    """
    from tilesegment.cleaning import Cleaning
    from tilesegment.usecases.clean import clean as clean_labels

    with stopped_by_signals(), show_run() as report:
        found = clean_labels(
            image,
            labels,
            cleaning=Cleaning(min_area, fill_holes),
            name=name,
            tile=tile,
            cluster=cluster,
            overwrite=overwrite,
            report=report,
        )
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    click.echo(
        f"Labels:  {found.labels}\n"
        f"Changed: {found.changed:,} of {found.pixels:,} pixels\n"
        f"Time:    {human_seconds(found.seconds)}"
    )
