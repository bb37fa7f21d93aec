"""``tilesegment plan``."""

import json
from typing import TYPE_CHECKING, Any, cast

import click

from tilesegment.config import ClusterOptions, Precision, RunOptions
from tilesegment_cli.options import cluster_options, human_bytes, human_seconds, run_options

if TYPE_CHECKING:
    from tilesegment.planning import Plan


@click.command(
    epilog="""\b
Examples:
  tilesegment plan slide.zarr
  tilesegment plan slide.zarr --model my.safetensors --tile 2048 --json
"""
)
@click.argument("image", type=click.Path())
@run_options
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def plan(
    image: str,
    model: str,
    level: int,
    tile: int | None,
    precision: str,
    mask: str,
    cluster: str,
    workers: int | None,
    limit_text: str | None,
    as_json: bool,
) -> None:
    """Print what `run` with the same options would do and cost; write nothing.

    The seconds come from two forward passes of the network on this machine, and are left out
    for a cluster that is not this machine's cores.
    """
    from tilesegment.execution.cluster import memory_limit, resolve_kind
    from tilesegment.usecases.segment import estimate_seconds
    from tilesegment.usecases.segment import plan as make_plan

    options = RunOptions(level, tile, cast("Precision", precision), mask)
    planned = make_plan(image, model, options)
    chosen = resolve_kind(ClusterOptions(cluster, workers, limit_text))
    seconds = estimate_seconds(planned, model, options, chosen)
    facts = _facts(planned, seconds)
    click.echo(json.dumps(facts) if as_json else _text(planned, facts))
    limit = memory_limit(chosen)
    if limit is not None and planned.worker_memory_bytes > limit:
        click.echo(
            f"Warning: a worker may use {human_bytes(limit)} only; choose a smaller --tile or "
            "fewer --workers",
            err=True,
        )


def _facts(planned: "Plan", seconds: float | None) -> dict[str, Any]:
    return {
        "level": planned.source.level,
        "shape": list(planned.source.shape),
        "planes": planned.source.planes,
        "tile": planned.tile,
        "halo": planned.halo,
        "border": planned.network.geometry.border,
        "alignment": planned.network.geometry.alignment,
        "tiles": len(planned.grid),
        "masked": planned.masked,
        "regions": planned.regions,
        "compute_amplification": round(planned.compute_amplification, 3),
        "read_amplification": round(planned.read_amplification, 3),
        "worker_memory_bytes": planned.worker_memory_bytes,
        "output_chunk": planned.output_chunk,
        "output_bytes": planned.output_bytes,
        "seconds": seconds,
    }


def _text(planned: "Plan", facts: dict[str, Any]) -> str:
    shape, geometry = planned.source.shape, planned.network.geometry
    size = f"{shape.y} x {shape.x} px"
    planes = f", {planned.source.planes} planes" if planned.source.planes > 1 else ""
    masked = f", {planned.masked} of them outside the mask" if planned.masked else ""
    seconds = facts["seconds"]
    rows = {
        "Image": f"{planned.source.location}, level {planned.source.level}: {size}{planes}",
        "Tiles": f"{facts['tiles']} of {planned.tile} px{masked}, in {facts['regions']} region(s)",
        "Halo": f"{planned.halo} px per side (border {geometry.border}, alignment "
        f"{geometry.alignment})",
        "Computes": f"{planned.compute_amplification:.2f} x the image's pixels",
        "Reads": f"{planned.read_amplification:.2f} x the image's pixels",
        "Memory": f"about {human_bytes(planned.worker_memory_bytes)} per worker",
        "Writes": f"{human_bytes(planned.output_bytes)} of labels before compression, in chunks "
        f"of {planned.output_chunk} px",
        "Time": f"about {human_seconds(seconds)}" if seconds is not None else "not known here",
    }
    return "\n".join(f"{name + ':':<10}{value}" for name, value in rows.items())
