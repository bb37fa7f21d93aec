"""``tilesegment verify``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tilesegment.errors import OutputError

if TYPE_CHECKING:
    from tilesegment.usecases.deep import DeepCheck


@click.command(
    epilog="""\b
Examples:
  tilesegment verify slide.zarr --deep
  tilesegment verify slide.zarr --labels tumour --deep --json
"""
)
@click.argument("image", type=click.Path())
@click.option("--labels", default="nuclei", show_default=True, metavar="NAME")
@click.option(
    "--output",
    type=click.Path(),
    metavar="STORE",
    help="Where the label image is, if not in IMAGE/labels/NAME.",
)
@click.option("--deep", is_flag=True, required=True, help="Compare every object's checksum.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def verify(image: str, labels: str, output: str | None, deep: bool, as_json: bool) -> None:
    """Compare every stored object of a label image of IMAGE with its checksum.

    \b
    Exit codes: 0 all are whole; 1 some are damaged or missing, or an error; 2 usage.
    """
    from tilesegment.usecases.deep import check_objects

    found = check_objects(Path(output or f"{image}/labels/{labels}"))
    click.echo(json.dumps(asdict(found)) if as_json else _text(found))
    if found.damaged:
        raise OutputError(
            f"{len(found.damaged)} of {found.objects} objects of {found.labels} are damaged; run "
            "the command that made them again with --repair"
        )


def _text(found: "DeepCheck") -> str:
    rows = [f"Objects:  {found.objects}, {len(found.damaged)} damaged"]
    rows += [f"  {item.key} is {item.problem}" for item in found.damaged]
    return "\n".join(rows)
