"""``tilesegment run``."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

import click

from tilesegment.config import ClusterOptions, Precision, RunOptions
from tilesegment.errors import IncompleteError
from tilesegment_cli.options import cluster_options, human_seconds, run_options
from tilesegment_cli.progress import show_run

if TYPE_CHECKING:
    from tilesegment.usecases.segment import RunSummary


@click.command(
    epilog="""\b
Examples:
  tilesegment run slide.zarr
  tilesegment run slide.zarr --model my.safetensors --labels tumour
  tilesegment run slide.zarr --cluster gpu
  tilesegment run slide.zarr --cluster tcp://10.0.0.5:8786
  tilesegment run scene.zarr --output labels.zarr --level 1 --json
"""
)
@click.argument("image", type=click.Path())
@run_options
@click.option("--labels", metavar="NAME", help="Name of the label image; default: the model's.")
@click.option(
    "--output",
    type=click.Path(),
    metavar="STORE",
    help="Write the label image to this place instead of IMAGE/labels/NAME.",
)
@click.option("--overwrite", is_flag=True, help="Replace a label image of the same name.")
@click.option(
    "--verify",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="K",
    help="Compute K windows of the finished labels again, and compare; see `tilesegment verify`.",
)
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def run(
    image: str,
    model: str,
    level: int,
    tile: int | None,
    precision: str,
    mask: str,
    labels: str | None,
    output: str | None,
    overwrite: bool,
    verify: int,
    cluster: str,
    workers: int | None,
    limit_text: str | None,
    as_json: bool,
) -> None:
    """Segment an OME-Zarr IMAGE with a U-Net, tile by tile.

    The labels are those that one forward pass over the whole (mirrored) image would give, for
    every tile size and number of workers. They become an OME-Zarr label image in
    IMAGE/labels/NAME, visible once it is whole. Run the same command again to resume.

    \b
    Exit codes: 0 done; 1 error; 2 usage; 3 the labels belong to another run;
    4 stopped before the end, run again to resume.
    """
    from tilesegment.usecases.segment import segment

    try:
        with show_run() as report:
            summary = segment(
                image,
                model,
                labels=labels,
                output=output,
                options=RunOptions(level, tile, cast("Precision", precision), mask),
                cluster=ClusterOptions(cluster, workers, limit_text),
                overwrite=overwrite,
                verify=verify,
                report=report,
            )
    except KeyboardInterrupt as interrupt:
        raise IncompleteError(
            "stopped; run the same command again to go on: finished tiles are kept"
        ) from interrupt
    click.echo(json.dumps(asdict(summary)) if as_json else _text(summary))


def _text(summary: "RunSummary") -> str:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in summary.shares.items())
    if summary.status == "already complete":
        return f"Already complete: {summary.labels}\nClasses: {shares}{_verified(summary)}"
    return (
        f"Labels:  {summary.labels}\n"
        f"Tiles:   {summary.tiles}{_not_computed(summary)}\n"
        f"Time:    {human_seconds(summary.seconds)}, "
        f"{summary.megapixels_per_second:.2f} Mpx/s\n"
        f"Classes: {shares}{_verified(summary)}"
    )


def _verified(summary: "RunSummary") -> str:
    return f"\nVerified: {summary.verified} windows, equal" if summary.verified else ""


def _not_computed(summary: "RunSummary") -> str:
    """How many tiles the network was spared, and why."""
    counts = {
        "from an earlier run": summary.skipped,
        "outside the mask or without data": summary.masked,
        "of one value, computed once": summary.reused,
    }
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    return f" ({reasons})" if reasons else ""
