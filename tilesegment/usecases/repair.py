"""Finished labels, of which objects were lost or damaged, or tiles had failed, made whole."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilesegment.config import ClusterOptions, ForeignOptions, RunOptions
from tilesegment.errors import OutputError
from tilesegment.model import zoo
from tilesegment.model.opening import open_model
from tilesegment.storage.checksums import Checksums, damaged_objects, find_checksums, read_checksums
from tilesegment.storage.labels import published_provenance
from tilesegment.storage.ledger import Ledger, TileRecord, refuse_other_run
from tilesegment.usecases.deep import copied_provenance
from tilesegment.usecases.job import Job, RunSummary, prepare_job
from tilesegment.usecases.labelling import announce, compute_labels, publish, summarise
from tilesegment.usecases.workers import (
    Progress,
    Run,
    agree_on_workers,
    fed,
    model_on_workers,
    with_known_statistics,
)


def repair(
    image: str | Path,
    model: str | Path = zoo.DEFAULT,
    *,
    labels: str | None = None,
    output: str | Path | None = None,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    cluster: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
    foreign: ForeignOptions = ForeignOptions(),  # noqa: B008 - frozen
    report: Callable[[Progress], None] | None = None,
) -> RunSummary:
    """Compute the tiles of a published label image that are lost, damaged, or had failed.

    Every object is compared with its checksum first. Each that is repaired takes the place of
    the damaged one at once; nothing else is touched.

    Args:
        image, model, labels, output, cluster, foreign, report: as for `segment`.
        options: as for `segment`; the tile is that of the labels.

    Raises:
        OutputConflictError: the labels were made by another model, or of another image.
        QuarantineError: some tiles failed again.
        OutputError: there are no finished labels with checksums.
    """
    from tilesegment.execution.cluster import inference_threads, open_cluster, resolve_kind

    opened = open_model(model, foreign, blended=options.blend is not None)
    directory = prepare_job(image, opened, labels, output, options).directory
    checksums = read_checksums(find_checksums(directory))
    kept = copied_provenance(checksums) or published_provenance(directory)
    if not kept:
        raise OutputError(f"the metadata of {directory} is lost; start anew with --overwrite")
    options = replace(options, tile=kept["plan"]["tile"])
    job = prepare_job(image, opened, labels, output, options)
    job = replace(job, suffix=kept["plan"].get("suffix", ""))
    cluster = resolve_kind(cluster)
    with open_cluster(cluster) as client:
        workers = agree_on_workers(client, cluster, job)
        job = fed(job, client, cluster, workers)
        job = with_known_statistics(job, client, workers, kept, report)
        fingerprint = job.fingerprint(workers.precision)
        refuse_other_run(*_but_for_mended(kept, fingerprint), job.directory)
        on_workers = job.worker_model(workers, inference_threads(cluster))
        with (
            model_on_workers(client, on_workers, report) as run,
            Ledger(job.directory, job.ledger_fingerprint(workers)) as ledger,
        ):
            ledger.believe(_intact(job, checksums, kept))
            summary = _repair(job, run, ledger, {**kept, "fingerprint": fingerprint})
            ledger.remove()
        announce(job)
        return summary


def _but_for_mended(
    provenance: Mapping[str, Any], fingerprint: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What must be equal for a repair: not the chunks, where tiles failed for want of them."""
    stored: Mapping[str, Any] = provenance["fingerprint"]
    if not provenance["summary"]["quarantined"]:
        return stored, fingerprint
    chunks = ("image chunks", "image chunk sizes")
    return (
        {key: value for key, value in stored.items() if key not in chunks},
        {key: value for key, value in fingerprint.items() if key not in chunks},
    )


def _intact(job: Job, checksums: Checksums, provenance: Mapping[str, Any]) -> Iterator[TileRecord]:
    """The tiles that need not be computed again.

    Levels that were made from a tile that had failed are all made again.
    """
    damaged = {
        (item.level, item.number) for item in damaged_objects(job.directory, checksums.records)
    }
    failed = {place["tile"] for place in provenance["summary"]["quarantined"]}
    for record in checksums.records:
        segmented = record.level == job.plan.source.level
        again = record.number in failed if segmented else bool(failed)
        if not again and (record.level, record.number) not in damaged:
            yield record


def _repair(job: Job, run: Run, ledger: Ledger, provenance: Mapping[str, Any]) -> RunSummary:
    volume = replace(job.volume, publishing="replace")
    earlier = frozenset(ledger.finished(job.plan.source.level))
    started = time.perf_counter()
    compute_labels(job, run, volume, ledger, allow_partial=False)
    summary = summarise(job, ledger, earlier, time.perf_counter() - started)
    whole = {**provenance["summary"], "shares": summary.shares, "quarantined": []}
    publish(job, volume, ledger, {**provenance, "summary": whole})
    return replace(summary, status="repaired")
