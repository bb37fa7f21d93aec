"""One image for several independent runs: each does its tiles, the last one to finish publishes.

A run looks at the records of all once its own are durable. Of several that finish at the same
moment at least the one whose records were last finds everything done, and one of those that do
becomes the publisher: the others see it at work, or find the labels published.
"""

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tilesegment.errors import IncompleteError, OutputBusyError, OutputError
from tilesegment.mask import Mask
from tilesegment.partition import Partition, deal
from tilesegment.planning import Plan
from tilesegment.storage.labels import published_provenance
from tilesegment.storage.ledger import Ledger, read_unfinished
from tilesegment.usecases.job import Job, RunSummary, earlier_summary
from tilesegment.usecases.labelling import (
    announce,
    choose_publishing,
    compute_levels,
    compute_tiles,
    provenance_of,
    publish,
    refuse_changed,
    summarise,
)
from tilesegment.usecases.workers import Run

if TYPE_CHECKING:
    from tilesegment.execution.worker import WorkerKind

_COMPUTED_COST, _MASKED_COST = 20, 1
"""A tile outside the mask is only written."""


@dataclass(frozen=True)
class Share:
    """The tiles of one partition: neighbours, in the order in which one run would do them."""

    partition: Partition
    plan: Plan
    mask: Mask | None
    """Which pixels are wanted; None for all."""

    @cached_property
    def owners(self) -> npt.NDArray[np.int64]:
        """Number of the partition that does each tile: (tiles,), by the tile's number."""
        grid = self.plan.grid
        tiles = [tile for region in self.plan.region_list() for tile in region.tiles()]
        costs = [
            _MASKED_COST
            if self.mask and self.mask.cover(tile.plane, grid.write_window(tile)) == "none"
            else _COMPUTED_COST
            for tile in tiles
        ]
        owners = np.empty(len(tiles), np.int64)
        owners[[grid.number(tile) for tile in tiles]] = deal(costs, self.partition.of)
        return owners

    @cached_property
    def tiles(self) -> frozenset[int]:
        """Numbers of the partition's tiles."""
        return frozenset(np.flatnonzero(self.owners == self.partition.number).tolist())

    def unfinished(self, done: frozenset[int]) -> tuple[int, ...]:
        """Numbers of the partitions with a tile that is not done."""
        missing = np.ones(len(self.owners), bool)
        missing[list(done)] = False
        return tuple(np.unique(self.owners[missing]).tolist())


def segment_partition(
    job: Job,
    run: Run,
    workers: "WorkerKind",
    partition: Partition,
    take_over: bool,
    keep_ledger: bool,
) -> RunSummary:
    """Do the tiles of one partition, and publish the labels if it is the last to finish.

    Raises:
        OutputBusyError: another run does this partition, or the whole image.
        OutputConflictError: the labels belong to another run.
        QuarantineError: some tiles failed everywhere.
    """
    share = Share(partition, job.plan, job.mask)
    try:
        own, summary = _compute_share(job, run, workers, share, take_over)
        return _publish_if_last(job, run, workers, share, own, summary, keep_ledger)
    except OutputError:
        provenance = published_provenance(job.directory)
        if not provenance or provenance["fingerprint"] != job.fingerprint(workers.precision):
            raise
        # The others have done all meanwhile, and ended the run.
        return replace(earlier_summary(job, provenance), partition=str(partition))


def _compute_share(
    job: Job, run: Run, workers: "WorkerKind", share: Share, take_over: bool
) -> tuple[frozenset[int], RunSummary]:
    """The numbers of the tiles that this run has done, and what it did."""
    started = time.perf_counter()
    level = job.plan.source.level
    with Ledger(
        job.directory,
        job.ledger_fingerprint(workers),
        take_over=take_over,
        partition=share.partition,
        tiles=share.tiles,
    ) as ledger:
        if published_provenance(job.directory):
            ledger.remove()
            raise OutputError(f"{job.directory} was published meanwhile")
        volume = choose_publishing(job.volume)
        compute_tiles(job, run, volume, ledger, share.tiles, allow_partial=False)
        ledger.close()
    refuse_changed(job)
    own = frozenset(number for at, number in ledger.added if at == level)
    seconds = time.perf_counter() - started
    summary = summarise(job, ledger, share.tiles - own, seconds, share.tiles)
    return own, replace(summary, status="partition done", partition=str(share.partition))


def _publish_if_last(
    job: Job,
    run: Run,
    workers: "WorkerKind",
    share: Share,
    own: frozenset[int],
    summary: RunSummary,
    keep_ledger: bool,
) -> RunSummary:
    """The summary of the whole, if this run publishes it, or else of its part."""
    state = read_unfinished(job.directory)
    if state is None:
        raise OutputError(f"another run has finished or removed {job.directory}; this one stops")
    unfinished = share.unfinished(state.done)
    if unfinished:
        return replace(summary, unfinished=unfinished)
    started = time.perf_counter()
    publisher = share.partition.publisher
    try:
        ledger = Ledger(job.directory, job.ledger_fingerprint(workers), partition=publisher)
    except OutputBusyError:
        return summary
    with ledger:
        refuse_missing(job, ledger)
        volume = choose_publishing(job.volume)
        compute_levels(job, run, volume, ledger)
        seconds = summary.seconds + time.perf_counter() - started
        everything = frozenset(ledger.finished(job.plan.source.level))
        whole = replace(
            summarise(job, ledger, everything - own, seconds), partition=summary.partition
        )
        publish(job, volume, ledger, provenance_of(job, workers, whole))
        ledger.remove(job.checksums / "ledger" if keep_ledger else None)
    announce(job)
    return whole


def refuse_missing(job: Job, ledger: Ledger) -> None:
    """Refuse to publish labels of which tiles are missing.

    Raises:
        IncompleteError: with their number.
    """
    missing = len(job.plan.grid) - len(ledger.finished(job.plan.source.level))
    if missing:
        raise IncompleteError(
            f"{missing} of {len(job.plan.grid)} tiles are not done; run the partitions that "
            "stopped again, or once without --partition and --commit, which does all that is left"
        )
