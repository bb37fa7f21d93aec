"""Who executes a job: workers of one kind, that hold its model."""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tilesegment.accounting import Accounts
from tilesegment.config import ClusterOptions
from tilesegment.errors import ClusterError
from tilesegment.storage.labels import beside_labels
from tilesegment.storage.ledger import Ledger, TileRecord, unfinished_fingerprint
from tilesegment.usecases.job import Job, for_gpus
from tilesegment.usecases.statistics import FIELD as STATISTICS
from tilesegment.usecases.statistics import measure_statistics, stored_statistics, with_statistics

if TYPE_CHECKING:
    from distributed import Client

    from tilesegment.execution.watch import WorkerWatch
    from tilesegment.execution.worker import WorkerKind, WorkerModel

_logger = logging.getLogger(__name__)

Phase = Literal[
    "statistics", "tiles", "levels", "windows",
    "regions", "holes", "cleaning", "objects", "identities", "range", "measurements",
]  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """How far a run is; handed to the caller after every tile."""

    phase: Phase
    done: int
    total: int
    """Tiles of this phase."""
    pixels: int
    """Pixels of the tiles that this run has computed in this phase."""
    dashboard: str | None
    """Address of dask's dashboard."""
    workers: int = 0
    """That work now; 0 where nobody counts them, or there are none."""


@dataclass(frozen=True)
class Run:
    """The execution of a job."""

    client: "Client"
    name: str
    """New for each run, so that dask never returns an older result."""
    plugin: str
    """Name of the plugin that holds the model on each worker; empty if none does."""
    report: Callable[[Progress], None] | None
    watch: "WorkerWatch | None" = None
    """Of the workers, where they may come and go."""
    accounts: Accounts = field(default_factory=Accounts)
    """What each worker has done."""

    def note(self, record: TileRecord) -> None:
        """Note which worker has done a tile, and how slow tiles are."""
        pixels = sum(record.counts)
        self.accounts.note(record.worker or "", pixels, record.seconds, time.monotonic())
        if self.watch is not None and record.work == "computed":
            limit = self.watch.limit
            limit.slowest_seconds = max(limit.slowest_seconds, record.seconds)


def report_cluster(run: Run, sent_before: Mapping[str, int]) -> dict[str, Any]:
    """What a summary says of the workers.

    Args:
        run: that ends.
        sent_before: `count_sent` when it began; workers that left are not in the sum.
    """
    moved = count_sent(run.client).items()
    return run.accounts.report(sum(now - sent_before.get(each, 0) for each, now in moved))


def count_sent(client: "Client") -> dict[str, int]:
    """Bytes that each worker has sent to others and to the driver, since it started."""
    from tilesegment.execution.worker import sent_bytes

    # A worker that leaves meanwhile is not worth a run.
    sent: dict[str, int] = client.run(sent_bytes, on_error="ignore")
    return sent


def while_waiting(run: Run, ledger: Ledger) -> Callable[[], None]:
    """What a driver does while no record comes: write down what came, and look after workers."""

    def idle() -> None:
        ledger.rest()
        if run.watch is not None:
            run.watch.look()

    return idle


def report_progress(
    run: Run,
    phase: Phase,
    done: int,
    total: int,
    pixels: int,
) -> None:
    if run.report is not None:
        workers = run.watch.count if run.watch is not None else 0
        run.report(Progress(phase, done, total, pixels, run.client.dashboard_link, workers))


def agree_on_workers(client: "Client", cluster: ClusterOptions, job: Job) -> "WorkerKind":
    """What all workers are; they must be of one kind, or may be mixed, and see the image.

    Raises:
        ClusterError: if they differ, for their results would too; or if one lacks what it needs.
    """
    from tilesegment.execution.worker import describe_worker, held_gpu

    precision = job.description.precision(job.options.precision)
    answers = client.run(describe_worker, cluster.kind, precision, job.image.location)
    if not answers:
        raise ClusterError("no worker is left; run the same command again")
    blind = [address for address, (_, sees) in answers.items() if not sees]
    if blind:
        raise ClusterError(
            f"the workers at {', '.join(blind)} do not see {job.image.location}; put the image "
            "where all workers find it under one path"
        )
    kind = agreed_kind([kind for kind, _ in answers.values()], cluster.mixed_devices)
    gpus = [address for address, (kind, _) in answers.items() if kind.device == "cuda"]
    if cluster.kind == "gpu" and len(gpus) < len(answers):
        raise ClusterError(
            f"torch {kind.torch} cannot use the GPU here; install a CUDA build of torch"
        )
    if gpus:
        refuse_shared_gpu(client.run(held_gpu, workers=gpus))
    return kind


def fed(job: Job, client: "Client", cluster: ClusterOptions, workers: "WorkerKind") -> Job:
    """The job as it is given to the scheduler of these workers, and cut for their GPUs."""
    from tilesegment.execution.cluster import choose_feed

    on_gpus = workers.device == "cuda"
    if on_gpus and not job.plan.network.on_gpu:
        job = for_gpus(job)
    feed = choose_feed(cluster, len(client.nthreads()), on_gpus)
    return replace(job, plan=replace(job.plan, feed=feed))


def agreed_kind(kinds: Iterable["WorkerKind"], mixed: bool) -> "WorkerKind":
    """What the workers of a run are, from what each is.

    Args:
        kinds: of the workers; at least one.
        mixed: whether their devices may differ.

    Raises:
        ClusterError: if they differ in more than they may.
    """
    counts = Counter(kinds)
    if not mixed and len(counts) > 1:
        found = "; ".join(f"{count} x {kind}" for kind, count in counts.items())
        raise ClusterError(
            f"the workers differ ({found}), and so would their results; use workers of one kind, "
            "or allow several with --mixed-devices (docs/exactness.md)"
        )
    kind = next(iter(counts))
    if not mixed:
        return kind
    if len({each.torch for each in counts}) > 1:
        found = ", ".join(sorted({each.torch for each in counts}))
        raise ClusterError(
            f"the workers have several versions of torch ({found}); --mixed-devices allows other "
            "devices, and no other software: install one version everywhere"
        )
    if len({each.precision for each in counts}) > 1:
        found = "; ".join(sorted({f"{each.precision} on {each.capability}" for each in counts}))
        raise ClusterError(
            f"the fastest arithmetic of the workers differs ({found}); choose one for all with "
            "--precision float32"
        )
    return kind.mixed()


def refuse_shared_gpu(held: Mapping[str, str]) -> None:
    """Refuse two networks on one GPU: each would have half its memory and speed.

    Args:
        held: the GPU of each worker, by its address.

    Raises:
        ClusterError: if two workers hold the same.
    """
    for gpu, count in Counter(held.values()).items():
        if count > 1:
            workers = ", ".join(address for address, own in held.items() if own == gpu)
            raise ClusterError(
                f"the workers {workers} hold the same GPU ({gpu}); start one worker per GPU, with "
                "`dask cuda worker`"
            )


@contextmanager
def model_on_workers(
    client: "Client", model: "WorkerModel", report: Callable[[Progress], None] | None
) -> Iterator[Run]:
    """Every worker holds the model while the block lasts."""
    from distributed.comm import CommClosedError

    from tilesegment.execution.worker import ModelPlugin

    name = _new_name("tilesegment")
    run = Run(client, name, name, report)
    try:
        try:
            client.register_plugin(ModelPlugin(run.plugin, model), name=run.plugin)
        except CommClosedError:
            _logger.warning("a worker was lost while it loaded the model")
        client.subscribe_topic(run.plugin, _tell)
        yield run
    finally:
        with suppress(OSError, CancelledError):
            client.unregister_worker_plugin(run.plugin)


def _tell(event: tuple[float, str]) -> None:
    """Say what a worker that has joined says of itself."""
    _logger.warning(event[1])


def _new_name(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


class Models:
    """The model that workers hold for several runs, loaded anew only where the next needs another.

    Use it as a context: the workers let the model go at its end.
    """

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._stack = ExitStack()
        self._held: tuple[WorkerModel, Run] | None = None

    def __enter__(self) -> "Models":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self, model: "WorkerModel", report: Callable[[Progress], None] | None) -> Run:
        """A run on workers that hold this model."""
        if self._held is None or self._held[0] != model:
            self._stack.close()
            self._held = (
                model,
                self._stack.enter_context(model_on_workers(self._client, model, None)),
            )
        return replace(self._held[1], name=_new_name("tilesegment"), report=report)


def with_known_statistics(
    job: Job,
    client: "Client",
    workers: "WorkerKind",
    kept: Mapping[str, Any] | None,
    report: Callable[[Progress], None] | None,
) -> Job:
    """The job with the numbers of the whole image that its model needs, if it needs any.

    They are those of the finished labels, or of the run that is resumed, or measured now.

    Args:
        job: without them.
        client: of the workers.
        workers: what they are.
        kept: provenance of the finished labels, if there are any.
        report: told of the measuring.
    """
    if not job.description.whole_image_steps:
        return job
    fingerprint = job.fingerprint(workers.precision)
    places = [job.directory]
    if isinstance(job.directory, Path):
        places.append(beside_labels(job.directory))
    unfinished = map(unfinished_fingerprint, places)
    found = [
        (kept or {}).get("fingerprint", {}).get(STATISTICS),
        *(stored_statistics(earlier, fingerprint) for earlier in unfinished),
    ]
    statistics = next(filter(None, found), None) or _measure(job, client, report)
    return replace(job, model=with_statistics(job.model, statistics), statistics=statistics)


def _measure(
    job: Job, client: "Client", report: Callable[[Progress], None] | None
) -> list[dict[str, Any]]:
    run = Run(client, _new_name("statistics"), "", report)
    source = job.plan.source

    def tell(done: int, total: int, pixels: int) -> None:
        report_progress(run, "statistics", done, total, pixels)

    pixels = job.image.pixels(source.level)
    return measure_statistics(job.model, pixels, source.planes, client, run.name, tell)
