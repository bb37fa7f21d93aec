"""The use case that the project exists for: an image and a model in, a label volume out."""

import logging
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

from tilesegment.blending import Blend, choose_blend
from tilesegment.config import ClusterOptions, ForeignOptions, RunOptions, check_average
from tilesegment.errors import (
    ClusterError,
    OptionError,
    OutputConflictError,
    OutputError,
    QuarantineError,
    TilesegmentError,
    VerificationError,
)
from tilesegment.geometry import YX
from tilesegment.mask import Mask
from tilesegment.model import zoo
from tilesegment.model.file import Description
from tilesegment.model.opening import Model, open_model
from tilesegment.model.preprocessing import Scale
from tilesegment.planning import Network, Plan, Source, make_plan
from tilesegment.resolution import Resolution, choose_resolution
from tilesegment.retry import Failure, Trouble
from tilesegment.sampling import draw_windows
from tilesegment.storage.checksums import (
    Checksums,
    checksums_folder,
    damaged_objects,
    find_checksums,
    read_checksums,
    write_copies,
    write_objects,
)
from tilesegment.storage.image import Image, open_image
from tilesegment.storage.inventory import Inventory, write_absent
from tilesegment.storage.labels import (
    LabelLayout,
    LabelProperties,
    LabelVolume,
    beside_labels,
    finish_swap,
    layout_volume,
    levels_to_derive,
    list_labels,
    published_provenance,
    refresh_consolidated,
    refuse_foreign,
    remove_labels,
    swap_labels,
)
from tilesegment.storage.ledger import (
    Ledger,
    TileRecord,
    clear_finished,
    is_unfinished_run,
    refuse_living_driver,
    refuse_other_run,
    unfinished_fingerprint,
)
from tilesegment.storage.masks import absolute_source, read_mask
from tilesegment.storage.objects import can_link, write_failed
from tilesegment.tiling import chunk_of
from tilesegment.usecases.deep import copied_provenance
from tilesegment.usecases.statistics import FIELD as STATISTICS
from tilesegment.usecases.statistics import (
    measure_statistics,
    stored_statistics,
    with_statistics,
)

if TYPE_CHECKING:
    from distributed import Client

    from tilesegment.execution.verification import Verification
    from tilesegment.execution.worker import WorkerKind, WorkerModel

_logger = logging.getLogger(__name__)
_FINGERPRINT_VERSION = 2
_TIMED_TILE = 512
_TOLD_TILES = 10
"""Quarantined tiles that an error names; the labels' metadata name all."""


@dataclass(frozen=True)
class Progress:
    """How far a run is; handed to the caller after every tile."""

    phase: Literal["statistics", "tiles", "levels", "windows"]
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

    status: Literal["done", "already complete", "repaired"]
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
    quarantined: tuple[Mapping[str, Any], ...] = ()
    """Tiles that could not be computed and are background: plane, rows, columns and reason."""
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
    model: Model
    options: RunOptions
    plan: Plan
    mask: Mask | None
    """Which pixels are wanted; None for all."""
    name: str
    directory: Path
    inside: bool
    """Whether the labels go into the image's own store."""
    inventory: Inventory
    """The chunks of the processed level, as they were at the start."""
    statistics: list[dict[str, Any]] | None = None
    """Numbers of the whole image that its pixels are normalised with; None without such."""

    @property
    def description(self) -> Description:
        return self.model.description

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
            content=self.model.content,
            description=self.description,
            pixels=self.image.levels[self.plan.source.level].dtype,
            precision=workers.precision,
            device=workers.device,
            threads=threads,
            blend=self.plan.network.blend,
            average=self.options.average,
            nodata=self.image.nodata(self.plan.source.level),
        )

    def fingerprint(self, precision: str) -> dict[str, Any]:
        """What must be equal for two runs to give the same labels; the tile need not be."""
        level = self.image.levels[self.plan.source.level]
        return {
            "version": _FINGERPRINT_VERSION,
            **self.model.identity,
            "level": self.plan.source.level,
            "resampled by": self.plan.source.step,
            "blend": _blend_facts(self.plan.network.blend),
            "precision": precision,
            "average": self.options.average,
            "image": self.image.name if self.inside else self.image.location,
            "image shape": list(level.shape),
            "image type": str(level.dtype),
            "image metadata": dict(self.image.metadata),
            "nodata": self.image.nodata(self.plan.source.level),
            "mask": self.mask and self.mask.digest,
            "image chunks": self.inventory.objects,
            "image chunk sizes": self.inventory.sizes,
            **({STATISTICS: self.statistics} if self.statistics else {}),
        }

    def ledger_fingerprint(self, workers: "WorkerKind") -> dict[str, Any]:
        """What must be equal for two runs to share one ledger."""
        return {
            **self.fingerprint(workers.precision),
            **asdict(workers),
            "tile": self.plan.tile,
            "output chunk": self.plan.output_chunk,
            "image chunk times": self.inventory.times,
        }

    @property
    def checksums(self) -> Path:
        """Folder of the checksums of the published labels."""
        return checksums_folder(self.directory, self.image.levels[0].path)


@dataclass(frozen=True)
class _Run:
    """The execution of a job."""

    client: "Client"
    name: str
    """New for each run, so that dask never returns an older result."""
    report: Callable[[Progress], None] | None


def plan(
    image: str | Path,
    model: str | Path = zoo.DEFAULT,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    foreign: ForeignOptions = ForeignOptions(),  # noqa: B008 - frozen
) -> Plan:
    """What `segment` would do; reads metadata only and writes nothing.

    A foreign network is run, to measure its border.

    Args:
        image: path of an OME-Zarr image.
        model: path of a model file or a foreign network, or the name of a bundled model.
        options: level, tile, precision and views and mask.
        foreign: what a foreign network cannot say of itself.

    Raises:
        InputError, ModelError, OptionError: as `segment`.
    """
    opened = open_model(model, foreign, blended=options.blend is not None)
    return _make_plan(open_image(image), opened, options)[0]


def estimate_seconds(
    planned: Plan,
    model: str | Path,
    options: RunOptions,
    cluster: ClusterOptions,
    foreign: ForeignOptions = ForeignOptions(),  # noqa: B008 - frozen
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
    opened = open_model(model, foreign, blended=options.blend is not None)
    description = opened.description
    wanted = description.precision(options.precision)
    precision = describe_worker("cpu", wanted, planned.source.location)[0].precision
    pixels = np.dtype(np.uint8)
    steps = description.whole_image_steps
    description = description.with_scales(Scale() for _ in steps)
    predictor = WorkerModel(
        opened.content, description, pixels, precision, "cpu", inference_threads(cluster)
    ).build(worker_threads=1)
    geometry = description.geometry
    side = geometry.input_size(max(_TIMED_TILE, geometry.smallest_tile))
    side = description.fixed_input or side
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
    foreign: ForeignOptions = ForeignOptions(),  # noqa: B008 - frozen
    overwrite: bool = False,
    take_over: bool = False,
    allow_partial: bool = False,
    keep_ledger: bool = False,
    verify: int = 0,
    report: Callable[[Progress], None] | None = None,
) -> RunSummary:
    """Write the label volume that one forward pass over the whole mirrored image would give.

    The same call again resumes an unfinished run, or finds that it is complete.

    Args:
        image: path of an OME-Zarr image (0.4 or 0.5), with axes of t, c, z, y, x.
        model: path of a model file, name of a bundled model, or a foreign network: path of an
            ONNX file, a bioimage.io folder, TorchScript or a .pt2; or "module:factory".
        labels: name of the label image; the model's by default.
        output: a store of its own for the label image; by default ``image/labels/NAME``.
        options: level, tile, precision, views and mask.
        cluster: who computes.
        foreign: what a foreign network cannot say of itself.
        overwrite: replace a label image of the same name, once the new one is whole.
        take_over: go on although another run is writing these labels; that one will stop.
        allow_partial: publish although some tiles failed everywhere; they are background.
        keep_ledger: keep the record of the run beside the published labels.
        verify: windows of the finished labels to compute again (see `tilesegment.verify`).
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
    from tilesegment.execution.cluster import inference_threads, open_cluster, resolve_kind

    opened = open_model(model, foreign, blended=options.blend is not None)
    if verify:
        refuse_fixed_input(opened)
    job = prepare_job(image, opened, labels, output, options)
    swapped = finish_swap(job.directory)
    refuse_foreign(job.directory, overwrite)
    kept = None if overwrite and not swapped else published_provenance(job.directory)
    cluster = resolve_kind(cluster)
    with open_cluster(cluster) as client:
        workers = agree_on_workers(client, cluster, job)
        job = with_known_statistics(job, client, workers, kept, report)
        fingerprint = job.fingerprint(workers.precision)
        if overwrite and kept is not None and kept.get("fingerprint") != fingerprint:
            kept = None
        if kept is not None:
            refuse_other_run(kept["fingerprint"], fingerprint, job.directory)
            if not verify:
                return _complete(job, kept, allow_partial)
        on_workers = job.worker_model(workers, inference_threads(cluster))
        with model_on_workers(client, on_workers, report) as run:
            if kept is not None:
                summary = _complete(job, kept, allow_partial)
            else:
                summary = _compute(
                    job, run, workers, overwrite, take_over, allow_partial, keep_ledger
                )
            if verify:
                refuse_unequal(verify_labels(job, run, workers, verify, seed=0), job.directory)
            return replace(summary, verified=verify)


def _compute(
    job: _Job,
    run: _Run,
    workers: "WorkerKind",
    overwrite: bool,
    take_over: bool,
    allow_partial: bool,
    keep_ledger: bool,
) -> RunSummary:
    """Begin or resume a run, and publish its labels."""
    tiles = job.ledger_fingerprint(workers)
    target = _place(job, tiles, overwrite, take_over)
    with Ledger(target.directory, tiles, take_over=take_over) as ledger:
        summary = _run(target, run, ledger, workers, allow_partial)
        ledger.remove(target.checksums / "ledger" if keep_ledger else None)
    if target.directory != job.directory:
        swap_labels(target.directory, job.directory)
    _announce(job)
    return replace(summary, labels=str(job.directory))


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
    cluster = resolve_kind(cluster)
    with open_cluster(cluster) as client:
        workers = agree_on_workers(client, cluster, job)
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
        _announce(job)
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


def _intact(job: _Job, checksums: Checksums, provenance: Mapping[str, Any]) -> Iterator[TileRecord]:
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


def _repair(job: _Job, run: _Run, ledger: Ledger, provenance: Mapping[str, Any]) -> RunSummary:
    volume = replace(job.volume, publishing="replace")
    earlier = frozenset(ledger.finished(job.plan.source.level))
    started = time.perf_counter()
    _compute_labels(job, run, volume, ledger, allow_partial=False)
    summary = _summarise(job, ledger, earlier, time.perf_counter() - started)
    whole = {**provenance["summary"], "shares": summary.shares, "quarantined": []}
    _publish(job, volume, ledger, {**provenance, "summary": whole})
    return replace(summary, status="repaired")


def _place(job: _Job, tiles: Mapping[str, Any], overwrite: bool, take_over: bool) -> _Job:
    """Where the run writes: beside the labels that it is to replace, otherwise in place."""
    if not overwrite or not job.directory.exists() or is_unfinished_run(job.directory, tiles):
        return job
    beside = beside_labels(job.directory)
    for directory in (job.directory, beside):
        if not take_over:
            refuse_living_driver(directory)
    if not is_unfinished_run(beside, tiles):
        remove_labels(beside)
    return replace(job, directory=beside)


def with_known_statistics(
    job: _Job,
    client: "Client",
    workers: "WorkerKind",
    kept: Mapping[str, Any] | None,
    report: Callable[[Progress], None] | None,
) -> _Job:
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
    unfinished = map(unfinished_fingerprint, (job.directory, beside_labels(job.directory)))
    found = [
        (kept or {}).get("fingerprint", {}).get(STATISTICS),
        *(stored_statistics(earlier, fingerprint) for earlier in unfinished),
    ]
    statistics = next(filter(None, found), None) or _measure(job, client, report)
    return replace(job, model=with_statistics(job.model, statistics), statistics=statistics)


def _measure(
    job: _Job, client: "Client", report: Callable[[Progress], None] | None
) -> list[dict[str, Any]]:
    run = _Run(client, f"statistics-{uuid.uuid4().hex[:12]}", report)
    source = job.plan.source

    def tell(done: int, total: int, pixels: int) -> None:
        _report(run, "statistics", done, total, pixels)

    pixels = job.image.pixels(source.level)
    return measure_statistics(job.model, pixels, source.planes, client, run.name, tell)


def prepare_job(
    image: str | Path,
    model: Model,
    labels: str | None,
    output: str | Path | None,
    options: RunOptions,
) -> _Job:
    # Workers may stand in another directory.
    image = Path(image).resolve()
    opened = open_image(image)
    opened.refuse_non_finite()
    name = labels or model.name
    if not name or "/" in name or name.startswith("."):
        raise OutputError(f"{name!r} cannot name a label image; use letters, digits, - and _")
    directory = Path(output).resolve() if output is not None else image / "labels" / name
    planned, mask = _make_plan(opened, model, options)
    return _Job(
        image=opened,
        model=model,
        options=replace(options, mask=absolute_source(options.mask)),
        plan=planned,
        mask=mask,
        name=name,
        directory=directory,
        inside=output is None,
        inventory=opened.inventory(planned.source.level),
    )


def _make_plan(image: Image, model: Model, options: RunOptions) -> tuple[Plan, Mask | None]:
    description = model.description
    resolution = _choose_resolution(image, description, options)
    number = image.level_number(resolution.level)
    _refuse_to_mix(image, resolution)
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
        step=resolution.step,
        reason=resolution.reason,
    )
    blend = _choose_blend(description, options)
    network = Network(
        geometry=description.geometry if blend is None else blend.geometry,
        base_channels=description.base_channels,
        weights_bytes=len(model.content),
        blend=blend,
        passes=check_average(options.average),
        fixed_input=description.fixed_input if blend is None else None,
        statistics=bool(description.whole_image_steps),
    )
    shapes = [image.plane_shape(index) for index in range(len(image.levels))]
    plan = make_plan(source, network, options.tile, shapes, description.label_dtype.itemsize)
    mask = read_mask(options.mask, image, number, plan.halo)
    return replace(plan, masked=mask.count_unwanted(plan.grid) if mask else 0), mask


def _refuse_to_mix(image: Image, resolution: Resolution) -> None:
    """Resampling would mix pixels without data with others, before anybody could tell them.

    Raises:
        OptionError: if the level that is to be resampled declares such pixels.
    """
    nodata = image.nodata(resolution.level)
    if resolution.step is not None and nodata is not None:
        raise OptionError(
            f"{image.location} declares pixels without data (_FillValue {nodata:g}), which "
            f"resampling would mix with the others; use --level {resolution.level}, which shows "
            "them as they are"
        )


def _choose_resolution(image: Image, description: Description, options: RunOptions) -> Resolution:
    resolution = choose_resolution(
        image.pixel_sizes_um, description.pixel_size_um, options.level, options.pixel_size_um
    )
    if resolution.doubtful:
        _logger.warning("level %d is taken: %s", resolution.level, resolution.reason)
    return resolution


def _choose_blend(description: Description, options: RunOptions) -> Blend | None:
    blend = choose_blend(
        options.blend, options.overlap, description.geometry, description.fixed_input
    )
    if blend is not None:
        _logger.warning(
            "with --blend the labels are not those of one forward pass over the image: they depend "
            "on windows of %d px, though not on tiles or workers; a network with a finite border "
            "does not need it",
            blend.window,
        )
    return blend


def _blend_facts(blend: Blend | None) -> dict[str, Any] | None:
    """What decides the labels of blended windows; the network is stated elsewhere."""
    if blend is None:
        return None
    return {"kind": blend.kind, "window": blend.window, "step": blend.step}


def agree_on_workers(client: "Client", cluster: ClusterOptions, job: _Job) -> "WorkerKind":
    """What all workers are; they must be of one kind, and see the image.

    Raises:
        ClusterError: if they differ, for their results would too; or if one lacks what it needs.
    """
    from tilesegment.execution.worker import WorkerKind, describe_worker

    precision = job.description.precision(job.options.precision)
    answers = client.run(describe_worker, cluster.kind, precision, job.image.location)
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
def model_on_workers(
    client: "Client", model: "WorkerModel", report: Callable[[Progress], None] | None
) -> Iterator[_Run]:
    """Every worker holds the model while the block lasts."""
    from tilesegment.execution.worker import ModelPlugin

    run = _Run(client, f"tilesegment-{uuid.uuid4().hex[:12]}", report)
    try:
        client.register_plugin(ModelPlugin(run.name, model), name=run.name)
        yield run
    finally:
        with suppress(OSError, CancelledError):
            client.unregister_worker_plugin(run.name)


def _run(
    job: _Job, run: _Run, ledger: Ledger, workers: "WorkerKind", allow_partial: bool
) -> RunSummary:
    volume = _choose_publishing(job.volume)
    earlier = frozenset(ledger.finished(job.plan.source.level))
    started = time.perf_counter()
    try:
        quarantined = _compute_labels(job, run, volume, ledger, allow_partial)
    except TilesegmentError:
        if not ledger.done and ledger.is_newest:
            ledger.close()
            _remove(job)
        raise
    summary = _summarise(job, ledger, earlier, time.perf_counter() - started)
    summary = replace(summary, quarantined=_places(job, quarantined))
    _publish(job, volume, ledger, _provenance(job, workers, summary))
    return summary


def _compute_labels(
    job: _Job, run: _Run, volume: LabelVolume, ledger: Ledger, allow_partial: bool
) -> dict[int, Failure]:
    """Compute all that the ledger lacks; returns the last failure of each tile given up.

    Raises:
        OutputConflictError: if the image was changed meanwhile.
    """
    quarantined = _segment_tiles(job, run, volume, ledger)
    ledger.flush()
    if quarantined:
        _quarantine(job, volume, ledger, quarantined, allow_partial)
    _derive_levels(job, run, volume, ledger)
    if job.image.inventory(job.plan.source.level).times != job.inventory.times:
        raise OutputConflictError(
            f"{job.image.location} was changed while it was segmented; start anew with --overwrite"
        )
    return quarantined


def _choose_publishing(volume: LabelVolume) -> LabelVolume:
    """Workers name their objects themselves, where the file system can do so exclusively."""
    try:
        return volume if can_link(volume.directory) else replace(volume, publishing="driver")
    except OSError as error:
        raise write_failed(error, volume.directory) from error


def _publish(job: _Job, volume: LabelVolume, ledger: Ledger, provenance: Mapping[str, Any]) -> None:
    """Checksums first, then the metadata: the label image appears whole, or not at all."""
    ledger.flush()
    provenance = {**provenance, "checksums": write_objects(job.checksums, ledger.done.values())}
    write_copies(job.checksums, volume.final_documents(provenance))
    volume.publish(provenance)


def _announce(job: _Job) -> None:
    """Let readers of the image find its new labels."""
    if job.inside:
        list_labels(job.directory.parent, job.name, job.image.version)
        refresh_consolidated(job.directory.parent.parent)


def _segment_tiles(job: _Job, run: _Run, volume: LabelVolume, ledger: Ledger) -> dict[int, Failure]:
    """Segment what the ledger lacks; returns the last failure of each tile that is given up."""
    from tilesegment.execution.engine import segment_tiles
    from tilesegment.execution.worker import TileWriter

    plan = job.plan
    level = plan.source.level
    values = tuple(item.value for item in job.description.classes)
    writer = TileWriter(volume, level, values, plan.resampling)
    absent = write_absent(ledger.directory, job.inventory)
    pixels = job.image.pixels(level, absent)
    done, trouble = set(ledger.finished(level)), Trouble()
    finished, computed = len(done), 0
    _report(run, "tiles", finished, len(plan.grid), 0)
    for record in segment_tiles(
        run.client, plan, pixels, writer, run.name, done, trouble, ledger.flush, job.mask
    ):
        ledger.add(record)
        finished += 1
        computed += sum(record.counts)
        _report(run, "tiles", finished, len(plan.grid), computed)
    quarantined = trouble.quarantined()
    if quarantined and not finished:
        raise next(iter(quarantined.values())).error
    return quarantined


def _quarantine(
    job: _Job,
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
            for place in _places(job, quarantined)[:_TOLD_TILES]
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
        written = volume.write(level, tile.plane, window, background)
        ledger.add(TileRecord(number, nothing, level, written.objects))


def _places(job: _Job, quarantined: Mapping[int, Failure]) -> tuple[dict[str, Any], ...]:
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


def _derive_levels(job: _Job, run: _Run, volume: LabelVolume, ledger: Ledger) -> None:
    from tilesegment.execution.engine import derive_levels

    steps = list(levels_to_derive(len(volume.arrays), job.plan.source.level))
    grids = {level: volume.grid(level, job.plan.tile) for level, _ in steps}
    total = sum(map(len, grids.values()))
    finished = pixels = 0
    for level, neighbour in steps:
        done, trouble = set(ledger.finished(level)), Trouble()
        finished += len(done)
        for record in derive_levels(
            run.client, volume, level, neighbour, job.plan.tile, run.name, done, trouble,
            ledger.flush,
        ):  # fmt: skip
            ledger.add(record)
            finished += 1
            window = grids[level].write_window(grids[level].tile_at(record.number))
            pixels += window.height * window.width
            _report(run, "levels", finished, total, pixels)
        for failure in trouble.quarantined().values():
            raise failure.error


def _report(
    run: _Run,
    phase: Literal["statistics", "tiles", "levels", "windows"],
    done: int,
    total: int,
    pixels: int,
) -> None:
    if run.report is not None:
        run.report(Progress(phase, done, total, pixels, run.client.dashboard_link))


def _summarise(job: _Job, ledger: Ledger, earlier: Collection[int], seconds: float) -> RunSummary:
    """What was done; `earlier` are the numbers of tiles that an earlier run had finished."""
    records = ledger.finished(job.plan.source.level)
    counts = np.sum([record.counts for record in records.values()], axis=0)
    names = [item.name for item in job.description.classes]
    tiles = len(job.plan.grid)
    work = Counter(record.work for number, record in records.items() if number not in earlier)
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
        "model": job.model.source,
        "foreign": asdict(job.model.foreign),
        "options": asdict(job.options),
        "workers": asdict(workers),
        "summary": {**asdict(summary), "labels": Path(summary.labels).name},
        "plan": {
            "tile": plan.tile,
            "halo": plan.halo,
            "level": plan.source.level,
            "resampled_by": plan.source.step,
            "reason": plan.source.reason,
            "blend": _blend_facts(plan.network.blend),
        },
    }


def verify_labels(
    job: _Job, run: _Run, workers: "WorkerKind", windows: int, seed: int
) -> "Verification":
    """Compute windows of the published labels again, on workers that hold the model.

    Args:
        job: what the labels were made with; its tile may be another one.
        run: the workers.
        workers: what they are.
        windows: how many.
        seed: of the choice of windows.

    Raises:
        QuarantineError: some tiles are background for want of better.
    """
    from tilesegment.execution.engine import check_windows
    from tilesegment.execution.verification import Verification, WindowChecker

    made = published_provenance(job.directory) or {}
    _refuse_quarantined(job, made["summary"]["quarantined"])
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
    _report(run, "windows", 0, windows, 0)
    for check in check_windows(run.client, checker, chosen, run.name):
        checks.append(check)
        pixels = sum(each.height * each.width for each in checks)
        _report(run, "windows", len(checks), windows, pixels)
    are_alike = made["workers"] == asdict(workers)
    return Verification.of(checks, is_exact=are_alike and workers.precision == "float32")


def refuse_fixed_input(model: Model) -> None:
    """Refuse to verify with a network that cannot see more of a window than a tile does.

    Raises:
        OptionError: if it takes inputs of one size only.
    """
    if model.description.fixed_input is not None:
        raise OptionError(
            f"{model.source} takes inputs of {model.description.fixed_input} pixels only, so no "
            "window can be computed otherwise than the run does; export it with dynamic sizes"
        )


def refuse_unequal(found: "Verification", directory: Path) -> None:
    """Raise if stored labels are damaged, or differ from those that were computed again.

    Raises:
        VerificationError: naming where.
    """
    if found.damaged:
        raise VerificationError(
            f"{len(found.damaged)} objects of {directory} are damaged; run the command that made "
            "them again with --repair"
        )
    if found.passed:
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


def _complete(job: _Job, provenance: Mapping[str, Any], allow_partial: bool) -> RunSummary:
    """The summary of a label image that an earlier run has published.

    Raises:
        QuarantineError: if some of its tiles are background for want of better.
    """
    clear_finished(job.directory)
    _announce(job)
    earlier = RunSummary(**provenance["summary"])
    if not allow_partial:
        _refuse_quarantined(job, earlier.quarantined)
    return replace(
        earlier,
        status="already complete",
        quarantined=tuple(earlier.quarantined),
        labels=str(job.directory),
        computed=0,
        skipped=earlier.tiles,
        reused=0,
        masked=0,
        seconds=0.0,
        megapixels_per_second=0.0,
    )


def _refuse_quarantined(job: _Job, quarantined: Collection[Any]) -> None:
    if quarantined:
        raise QuarantineError(
            f"{job.directory} is complete but for {len(quarantined)} tiles that failed "
            "everywhere; mend the cause and compute them with --repair"
        )


def _remove(job: _Job) -> None:
    """Delete labels that never were published, and the labels group if it becomes empty."""
    remove_labels(job.directory)
    if job.inside:
        with suppress(OSError):
            job.directory.parent.rmdir()
