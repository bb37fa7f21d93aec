"""From a job to published labels: tiles, levels, checksums, metadata."""

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilesegment.errors import OutputConflictError, QuarantineError
from tilesegment.refinement import refinement_facts
from tilesegment.retry import Failure, Trouble
from tilesegment.storage.checksums import write_copies, write_objects
from tilesegment.storage.image import OMEVersion
from tilesegment.storage.inventory import write_absent
from tilesegment.storage.labels import (
    LabelVolume,
    levels_to_derive,
    list_labels,
    refresh_consolidated,
    remove_labels,
)
from tilesegment.storage.ledger import Ledger, TileRecord
from tilesegment.storage.media import medium_of
from tilesegment.storage.remote import Location, RemotePath
from tilesegment.storage.replacing import remove_unpublished_levels
from tilesegment.usecases.job import Job, RunSummary, blend_facts
from tilesegment.usecases.workers import Run, report_progress, while_waiting

if TYPE_CHECKING:
    from tilesegment.execution.worker import WorkerKind

_TOLD_TILES = 10
"""Quarantined tiles that an error names; the labels' metadata name all."""


def compute_labels(
    job: Job, run: Run, volume: LabelVolume, ledger: Ledger, allow_partial: bool
) -> dict[int, Failure]:
    """Compute all that the ledger lacks; returns the last failure of each tile given up.

    Raises:
        OutputConflictError: if the image was changed meanwhile.
    """
    quarantined = compute_tiles(job, run, volume, ledger, range(len(job.plan.grid)), allow_partial)
    compute_levels(job, run, volume, ledger)
    return quarantined


def compute_tiles(
    job: Job,
    run: Run,
    volume: LabelVolume,
    ledger: Ledger,
    tiles: Collection[int],
    allow_partial: bool,
) -> dict[int, Failure]:
    """Compute those of the tiles that the ledger lacks; returns the last failure of each given up.

    Raises:
        QuarantineError: if some are given up, and that is not allowed.
    """
    quarantined = _segment_tiles(job, run, volume, ledger, tiles)
    ledger.flush()
    if quarantined:
        _quarantine(job, volume, ledger, quarantined, allow_partial)
    return quarantined


def compute_levels(job: Job, run: Run, volume: LabelVolume, ledger: Ledger) -> None:
    """Derive the levels that the ledger lacks from the one that was segmented.

    Raises:
        OutputConflictError: if the image was changed meanwhile.
    """
    derive_all_levels(run, volume, ledger, job.plan.tile, job.plan.source.level)
    refuse_changed(job)


def refuse_changed(job: Job) -> None:
    """Refuse labels of an image that is not what it was when the run began.

    Raises:
        OutputConflictError: if it was changed.
    """
    if job.image.inventory(job.plan.source.level).times != job.inventory.times:
        raise OutputConflictError(
            f"{job.image.location} was changed while it was segmented; start anew with --overwrite"
        )


def choose_publishing(volume: LabelVolume) -> LabelVolume:
    """The volume, with what its storage allows; tried, not guessed."""
    medium = medium_of(volume.directory)
    try:
        return replace(volume, publishing=medium.choose_publishing(volume.directory))
    except OSError as error:
        raise medium.write_failed(error, volume.directory) from error


def publish(job: Job, volume: LabelVolume, ledger: Ledger, provenance: Mapping[str, Any]) -> None:
    """Let the labels of a run appear."""
    publish_volume(job.checksums, volume, ledger, provenance)


def publish_volume(
    checksums: Location, volume: LabelVolume, ledger: Ledger, provenance: Mapping[str, Any]
) -> None:
    """Checksums first, then the metadata: the label image appears whole, or not at all."""
    ledger.flush()
    provenance = {**provenance, "checksums": write_objects(checksums, ledger.done.values())}
    write_copies(checksums, volume.final_documents(provenance))
    volume.publish(provenance)


def announce(job: Job) -> None:
    """Let readers of the image find its new labels."""
    if job.inside:
        announce_labels(job.directory, job.image.version)


def announce_labels(directory: Location, ome_version: OMEVersion) -> None:
    """Let readers of an image find the label image in this directory of it."""
    list_labels(directory.parent, directory.name, ome_version)
    refresh_consolidated(directory.parent.parent)


def _segment_tiles(
    job: Job, run: Run, volume: LabelVolume, ledger: Ledger, tiles: Collection[int]
) -> dict[int, Failure]:
    """Segment what the ledger lacks; returns the last failure of each tile that is given up."""
    from tilesegment.execution.engine import segment_tiles
    from tilesegment.execution.feed import TileFeed
    from tilesegment.execution.worker import TileWriter

    plan = job.plan
    level = plan.source.level
    values = tuple(item.value for item in job.description.classes)
    writer = TileWriter(volume, level, values, plan.resampling)
    absent = write_absent(ledger.directory, job.inventory)
    pixels = job.image.pixels(level, absent)
    feed = TileFeed(plan, pixels, writer, run.name, run.plugin, job.mask)
    wanted = set(tiles).difference(ledger.finished(level))
    finished, computed = len(tiles) - len(wanted), 0
    trouble, idle = Trouble(resumed=bool(finished)), while_waiting(run, ledger)
    report_progress(run, "tiles", finished, len(tiles), 0)
    for record in segment_tiles(run.client, feed, wanted, trouble, idle):
        ledger.add(record)
        run.note(record)
        finished += 1
        computed += sum(record.counts)
        report_progress(run, "tiles", finished, len(tiles), computed)
    run.accounts.retries += trouble.noted
    quarantined = trouble.quarantined()
    if quarantined and not finished:
        raise next(iter(quarantined.values())).error
    return quarantined


def _quarantine(
    job: Job,
    volume: LabelVolume,
    ledger: Ledger,
    quarantined: Mapping[int, Failure],
    allow_partial: bool,
) -> None:
    """Write background where tiles failed everywhere, if the user allows it.

    Raises:
        QuarantineError: if not; the message names the tiles.
    """
    if not allow_partial:
        told = "; ".join(
            f"rows {place['rows'][0]} to {place['rows'][1]}, columns {place['columns'][0]} to "
            f"{place['columns'][1]} of plane {place['plane']}: {place['reason']}"
            for place in quarantined_places(job, quarantined)[:_TOLD_TILES]
        )
        raise QuarantineError(
            f"{len(quarantined)} of {len(job.plan.grid)} tiles failed everywhere ({told}); all "
            "others are kept. Run the same command again, or publish with background there "
            "(--allow-partial) and compute them with --repair once the cause is mended"
        )
    level, grid = job.plan.source.level, job.plan.grid
    nothing = (0,) * len(job.description.classes)
    for number in quarantined:
        tile = grid.tile_at(number)
        window = grid.write_window(tile)
        background = np.zeros((window.height, window.width), job.description.label_dtype)
        unknown = volume.no_probabilities(window)
        written = volume.write(level, tile.plane, window, background, unknown)
        ledger.add(TileRecord(number, nothing, level, written.objects))


def quarantined_places(job: Job, quarantined: Mapping[int, Failure]) -> tuple[dict[str, Any], ...]:
    """Where the quarantined tiles lie, and what was wrong with them; JSON."""
    places = []
    for number, failure in sorted(quarantined.items()):
        tile = job.plan.grid.tile_at(number)
        rows, columns = job.plan.grid.write_window(tile).slices
        places.append(
            {
                "tile": number,
                "plane": tile.plane,
                "rows": [rows.start, rows.stop],
                "columns": [columns.start, columns.stop],
                "reason": str(failure.error),
            }
        )
    return tuple(places)


def derive_all_levels(
    run: Run, volume: LabelVolume, ledger: Ledger, tile: int, processed: int
) -> None:
    """Write all levels but the processed one, which is stored."""
    from tilesegment.execution.engine import derive_levels

    steps = list(levels_to_derive(len(volume.arrays), processed))
    grids = {level: volume.grid(level, tile) for level, _ in steps}
    total = sum(map(len, grids.values()))
    finished = pixels = 0
    for level, neighbour in steps:
        done, trouble = set(ledger.finished(level)), Trouble()
        finished += len(done)
        for record in derive_levels(
            run.client, volume, level, neighbour, tile, run.name, done, trouble,
            while_waiting(run, ledger),
        ):  # fmt: skip
            ledger.add(record)
            finished += 1
            window = grids[level].write_window(grids[level].tile_at(record.number))
            pixels += window.height * window.width
            report_progress(run, "levels", finished, total, pixels)
        for failure in trouble.quarantined().values():
            raise failure.error


def summarise(
    job: Job,
    ledger: Ledger,
    earlier: Collection[int],
    seconds: float,
    tiles: Collection[int] | None = None,
) -> RunSummary:
    """What was done.

    Args:
        job: what was to be done.
        ledger: with what is done.
        earlier: numbers of tiles that were finished otherwise.
        seconds: that it took.
        tiles: those that are summed up; None for all.
    """
    records = ledger.finished(job.plan.source.level)
    if tiles is not None:
        records = {number: record for number, record in records.items() if number in tiles}
    names = [item.name for item in job.description.classes]
    counts = np.zeros(len(names), dtype=np.int64)
    for record in records.values():
        counts += record.counts
    work = Counter(record.work for number, record in records.items() if number not in earlier)
    finished = job.plan.pixels * work.total() / len(job.plan.grid)
    return RunSummary(
        status="done",
        labels=str(job.directory),
        tiles=len(records),
        computed=work["computed"],
        skipped=len(records) - work.total(),
        seconds=round(seconds, 3),
        megapixels_per_second=round(finished / 1e6 / seconds, 3),
        shares={
            name: round(float(count / max(counts.sum(), 1)), 6)
            for name, count in zip(names, counts, strict=True)
        },
        reused=work["reused"],
        masked=work["masked"],
    )


def provenance_of(job: Job, workers: "WorkerKind", summary: RunSummary) -> dict[str, Any]:
    plan = job.plan
    return {
        "version": version("tilesegment"),
        "fingerprint": job.fingerprint(workers.precision),
        "model": job.model.source,
        "foreign": asdict(job.model.foreign),
        "options": asdict(job.options),
        "workers": asdict(workers),
        "summary": {**asdict(summary), "labels": Path(summary.labels).name, "cluster": None},
        "plan": {
            "tile": plan.tile,
            "halo": plan.halo,
            "level": plan.source.level,
            "resampled_by": plan.source.step,
            "reason": plan.source.reason,
            "blend": blend_facts(plan.network.blend),
            **({"suffix": job.suffix} if job.suffix else {}),
            "refinement": refinement_facts(plan.network.refinement),
        },
    }


def remove_unpublished(job: Job) -> None:
    """Delete labels that never were published, and the labels group if it becomes empty."""
    if isinstance(job.directory, RemotePath):
        remove_unpublished_levels(job.directory, ledger=True)
        return
    remove_labels(job.directory)
    if job.inside:
        with suppress(OSError):
            job.directory.parent.rmdir()
