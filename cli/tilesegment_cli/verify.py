"""``tilesegment verify``."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tilesegment_cli.options import cluster_options, json_option
from tilesegment_cli.progress import show_run

if TYPE_CHECKING:
    from tilesegment.config import ClusterOptions
    from tilesegment.execution.verification import Verification, WindowCheck


@click.command(
    epilog="""\b
Examples:
  tilesegment verify slide.zarr
  tilesegment verify slide.zarr --deep --windows 0
  tilesegment verify slide.zarr --labels tumour --windows 50 --seed 7 --json
"""
)
@click.argument("image", type=click.Path())
@click.option(
    "--labels", default="nuclei", show_default=True, metavar="NAME", help="Which label image."
)
@click.option(
    "--output",
    type=click.Path(),
    metavar="STORE",
    help="Where the label image is, if not in IMAGE/labels/NAME.",
)
@click.option(
    "--windows",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    metavar="K",
    help="How many windows to compute again; one costs up to five tiles. 0 with --deep needs "
    "neither model nor workers.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of windows.")
@click.option("--deep", is_flag=True, help="Compare every object with its checksum, too.")
@click.option(
    "--model",
    metavar="FILE|NAME",
    help="The model of the labels, if it is no longer where the run found it.",
)
@cluster_options
@json_option
def verify(
    image: str,
    labels: str,
    output: str | None,
    windows: int,
    seed: int,
    deep: bool,
    model: str | None,
    cluster: "ClusterOptions",
    as_json: bool,
) -> None:
    """Compute random windows of a label image of IMAGE again, and compare; probabilities too.

    The windows lie across tile borders, tile corners and the image's rim. Each is given to the
    network as one input, with more context than a tile has and from another origin. In float32 on
    workers like those of the run nothing may differ; otherwise 1 label in 1000 may, and a
    probability by more than 8/255 at 1 pixel in 1000. With --deep every
    stored object is read first; where some are damaged, no window is computed.

    \b
    Exit codes: 0 equal; 1 labels differ or are damaged, or an error; 2 usage; 3 the image or the
    model is another one than that of the labels; 5 some tiles failed everywhere.
    """
    from tilesegment.usecases.job import labels_directory
    from tilesegment.usecases.verify import refuse_unequal
    from tilesegment.usecases.verify import verify as verify_labels

    with show_run() as report:
        found = verify_labels(
            image,
            labels,
            windows=windows,
            seed=seed,
            model=model,
            output=output,
            deep=deep,
            cluster=cluster,
            report=report,
        )
    click.echo(json.dumps(asdict(found)) if as_json else _text(found))
    refuse_unequal(found, labels_directory(image, labels, output))


def _differing(check: "WindowCheck") -> str:
    probable = f" and the probabilities of {check.differing_probabilities:,} pixels"
    return f"{check.differing_labels:,} labels{probable if check.differing_probabilities else ''}"


def _text(found: "Verification") -> str:
    allowed = f" ({found.allowed_labels:,} may)" if found.allowed_labels else ""
    rows = [
        f"Windows:  {found.windows}, {found.pixels:,} pixels",
        f"Labels:   {found.differing_labels:,} differ{allowed}",
        f"Logits:   differ by {found.largest_difference:g} at most",
    ]
    if found.differing_probabilities:
        rows.append(f"Probabilities: differ at {found.differing_probabilities:,} pixels{allowed}")
    rows += [
        f"  {_differing(check)} differ in plane {check.plane}, rows {check.y} to "
        f"{check.y + check.height}, columns {check.x} to {check.x + check.width}"
        for check in found.differing_windows
    ]
    rows += [f"  {key} is missing or damaged" for key in found.damaged]
    return "\n".join(rows)
