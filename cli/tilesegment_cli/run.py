"""``tilesegment run``."""

import json
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

import click

from tilesegment.errors import OptionError
from tilesegment.partition import WHOLE, Partition
from tilesegment_cli import batch
from tilesegment_cli.images import find_images, is_pattern, refuse_no_image
from tilesegment_cli.options import (
    cluster_options,
    feed_option,
    foreign_options,
    human_bytes,
    human_seconds,
    json_option,
    partition_option,
    run_options,
    seconds_option,
)
from tilesegment_cli.progress import show_batch, show_run, stopped_by_signals

if TYPE_CHECKING:
    from tilesegment.config import ClusterOptions, ForeignOptions, RunOptions
    from tilesegment.usecases.job import RunSummary


@click.command(
    epilog="""\b
Examples:
  tilesegment run slide.zarr
  tilesegment run slide.zarr --model my.safetensors --labels tumour
  tilesegment run slide.svs --mask tissue
  tilesegment run slide.zarr --verify 12 --report reports
  tilesegment run slide.zarr --cluster gpu
  tilesegment run slide.zarr --cluster tls://10.0.0.5:8786
  tilesegment run slide.zarr --model network.onnx --threshold 0.5
  tilesegment run slide.zarr --refine crf --class-threshold tumour=0.7 --probabilities
  tilesegment run scene.zarr --output labels.zarr --level 1 --json
  tilesegment run s3://slides/case-7.zarr
  tilesegment run slide.zarr --partition 2/4
  tilesegment run 'slides/*.zarr'
  tilesegment run --from slides.txt --cluster gpu
"""
)
@click.argument("image", type=click.Path(), nargs=-1)
@click.option(
    "--from",
    "listed",
    type=click.File(),
    metavar="FILE",
    help="Segment the images that this file names too, one a line; - reads them from stdin.",
)
@run_options
@foreign_options
@click.option("--labels", metavar="NAME", help="Name of the label image; default: the model's.")
@click.option(
    "--output",
    type=click.Path(),
    metavar="STORE",
    help="Write the label image to this place, and not into IMAGE or beside it.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a label image of the same name, once the new one is whole.",
)
@click.option(
    "--take-over", is_flag=True, help="Go on although another run is writing; that one stops."
)
@click.option(
    "--allow-partial",
    is_flag=True,
    help="Publish although some tiles failed everywhere; they are background, and listed.",
)
@click.option("--keep-ledger", is_flag=True, help="Keep the record of the run with the labels.")
@click.option(
    "--repair",
    is_flag=True,
    help="Compute tiles of finished labels anew that are lost, damaged or failed.",
)
@click.option(
    "--partition",
    default=WHOLE,
    metavar="I/N",
    callback=partition_option,
    help="Do the I-th of N parts of each image, beside other runs that do the others (a job "
    "array); the last one to finish publishes the labels.",
)
@click.option(
    "--commit",
    is_flag=True,
    help="Compute no tile: publish what partitions have done, or say what is missing (exit 4).",
)
@click.option(
    "--verify",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="K",
    help="Compute K windows of the finished labels again, and compare; see `tilesegment verify`.",
)
@click.option(
    "--profile",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Write there where the time went, step by step: profile.json, and profile.svg to look at.",
)
@click.option(
    "--report",
    "report_folder",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Write there one HTML file with picture, areas, tiles, plan, seam check and versions.",
)
@cluster_options
@feed_option
@click.option(
    "--tile-timeout",
    "tile_seconds",
    default="10min",
    show_default=True,
    metavar="TIME",
    callback=seconds_option,
    help="A tile that takes longer than this, and 50 times longer than any before it, hangs: its "
    "worker is ended, and it is tried elsewhere. 0: wait for ever.",
)
@click.option(
    "--performance-report",
    type=click.Path(dir_okay=False, writable=True),
    metavar="FILE",
    help="Write dask's report of the workers' last tasks, transfers and load to this HTML file.",
)
@json_option
@click.pass_context
def run(
    context: click.Context,
    image: tuple[str, ...],
    listed: TextIO | None,
    model: str,
    options: "RunOptions",
    foreign: "ForeignOptions",
    labels: str | None,
    output: str | None,
    overwrite: bool,
    take_over: bool,
    allow_partial: bool,
    keep_ledger: bool,
    repair: bool,
    verify: int,
    profile: str | None,
    report_folder: str | None,
    partition: Partition,
    commit: bool,
    cluster: "ClusterOptions",
    performance_report: str | None,
    as_json: bool,
) -> None:
    """Segment IMAGE with a U-Net, tile by tile: OME-Zarr, or a slide, TIFF or picture as it is.

    The labels are those that one forward pass over the whole (mirrored) image would give, for
    every tile size and number of workers. They become an OME-Zarr label image in
    IMAGE/labels/NAME (of a file: IMAGE.labels.zarr/NAME, beside it), visible once it is whole.
    Run the same command again to resume.

    Several images, a pattern, a list, or the fields of a plate share one cluster and one loaded
    model. One that fails does not stop the others; the table at the end tells what became of each.
    The same command again does what is missing.

    \b
    Exit codes: 0 done; 1 error; 2 usage; 3 the labels belong to another run;
    4 stopped before the end, run again to resume; 5 some tiles failed everywhere;
    75 stopped by a batch system (SIGTERM), run again to resume. Of several images, the worst.
    """
    from tilesegment.usecases.repair import repair as repair_labels
    from tilesegment.usecases.segment import segment

    what: dict[str, Any] = {
        "model": model,
        "labels": labels,
        "options": options,
        "foreign": foreign,
        "cluster": cluster,
    }
    wishes: dict[str, Any] = {
        "overwrite": overwrite,
        "take_over": take_over,
        "allow_partial": allow_partial,
        "keep_ledger": keep_ledger,
        "verify": verify,
        "profile": profile,
        "commit": commit,
    }
    if repair and (any(wishes.values()) or partition != WHOLE):
        raise OptionError("--repair mends finished labels; leave out the other options of a run")
    wishes["partition"] = partition
    if not image and listed is None:
        refuse_no_image(context)
    images = find_images(image, listed)
    if report_folder is not None:
        from tilesegment.usecases.report import make_report_folder

        if partition != WHOLE:
            raise OptionError("--report tells of whole labels; add it to the run that commits them")
        make_report_folder(report_folder)
    if len(images) != 1 or len(image) != 1 or is_pattern(image[0]):
        if output is not None or repair or performance_report:
            raise OptionError("--output, --repair and --performance-report are for one image")
        _run_many(images, as_json, report_folder, **what, **wishes)
        return
    with stopped_by_signals(), show_run() as report:
        if repair:
            summary = repair_labels(images[0], **what, output=output, report=report)
        else:
            summary = segment(
                images[0],
                **what,
                **wishes,
                output=output,
                performance_report=performance_report,
                report=report,
            )
    _report(images[0], summary, report_folder)
    click.echo(json.dumps(asdict(summary)) if as_json else _text(summary))


def _report(image: str, summary: "RunSummary", folder: str | None) -> None:
    """Write the report of one image, if it is wanted."""
    if folder is None:
        return
    from tilesegment.usecases.report import write_report

    command = shlex.join(["tilesegment", *sys.argv[1:]])
    path = write_report(image, summary.labels, folder, command, summary.verified)
    click.echo(f"Report:  {path}", err=True)


def _run_many(
    images: list[str], as_json: bool, report_folder: str | None, **arguments: Any
) -> None:
    """Segment images one after the other; the table tells of all that were tried, come what may."""
    from tilesegment.usecases.batch import ImageOutcome, segment_many

    outcomes: list[ImageOutcome] = []

    def finished(outcome: ImageOutcome) -> None:
        outcomes.append(outcome)
        if outcome.summary is not None:
            _report(outcome.image, outcome.summary, report_folder)
        batch.tell_finished(outcome, len(outcomes), len(images))

    try:
        with stopped_by_signals(), show_batch() as report:
            segment_many(images, report=report, finished=finished, **arguments)
    finally:
        if outcomes and as_json:
            click.echo(json.dumps(batch.as_json(outcomes, len(images))))
        elif outcomes:
            batch.print_table(outcomes, len(images))
    sys.exit(batch.exit_code(outcomes))


def _text(summary: "RunSummary") -> str:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in summary.shares.items())
    if summary.status == "partition done":
        return _partition_text(summary)
    if summary.status == "already complete":
        return f"Already complete: {summary.labels}\nClasses: {shares}{_verified(summary)}"
    for place in summary.quarantined:
        rows, columns = place["rows"], place["columns"]
        click.echo(
            f"Warning: plane {place['plane']}, rows {rows[0]} to {rows[1]}, columns {columns[0]} "
            f"to {columns[1]} are background: {place['reason']}",
            err=True,
        )
    return (
        f"Labels:  {summary.labels}\n"
        f"Tiles:   {summary.tiles}{_not_computed(summary)}\n"
        f"Time:    {human_seconds(summary.seconds)}, "
        f"{summary.megapixels_per_second:.2f} Mpx/s\n"
        f"{_workers(summary)}{_gpus(summary)}"
        f"Classes: {shares}{_verified(summary)}"
    )


def _workers(summary: "RunSummary") -> str:
    """A line about the workers, where there were several, or where tiles failed."""
    told = summary.cluster or {"workers": (), "retries": 0}
    workers, retries = told["workers"], told["retries"]
    if not workers or (len(workers) < 2 and not retries):
        return ""
    rates = [worker["megapixels_per_second"] for worker in workers]
    idle = [worker["idle_share"] for worker in workers]
    return (
        f"Workers: {len(workers)}, {min(rates):.2f} to {max(rates):.2f} Mpx/s each, idle "
        f"{min(idle):.0%} to {max(idle):.0%} of the time; {retries} retries; "
        f"{human_bytes(told['moved_bytes'])} sent by workers\n"
    )


def _gpus(summary: "RunSummary") -> str:
    """A line about GPUs, where dask has measured any."""
    told = [
        worker for worker in (summary.cluster or {}).get("workers", ()) if "gpu_share" in worker
    ]
    if not told:
        return ""
    shares = [worker["gpu_share"] for worker in told]
    memory = max(worker["gpu_memory_bytes"] for worker in told)
    return (
        f"GPUs:    {len(told)}, busy {min(shares):.0%} to {max(shares):.0%} of the time, "
        f"at most {human_bytes(memory)} in use\n"
    )


def _partition_text(summary: "RunSummary") -> str:
    told = f"Partition {summary.partition} done: {summary.tiles} tiles{_not_computed(summary)}; "
    if not summary.unfinished:
        return told + "another run is publishing the labels"
    numbers = ", ".join(map(str, summary.unfinished))
    return told + f"not finished yet: {numbers}. The last one to finish publishes the labels"


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
