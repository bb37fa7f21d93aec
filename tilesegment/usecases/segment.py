"""The use case that the project exists for: an image and a model in, a label volume out."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesegment.accounting import Accounts
from tilesegment.config import ClusterOptions, ForeignOptions, RunOptions
from tilesegment.errors import (
    IncompleteError,
    OptionError,
    OutputError,
    StoreError,
    TilesegmentError,
)
from tilesegment.model import zoo
from tilesegment.model.opening import Model, open_model
from tilesegment.partition import WHOLE, Partition
from tilesegment.retry import TileLimit
from tilesegment.storage.labels import (
    beside_labels,
    finish_swap,
    published_provenance,
    refuse_foreign,
    remove_labels,
    swap_labels,
)
from tilesegment.storage.ledger import (
    Ledger,
    clear_finished,
    is_unfinished_run,
    refuse_living_driver,
    refuse_other_run,
)
from tilesegment.storage.remote import NoAnswerError, RemotePath
from tilesegment.storage.replacing import (
    new_suffix,
    remove_unpublished_levels,
    unfinished_suffix,
)
from tilesegment.usecases.job import Job, RunSummary, earlier_summary, prepare_job
from tilesegment.usecases.labelling import (
    announce,
    choose_publishing,
    compute_labels,
    provenance_of,
    publish,
    quarantined_places,
    remove_unpublished,
    summarise,
)
from tilesegment.usecases.partitions import refuse_missing, segment_partition
from tilesegment.usecases.profile import profiled
from tilesegment.usecases.verify import (
    _refuse_quarantined,
    refuse_fixed_input,
    refuse_unequal,
    verify_labels,
)
from tilesegment.usecases.workers import (
    Models,
    Progress,
    Run,
    agree_on_workers,
    count_sent,
    fed,
    report_cluster,
    with_known_statistics,
)

if TYPE_CHECKING:
    from distributed import Client

    from tilesegment.execution.worker import WorkerKind


def segment(
    image: str | Path,
    model: str | Path = zoo.DEFAULT,
    *,
    labels: str | None = None,
    output: str | Path | None = None,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    cluster: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
    foreign: ForeignOptions = ForeignOptions(),  # noqa: B008 - frozen
    overwrite: bool = False,
    take_over: bool = False,
    allow_partial: bool = False,
    keep_ledger: bool = False,
    verify: int = 0,
    profile: str | Path | None = None,
    partition: Partition = WHOLE,
    commit: bool = False,
    performance_report: str | Path | None = None,
    report: Callable[[Progress], None] | None = None,
) -> RunSummary:
    """Write the label volume that one forward pass over the whole mirrored image would give.

    The same call again resumes an unfinished run, or finds that it is complete.

    Args:
        image: path of an OME-Zarr image, with axes of t, c, z, y, x, or of a slide, TIFF or
            picture, which is read as `import_image` would.
        model: path of a model file, name of a bundled model, or a foreign network: path of an
            ONNX file, a bioimage.io folder, TorchScript or a .pt2; or "module:factory".
        labels: name of the label image; the model's by default.
        output: a store of its own for the label image; by default ``image/labels/NAME``, or
            ``FILE.labels.zarr/NAME`` beside an image that is a file.
        options: level, tile, precision, views and mask.
        cluster: who computes.
        foreign: what a foreign network cannot say of itself.
        overwrite: replace a label image of the same name, once the new one is whole.
        take_over: go on although another run is writing these labels; that one will stop.
        allow_partial: publish although some tiles failed everywhere; they are background.
        keep_ledger: keep the record of the run beside the published labels.
        verify: windows of the finished labels to compute again (see `tilesegment.verify`).
        profile: a folder for profile.json and profile.svg, which tell where the time went.
        partition: do the tiles of one of several runs that share the labels; the last one to
            finish publishes.
        performance_report: write dask's report of the workers' last tasks to this HTML file.
        commit: compute no tile: publish what partitions have done, if it is all.
        report: called after each tile.

    Raises:
        InputError: the image is absent, damaged, or holds NaN.
        ModelError: the model cannot be used, takes other channels, or has no finite border.
        OptionError: an option cannot work here.
        ClusterError: there are no workers.
        OutputConflictError: the labels belong to another run.
        QuarantineError: some tiles failed everywhere; all others are kept.
        IncompleteError: the run stopped; finished tiles are kept.
        OutputError: the labels cannot be written.
        VerificationError: labels that were computed again are others.
    """
    from tilesegment.execution.cluster import open_cluster, reported, resolve_kind

    opened = open_model(model, foreign, blended=options.blend is not None)
    wishes = Wishes(
        labels, output, overwrite, take_over, allow_partial, keep_ledger, verify, partition, commit
    )
    cluster = resolve_kind(cluster)
    prepared = prepare(image, opened, options, wishes, cluster)
    with (
        open_cluster(cluster) as client,
        reported(client, performance_report),
        Models(client) as models,
        profiled(client, profile),
    ):
        return segment_prepared(prepared, wishes, client, cluster, models, report)


@dataclass(frozen=True)
class Wishes:
    """Where the labels go, and what is done with them beside computing; see `segment`."""

    labels: str | None = None
    output: str | Path | None = None
    overwrite: bool = False
    take_over: bool = False
    allow_partial: bool = False
    keep_ledger: bool = False
    verify: int = 0
    partition: Partition = WHOLE
    commit: bool = False

    def refuse_contradiction(self) -> None:
        """Refuse what one of several runs cannot decide for all.

        Raises:
            OptionError: with what to do instead.
        """
        decided = self.overwrite or self.allow_partial or self.verify or self.commit
        if self.partition != WHOLE and decided:
            raise OptionError(
                f"--partition {self.partition} cannot replace, complete or verify labels that "
                "others write too; run once more without --partition when all are done (instead "
                "of --overwrite: another --labels name)"
            )
        if self.commit and self.overwrite:
            raise OptionError("--commit publishes what is done, and --overwrite discards it")


@dataclass(frozen=True)
class Prepared:
    """A job, and what stands where its labels go."""

    job: Job
    kept: Mapping[str, Any] | None
    """Provenance of finished labels, unless they are to be replaced."""


def prepare(
    image: str | Path, model: Model, options: RunOptions, wishes: Wishes, cluster: ClusterOptions
) -> Prepared:
    """All that can be found out before there are workers; raises as `segment` does."""
    wishes.refuse_contradiction()
    if wishes.verify:
        refuse_fixed_input(model)
    job = prepare_job(image, model, wishes.labels, wishes.output, options, cluster.on_gpus)
    swapped = finish_swap(job.directory)
    refuse_foreign(job.directory, wishes.overwrite)
    replaced = wishes.overwrite and not swapped
    return Prepared(job, None if replaced else published_provenance(job.directory))


def segment_prepared(
    prepared: Prepared,
    wishes: Wishes,
    client: "Client",
    cluster: ClusterOptions,
    models: Models,
    report: Callable[[Progress], None] | None,
) -> RunSummary:
    """Segment one image on workers that are there; raises as `segment` does.

    Args:
        prepared: what is to be done.
        wishes: what is done with the labels.
        client: of the workers.
        cluster: where they come from, resolved.
        models: what they hold.
        report: called after each tile.
    """
    from tilesegment.execution.cluster import inference_threads
    from tilesegment.execution.watch import WorkerWatch

    job, kept = prepared.job, prepared.kept
    workers = agree_on_workers(client, cluster, job)
    job = fed(job, client, cluster, workers)
    job = with_known_statistics(job, client, workers, kept, report)
    fingerprint = job.fingerprint(workers.precision)
    if wishes.overwrite and kept is not None and kept.get("fingerprint") != fingerprint:
        kept = None
    if kept is not None:
        refuse_other_run(kept["fingerprint"], fingerprint, job.directory)
        if not wishes.verify:
            return _complete(job, kept, wishes.allow_partial)
    run = models.run(job.worker_model(workers, inference_threads(cluster)), report)
    accounts, limit = Accounts(), TileLimit(cluster.tile_seconds)
    watch = WorkerWatch(client, run.name, run.plugin, cluster.wait_seconds, limit, accounts)
    run = replace(run, watch=watch, accounts=accounts)
    sent = count_sent(client)
    if kept is not None:
        summary = _complete(job, kept, wishes.allow_partial)
    elif wishes.partition != WHOLE:
        target = _place(job, workers, wishes.overwrite, wishes.take_over)
        with _resumable():
            summary = segment_partition(
                target, run, workers, wishes.partition, wishes.take_over, wishes.keep_ledger
            )
    else:
        summary = _compute(job, run, workers, wishes)
    summary = replace(summary, cluster=report_cluster(run, sent))
    if wishes.verify:
        found = verify_labels(job, run, workers, wishes.verify, seed=0)
        refuse_unequal(found, job.directory)
    return replace(summary, verified=wishes.verify)


def _compute(job: Job, run: Run, workers: "WorkerKind", wishes: Wishes) -> RunSummary:
    """Begin or resume a run, and publish its labels."""
    target = _place(job, workers, wishes.overwrite, wishes.take_over)
    tiles = target.ledger_fingerprint(workers)
    if wishes.commit and not is_unfinished_run(target.directory, tiles):
        raise OutputError(f"{target.directory} has nothing to commit; run its partitions first")
    with _resumable(), Ledger(target.directory, tiles, take_over=wishes.take_over) as ledger:
        if wishes.commit:
            refuse_missing(target, ledger)
        summary = _run(target, run, ledger, workers, wishes.allow_partial)
        if isinstance(target.directory, RemotePath):
            remove_unpublished_levels(target.directory, ledger=False)
        ledger.remove(target.checksums / "ledger" if wishes.keep_ledger else None)
    if target.directory != job.directory:
        swap_labels(target.directory, job.directory)
    announce(job)
    return replace(summary, labels=str(job.directory))


def _run(
    job: Job, run: Run, ledger: Ledger, workers: "WorkerKind", allow_partial: bool
) -> RunSummary:
    volume = choose_publishing(job.volume)
    earlier = frozenset(ledger.finished(job.plan.source.level))
    started = time.perf_counter()
    try:
        quarantined = compute_labels(job, run, volume, ledger, allow_partial)
    except TilesegmentError:
        if not ledger.done and ledger.is_newest:
            ledger.close()
            remove_unpublished(job)
        raise
    summary = summarise(job, ledger, earlier, time.perf_counter() - started)
    summary = replace(summary, quarantined=quarantined_places(job, quarantined))
    publish(job, volume, ledger, provenance_of(job, workers, summary))
    return summary


@contextmanager
def _resumable() -> Iterator[None]:
    """What an object store refuses while a run goes on can be mended, and the run goes on."""
    try:
        yield
    except (StoreError, NoAnswerError) as error:
        raise IncompleteError(
            f"{error}; then run the same command again: finished tiles are kept"
        ) from error


def _place(job: Job, workers: "WorkerKind", overwrite: bool, take_over: bool) -> Job:
    """Where the run writes: beside the labels that it is to replace, otherwise in place."""
    if isinstance(job.directory, RemotePath):
        return _place_beside_levels(job, job.directory, workers, overwrite, take_over)
    tiles = job.ledger_fingerprint(workers)
    if not overwrite or not job.directory.exists() or is_unfinished_run(job.directory, tiles):
        return job
    beside = beside_labels(job.directory)
    for directory in (job.directory, beside):
        if not take_over:
            refuse_living_driver(directory)
    if not is_unfinished_run(beside, tiles):
        remove_labels(beside)
    return replace(job, directory=beside)


def _place_beside_levels(
    job: Job, directory: RemotePath, workers: "WorkerKind", overwrite: bool, take_over: bool
) -> Job:
    """Levels of their own; those of the unfinished run that this one goes on with, if any."""
    suffix = unfinished_suffix(directory)
    fresh = replace(job, suffix=new_suffix(directory, job.ledger_fingerprint(workers)))
    if suffix is None:
        return fresh
    resumed = replace(job, suffix=suffix)
    if not overwrite or is_unfinished_run(directory, resumed.ledger_fingerprint(workers)):
        return resumed
    if not take_over:
        refuse_living_driver(directory)
    remove_unpublished_levels(directory, ledger=True)
    return fresh


def _complete(job: Job, provenance: Mapping[str, Any], allow_partial: bool) -> RunSummary:
    """The summary of a label image that an earlier run has published.

    Raises:
        QuarantineError: if some of its tiles are background for want of better.
    """
    clear_finished(job.directory)
    announce(job)
    earlier = earlier_summary(job, provenance)
    if not allow_partial:
        _refuse_quarantined(job, earlier.quarantined)
    return earlier
