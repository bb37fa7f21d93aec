"""The use case that the project exists for: an image and a model in, a label volume out."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import ClusterError, OutputError, TilesegmentError, VerificationError
from tilesegment.geometry import YX
from tilesegment.mask import Mask
from tilesegment.model import zoo
from tilesegment.model.file import ModelDescription, model_hash, read_description
from tilesegment.planning import Network, Plan, Source, make_plan
from tilesegment.sampling import draw_windows
from tilesegment.storage.image import Image, open_image
from tilesegment.storage.labels import (
    LabelLayout,
    LabelProperties,
    LabelVolume,
    layout_volume,
    levels_to_derive,
    list_labels,
    published_provenance,
    refresh_consolidated,
    refuse_foreign,
    remove_labels,
    unlist_labels,
)
from tilesegment.storage.ledger import Ledger, is_unfinished_run, refuse_other_run
from tilesegment.storage.masks import absolute_source, read_mask
from tilesegment.tiling import chunk_of

if TYPE_CHECKING:
    from distributed import Client

    from tilesegment.execution.verification import Verification
    from tilesegment.execution.worker import WorkerKind, WorkerModel

_FINGERPRINT_VERSION = 1
_TIMED_TILE = 512


@dataclass(frozen=True)
class Progress:
    """How far a run is; handed to the caller after every tile."""

    phase: Literal["tiles", "levels", "windows"]
    done: int
    total: int
    """Tiles of this phase."""
    pixels: int
    """Pixels of the tiles that this run has computed in this phase."""
    dashboard: str | None
    """Address of dask's dashboard."""


@dataclass(frozen=True)
class RunSummary:
    """What a run did."""

    status: Literal["done", "already complete"]
    labels: str
    """Path of the label image."""
    tiles: int
    computed: int
    """Tiles that the network was run on."""
    skipped: int
    """Tiles that an earlier run had finished."""
    seconds: float
    """From the first tile, with the model loaded, to the finished levels."""
    megapixels_per_second: float
    """Of the processed level, over the seconds above."""
    shares: Mapping[str, float]
    """Share of the image's pixels in each class."""
    reused: int = 0
    """Tiles of one pixel value, whose labels an earlier one had on that worker."""
    masked: int = 0
    """Tiles that were not computed, because the mask wants none of their pixels, or none holds
    data: background."""
    verified: int = 0
    """Windows that were computed again and found equal."""


@dataclass(frozen=True)
class _Job:
    """Everything a run knows before it starts."""

    image: Image
    model: Path
    description: ModelDescription
    options: RunOptions
    plan: Plan
    mask: Mask | None
    """Which pixels are wanted; None for all."""
    name: str
    directory: Path
    inside: bool
    """Whether the labels go into the image's own store."""

    @property
    def volume(self) -> LabelVolume:
        classes = self.description.classes
        layout = LabelLayout(
            name=self.name,
            version=self.image.version,
            dtype=str(self.description.label_dtype),
            tile=self.plan.tile,
            chunk=self.plan.output_chunk,
            properties=tuple(LabelProperties(c.value, c.name, c.colour) for c in classes),
            source="../../" if self.inside else None,
        )
        return layout_volume(self.image, layout, self.directory)

    def worker_model(self, workers: "WorkerKind", threads: int | None) -> "WorkerModel":
        from tilesegment.execution.worker import WorkerModel

        return WorkerModel(
            content=self.model.read_bytes(),
            description=self.description,
            pixels=self.image.levels[self.plan.source.level].dtype,
            precision=workers.precision,
            device=workers.device,
            threads=threads,
            nodata=self.image.nodata(self.plan.source.level),
        )

    def fingerprint(self, precision: str) -> dict[str, Any]:
        """What must be equal for two runs to give the same labels; the tile need not be."""
        level = self.image.levels[self.plan.source.level]
        return {
            "version": _FINGERPRINT_VERSION,
            "model": model_hash(self.model),
            "level": self.plan.source.level,
            "precision": precision,
            "image": self.image.name if self.inside else self.image.location,
            "image shape": list(level.shape),
            "image type": str(level.dtype),
            "image metadata": dict(self.image.metadata),
            "nodata": self.image.nodata(self.plan.source.level),
            "mask": self.mask and self.mask.digest,
        }


def plan(
    image: str | Path,
    model: str | Path = zoo.DEFAULT,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
) -> Plan:
    """What `segment` would do; reads metadata only and writes nothing.

    Args:
        image: path of an OME-Zarr image.
        model: path of a model file, or the name of a bundled model.
        options: level, tile, precision and mask.

    Raises:
        InputError, ModelError, OptionError: as `segment`.
    """
    opened = open_image(image)
    path = zoo.find(model)
    return _make_plan(opened, path, read_description(path), options)[0]


def estimate_seconds(
    planned: Plan, model: str | Path, options: RunOptions, cluster: ClusterOptions
) -> float | None:
    """How long the network will need, from two passes over a small tile on this machine.

    Returns:
        Seconds; None if the cluster is not this machine's cores.
    """
    from tilesegment.execution.cluster import inference_threads, local_workers, resolve_kind

    cluster = resolve_kind(cluster)
    if cluster.kind != "cpu":
        return None
    from tilesegment.execution.memory import keep_freed_memory
    from tilesegment.execution.worker import WorkerModel, describe_worker

    keep_freed_memory()
    path = zoo.find(model)
    description = read_description(path)
    precision = describe_worker("cpu", options.precision, planned.source.location)[0].precision
    pixels = np.dtype(np.uint8)
    predictor = WorkerModel(
        path.read_bytes(), description, pixels, precision, "cpu", inference_threads(cluster)
    ).build(worker_threads=1)
    geometry = description.geometry
    side = geometry.input_size(max(_TIMED_TILE, geometry.smallest_tile))
    tile = np.zeros((description.in_channels, side, side), pixels)
    predictor.labels(tile)
    started = time.perf_counter()
    predictor.labels(tile)
    seconds_per_pixel = (time.perf_counter() - started) / side**2
    inputs = planned.compute_amplification * planned.pixels
    return round(inputs * seconds_per_pixel / local_workers(cluster), 3)


def segment(
    image: str | Path,
    model: str | Path = zoo.DEFAULT,
    *,
    labels: str | None = None,
    output: str | Path | None = None,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    cluster: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
    overwrite: bool = False,
    verify: int = 0,
    report: Callable[[Progress], None] | None = None,
) -> RunSummary:
    """Write the label volume that one forward pass over the whole mirrored image would give.

    The same call again resumes an unfinished run, or finds that it is complete.

    Args:
        image: path of an OME-Zarr image (0.4 or 0.5), with axes of t, c, z, y, x.
        model: path of a model file, or the name of a bundled model.
        labels: name of the label image; the model's by default.
        output: a store of its own for the label image; by default ``image/labels/NAME``.
        options: level, tile, precision and mask.
        cluster: who computes.
        overwrite: replace a label image of the same name.
        verify: windows of the finished labels to compute again (see `tilesegment.verify`).
        report: called after each tile.

    Raises:
        InputError: the image is absent, damaged, or holds NaN.
        ModelError: the model file cannot be used, or takes other channels.
        OptionError: an option cannot work here.
        ClusterError: there are no workers.
        OutputConflictError: the labels belong to another run.
        IncompleteError: the run stopped; finished tiles are kept.
        OutputError: the labels cannot be written.
        VerificationError: labels that were computed again are others.
    """
    from tilesegment.execution.cluster import inference_threads, open_cluster, resolve_kind

    job = prepare_job(image, model, labels, output, options)
    refuse_foreign(job.directory, overwrite)
    kept = None if overwrite else published_provenance(job.directory)
    cluster = resolve_kind(cluster)
    with open_cluster(cluster) as client:
        workers = agree_on_workers(client, cluster, job)
        fingerprint = job.fingerprint(workers.precision)
        if kept is not None:
            refuse_other_run(kept["fingerprint"], fingerprint, job.directory)
            if not verify:
                return _complete(job, kept)
        on_workers = job.worker_model(workers, inference_threads(cluster))
        with model_on_workers(client, on_workers) as run:
            if kept is not None:
                summary = _complete(job, kept)
            else:
                summary = _compute(job, client, run, workers, overwrite, report)
            if verify:
                found = verify_labels(job, client, run, workers, verify, 0, report)
                refuse_unequal(found, job.directory)
            return replace(summary, verified=verify)


def prepare_job(
    image: str | Path,
    model: str | Path,
    labels: str | None,
    output: str | Path | None,
    options: RunOptions,
) -> _Job:
    # Workers may stand in another directory.
    image = Path(image).resolve()
    opened = open_image(image)
    opened.refuse_non_finite()
    path = zoo.find(model).absolute()
    description = read_description(path)
    name = labels or path.name.removesuffix(".safetensors")
    if not name or "/" in name or name.startswith("."):
        raise OutputError(f"{name!r} cannot name a label image; use letters, digits, - and _")
    directory = Path(output).resolve() if output is not None else image / "labels" / name
    plan, mask = _make_plan(opened, path, description, options)
    return _Job(
        image=opened,
        model=path,
        description=description,
        options=replace(options, mask=absolute_source(options.mask)),
        plan=plan,
        mask=mask,
        name=name,
        directory=directory,
        inside=output is None,
    )


def _make_plan(
    image: Image, model: Path, description: ModelDescription, options: RunOptions
) -> tuple[Plan, Mask | None]:
    number = image.level_number(options.level)
    level = image.levels[number]
    description.check_channels(image.channels, image.location)
    source = Source(
        location=image.location,
        level=number,
        shape=image.plane_shape(number),
        planes=image.planes(number),
        channels=image.channels,
        item_bytes=level.dtype.itemsize,
        chunk=YX(*level.chunks[-2:]),
    )
    network = Network(
        geometry=description.geometry,
        base_channels=int(description.arguments.get("base_channels", 64)),
        weights_bytes=model.stat().st_size,
    )
    shapes = [image.plane_shape(index) for index in range(len(image.levels))]
    plan = make_plan(source, network, options.tile, shapes, description.label_dtype.itemsize)
    mask = read_mask(options.mask, image, number, plan.halo)
    return replace(plan, masked=mask.count_unwanted(plan.grid) if mask else 0), mask


def agree_on_workers(client: "Client", cluster: ClusterOptions, job: _Job) -> "WorkerKind":
    """What all workers are; they must be of one kind, and see the image.

    Raises:
        ClusterError: if they differ, for their results would too; or if one lacks what it needs.
    """
    from tilesegment.execution.worker import WorkerKind, describe_worker

    answers = client.run(describe_worker, cluster.kind, job.options.precision, job.image.location)
    blind = [address for address, (_, sees) in answers.items() if not sees]
    if blind:
        raise ClusterError(
            f"the workers at {', '.join(blind)} do not see {job.image.location}; put the image "
            "where all workers find it under one path"
        )
    kinds = Counter(kind for kind, _ in answers.values())
    if len(kinds) > 1:
        found = "; ".join(f"{count} x {kind}" for kind, count in kinds.items())
        raise ClusterError(
            f"the workers differ ({found}), and so would their results; use workers of one kind"
        )
    kind: WorkerKind = next(iter(kinds))
    if cluster.kind == "gpu" and kind.device != "cuda":
        raise ClusterError(
            f"torch {kind.torch} cannot use the GPU here; install a CUDA build of torch"
        )
    return kind


@contextmanager
def model_on_workers(client: "Client", model: "WorkerModel") -> Iterator[str]:
    """Every worker holds the model while the block lasts, under the name that it yields."""
    from tilesegment.execution.worker import ModelPlugin

    run = f"tilesegment-{uuid.uuid4().hex[:12]}"
    try:
        client.register_plugin(ModelPlugin(run, model), name=run)
        yield run
    finally:
        with suppress(OSError, CancelledError):
            client.unregister_worker_plugin(run)


def _compute(
    job: _Job,
    client: "Client",
    run: str,
    workers: "WorkerKind",
    overwrite: bool,
    report: Callable[[Progress], None] | None,
) -> RunSummary:
    """Begin or resume a run, and publish its labels."""
    tiles = {
        **job.fingerprint(workers.precision),
        **asdict(workers),
        "tile": job.plan.tile,
    }
    if overwrite and not is_unfinished_run(job.directory, tiles):
        _remove(job)
    with Ledger(job.directory, tiles) as ledger:
        return _run(job, client, run, ledger, workers, report)


def _run(
    job: _Job,
    client: "Client",
    run: str,
    ledger: Ledger,
    workers: "WorkerKind",
    report: Callable[[Progress], None] | None,
) -> RunSummary:
    volume = job.volume
    earlier = frozenset(ledger.done)
    started = time.perf_counter()
    try:
        _segment_tiles(job, client, volume, run, ledger, report)
    except TilesegmentError:
        if not ledger.done:
            _remove(job)
        raise
    _derive_levels(job, client, volume, run, report)
    summary = _summarise(job, ledger, earlier, time.perf_counter() - started)
    volume.publish(_provenance(job, workers, summary))
    if job.inside:
        list_labels(job.directory.parent, job.name, job.image.version)
        refresh_consolidated(job.directory.parent.parent)
    ledger.remove()
    return summary


def _segment_tiles(
    job: _Job,
    client: "Client",
    volume: LabelVolume,
    run: str,
    ledger: Ledger,
    report: Callable[[Progress], None] | None,
) -> None:
    from tilesegment.execution.engine import segment_tiles
    from tilesegment.execution.worker import TileWriter

    plan = job.plan
    values = tuple(item.value for item in job.description.classes)
    writer = TileWriter(volume, plan.source.level, values)
    pixels = job.image.pixels(plan.source.level).knowing_what_is_stored()
    computed = 0
    _report(report, "tiles", len(ledger.done), len(plan.grid), 0, client)
    for record in segment_tiles(client, plan, pixels, writer, run, ledger.done, job.mask):
        ledger.add(record)
        computed += sum(record.counts)
        _report(report, "tiles", len(ledger.done), len(plan.grid), computed, client)


def _derive_levels(
    job: _Job,
    client: "Client",
    volume: LabelVolume,
    run: str,
    report: Callable[[Progress], None] | None,
) -> None:
    from tilesegment.execution.engine import derive_levels

    steps = list(levels_to_derive(len(volume.arrays), job.plan.source.level))
    total = sum(len(volume.grid(level, job.plan.tile)) for level, _ in steps)
    done = pixels = 0
    for level, neighbour in steps:
        for window in derive_levels(client, volume, level, neighbour, job.plan.tile, run):
            done += 1
            pixels += window.height * window.width
            _report(report, "levels", done, total, pixels, client)


def _report(
    report: Callable[[Progress], None] | None,
    phase: Literal["tiles", "levels", "windows"],
    done: int,
    total: int,
    pixels: int,
    client: "Client",
) -> None:
    if report is not None:
        report(Progress(phase, done, total, pixels, client.dashboard_link))


def _summarise(job: _Job, ledger: Ledger, earlier: Collection[int], seconds: float) -> RunSummary:
    """What was done; `earlier` are the numbers of tiles that an earlier run had finished."""
    counts = np.sum([record.counts for record in ledger.done.values()], axis=0)
    names = [item.name for item in job.description.classes]
    tiles = len(job.plan.grid)
    work = Counter(record.work for number, record in ledger.done.items() if number not in earlier)
    finished = job.plan.pixels * work.total() / tiles
    return RunSummary(
        status="done",
        labels=str(job.directory),
        tiles=tiles,
        computed=work["computed"],
        skipped=len(earlier),
        seconds=round(seconds, 3),
        megapixels_per_second=round(finished / 1e6 / seconds, 3),
        shares={
            name: round(float(count / counts.sum()), 6)
            for name, count in zip(names, counts, strict=True)
        },
        reused=work["reused"],
        masked=work["masked"],
    )


def _provenance(job: _Job, workers: "WorkerKind", summary: RunSummary) -> dict[str, Any]:
    plan = job.plan
    return {
        "version": version("tilesegment"),
        "fingerprint": job.fingerprint(workers.precision),
        "model": str(job.model),
        "mask": job.options.mask,
        "workers": asdict(workers),
        "summary": {**asdict(summary), "labels": Path(summary.labels).name},
        "plan": {"tile": plan.tile, "halo": plan.halo, "level": plan.source.level},
    }


def verify_labels(
    job: _Job,
    client: "Client",
    run: str,
    workers: "WorkerKind",
    windows: int,
    seed: int,
    report: Callable[[Progress], None] | None,
) -> "Verification":
    """Compute windows of the published labels again, on workers that hold the model.

    Args:
        job: what the labels were made with; its tile may be another one.
        client: of the workers.
        run: name under which they hold the model.
        workers: what they are.
        windows: how many.
        seed: of the choice of windows.
        report: called after each window.
    """
    from tilesegment.execution.engine import check_windows
    from tilesegment.execution.verification import Verification, WindowChecker

    made = published_provenance(job.directory) or {}
    job = _with_tile(job, made["plan"]["tile"])
    plan, mask = job.plan, job.mask
    checker = WindowChecker(plan, job.image.pixels(plan.source.level), job.volume, mask)
    chosen = draw_windows(
        plan.grid,
        plan.network.geometry.alignment,
        windows,
        seed,
        lambda plane, window: mask is None or mask.cover(plane, window) != "none",
    )
    checks = []
    _report(report, "windows", 0, windows, 0, client)
    for check in check_windows(client, checker, chosen, run):
        checks.append(check)
        pixels = sum(each.height * each.width for each in checks)
        _report(report, "windows", len(checks), windows, pixels, client)
    are_alike = made.get("workers", asdict(workers)) == asdict(workers)
    return Verification.of(checks, is_exact=are_alike and workers.precision == "float32")


def refuse_unequal(found: "Verification", directory: Path) -> None:
    """Raise if labels that were computed again differ from the stored ones.

    Raises:
        VerificationError: naming where.
    """
    if found.differing_labels <= found.allowed_labels:
        return
    worst = max(found.differing_windows, key=lambda check: check.differing_labels)
    raise VerificationError(
        f"{directory}: {found.differing_labels:,} of {found.pixels:,} labels are not those that "
        f"the model gives ({found.allowed_labels:,} may differ), most of them near row {worst.y}, "
        f"column {worst.x} of plane {worst.plane}; look at them there, and compute them anew with "
        "--overwrite"
    )


def _with_tile(job: _Job, tile: int) -> _Job:
    """The job as it was run, with the tile size that the stored shards have."""
    return replace(job, plan=replace(job.plan, tile=tile, output_chunk=chunk_of(tile)))


def _complete(job: _Job, provenance: Mapping[str, Any]) -> RunSummary:
    """The summary of a label image that an earlier run has published."""
    if job.inside:
        list_labels(job.directory.parent, job.name, job.image.version)
    earlier = RunSummary(**provenance["summary"])
    return replace(
        earlier,
        status="already complete",
        labels=str(job.directory),
        computed=0,
        skipped=earlier.tiles,
        reused=0,
        masked=0,
        seconds=0.0,
        megapixels_per_second=0.0,
    )


def _remove(job: _Job) -> None:
    """Delete the label image, published or not, and the labels group if it becomes empty."""
    if job.inside:
        unlist_labels(job.directory.parent, job.name, job.image.version)
    remove_labels(job.directory)
    if job.inside:
        with suppress(OSError):
            job.directory.parent.rmdir()
