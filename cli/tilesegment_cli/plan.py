"""``tilesegment plan``."""

import json
from typing import TYPE_CHECKING, Any

import click

from tilesegment.partition import WHOLE, Partition
from tilesegment.refinement import refinement_facts
from tilesegment_cli.options import (
    cluster_options,
    feed_option,
    foreign_options,
    human_bytes,
    human_seconds,
    json_option,
    partition_option,
    run_options,
)

if TYPE_CHECKING:
    from tilesegment.config import ClusterOptions, ForeignOptions, RunOptions
    from tilesegment.planning import Plan, Source


@click.command(
    epilog="""\b
Examples:
  tilesegment plan slide.zarr
  tilesegment plan slide.zarr --model my.safetensors --tile 2048 --json
  tilesegment plan slide.zarr --partition 2/4
"""
)
@click.argument("image", type=click.Path())
@run_options
@foreign_options
@click.option(
    "--partition",
    default=WHOLE,
    metavar="I/N",
    callback=partition_option,
    help="Plan what `run` does of the image with the same option.",
)
@cluster_options
@feed_option
@json_option
def plan(
    image: str,
    model: str,
    options: "RunOptions",
    foreign: "ForeignOptions",
    partition: Partition,
    cluster: "ClusterOptions",
    as_json: bool,
) -> None:
    """Print what `run` with the same options would do and cost; write nothing.

    The seconds come from one tile that the network is shown on this machine, which is remembered
    for the next time; they are left out for a cluster that is not this machine's cores.
    """
    from tilesegment.execution.cluster import memory_limit, resolve_kind
    from tilesegment.usecases.estimate import estimate_seconds
    from tilesegment.usecases.plan import partition_tiles
    from tilesegment.usecases.plan import plan as make_plan

    chosen = resolve_kind(cluster)
    planned = make_plan(image, model, options, foreign, chosen)
    seconds = estimate_seconds(planned, model, options, chosen, foreign)
    facts = _facts(planned, seconds)
    if partition != WHOLE:
        facts["partition"] = str(partition)
        facts["partition_tiles"] = partition_tiles(planned, image, options, partition)
        # Partitions cost about the same.
        facts["seconds"] = None if seconds is None else round(seconds / partition.of, 3)
    click.echo(json.dumps(facts) if as_json else _text(planned, facts))
    limit = memory_limit(chosen)
    if limit is not None and planned.worker_memory_bytes > limit:
        click.echo(
            f"Warning: a worker may use {human_bytes(limit)} only; choose a smaller --tile or "
            "fewer --workers",
            err=True,
        )


def _facts(planned: "Plan", seconds: float | None) -> dict[str, Any]:
    blend = planned.network.blend
    return {
        "level": planned.source.level,
        "shape": list(planned.source.shape),
        "planes": planned.source.planes,
        "resampled_by": planned.source.step,
        "reason": planned.source.reason,
        "blend": None if blend is None else blend.kind,
        "refinement": refinement_facts(planned.network.refinement),
        "tile": planned.tile,
        "halo": planned.halo,
        "border": planned.network.geometry.border,
        "alignment": planned.network.geometry.alignment,
        "tiles": len(planned.grid),
        "masked": planned.masked,
        "regions": planned.regions,
        "feed": planned.feed,
        "compute_amplification": round(planned.compute_amplification, 3),
        "read_amplification": round(planned.read_amplification, 3),
        "worker_memory_bytes": planned.worker_memory_bytes,
        "whole_image_statistics": planned.network.statistics,
        "output_chunk": planned.output_chunk,
        "output_bytes": planned.output_bytes,
        "seconds": seconds,
    }


def _text(planned: "Plan", facts: dict[str, Any]) -> str:
    shape = planned.source.shape
    size = f"{shape.y} x {shape.x} px"
    planes = f", {planned.source.planes} planes" if planned.source.planes > 1 else ""
    masked = f", {planned.masked} of them outside the mask" if planned.masked else ""
    seconds = facts["seconds"]
    first = {"First": "the whole image is read, for the statistics that normalise it"}
    rows = {
        "Image": f"{planned.source.location}, level {planned.source.level}: {size}{planes}",
        "Scale": _scale(planned.source),
        "Windows": _windows(planned),
        "Refines": _refines(planned),
        "Tiles": f"{facts['tiles']} of {planned.tile} px{masked}, in {facts['regions']} region(s)",
        "Partition": _partition(facts),
        "Halo": f"{planned.halo} px per side ({_halo(planned)})",
        **(first if planned.network.statistics else {}),
        "Computes": f"{planned.compute_amplification:.2f} x the image's pixels",
        "Reads": f"{planned.read_amplification:.2f} x the image's pixels{_feed(planned)}",
        "Memory": f"about {human_bytes(planned.worker_memory_bytes)} per worker",
        "Writes": f"{human_bytes(planned.output_bytes)} of {_output(planned)} before "
        f"compression, in chunks of {planned.output_chunk} px",
        "Time": f"about {human_seconds(seconds)}" if seconds is not None else "not known here",
    }
    return "\n".join(f"{name + ':':<11}{value}" for name, value in rows.items() if value)


def _partition(facts: dict[str, Any]) -> str | None:
    if "partition" not in facts:
        return None
    return f"{facts['partition']}: {facts['partition_tiles']} of the tiles; time is for these"


def _feed(planned: "Plan") -> str:
    return ", each tile for itself (--feed tile)" if planned.feed == "tile" else ""


def _output(planned: "Plan") -> str:
    return "labels and probabilities" if planned.network.stored_classes else "labels"


def _scale(source: "Source") -> str:
    if source.step is None:
        return f"as it is ({source.reason})"
    sides = " x ".join(f"{side:.4g}" for side in dict.fromkeys(source.step))
    return f"resampled, {sides} px to one ({source.reason})"


def _refines(planned: "Plan") -> str | None:
    refinement = planned.network.refinement
    if refinement is None:
        return None
    smoothing = refinement.smoothing
    steps = {
        f"smoothing of {smoothing.deviation:g} px" if smoothing else "": smoothing,
        "CRF": refinement.crf,
        "class thresholds": refinement.thresholds,
    }
    named = ", ".join(name for name, step in steps.items() if step)
    return f"{named}: labels depend on {refinement.border} px more"


def _windows(planned: "Plan") -> str | None:
    blend = planned.network.blend
    if blend is None:
        return None
    return (
        f"of {blend.window} px every {blend.step} px, blended ({blend.kind}): the labels are not "
        "those of one pass"
    )


def _halo(planned: "Plan") -> str:
    network = planned.network.geometry
    facts = f"border {network.border}, alignment {network.alignment}"
    if planned.resampling is None:
        return facts
    return f"{facts} of the network, which is shown {planned.shown.y} x {planned.shown.x} px"
