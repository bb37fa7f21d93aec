"""What a run knows before it starts: image, model, plan, and what decides its labels."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tilesegment.blending import Blend, choose_blend
from tilesegment.config import VALUE_BYTES, RunOptions, check_average
from tilesegment.errors import OptionError, OutputError
from tilesegment.geometry import YX
from tilesegment.mask import Mask
from tilesegment.model.file import Description
from tilesegment.model.opening import Model
from tilesegment.planning import Network, Plan, Source, make_plan
from tilesegment.refinement import choose_refinement, refinement_facts
from tilesegment.resolution import Resolution, choose_resolution
from tilesegment.storage.checksums import checksums_folder
from tilesegment.storage.image import Image, open_image
from tilesegment.storage.inventory import Inventory
from tilesegment.storage.labels import LabelLayout, LabelProperties, LabelVolume, layout_volume
from tilesegment.storage.masks import absolute_source, read_mask
from tilesegment.storage.remote import Location, absolute, locate
from tilesegment.storage.replacing import SUFFIX
from tilesegment.storage.stores import label_folder
from tilesegment.usecases.originals import advise_import, refuse_unwritable
from tilesegment.usecases.statistics import FIELD as STATISTICS

if TYPE_CHECKING:
    from tilesegment.execution.worker import WorkerKind, WorkerModel

_logger = logging.getLogger(__name__)
_FINGERPRINT_VERSION = 2


@dataclass(frozen=True)
class RunSummary:
    """What a run did."""

    status: Literal["done", "already complete", "repaired", "partition done"]
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
    partition: str | None = None
    """Which of several runs that share the labels this is, as "2/4"; None: the only one."""
    unfinished: tuple[int, ...] = ()
    """Numbers of the partitions whose tiles are not all done, so that nothing is published."""
    cluster: Mapping[str, Any] | None = None
    """What each worker did, retries, and bytes moved between workers, see `Accounts.report`."""


@dataclass(frozen=True)
class Job:
    """Everything a run knows before it starts."""

    image: Image
    model: Model
    options: RunOptions
    plan: Plan
    mask: Mask | None
    """Which pixels are wanted; None for all."""
    name: str
    directory: Location
    inside: bool
    """Whether the labels go where the image's own labels are, see `Image.label_folder`."""
    inventory: Inventory
    """The chunks of the processed level, as they were at the start."""
    statistics: list[dict[str, Any]] | None = None
    """Numbers of the whole image that its pixels are normalised with; None without such."""
    suffix: str = ""
    """Of the paths of the labels' levels, see `storage.replacing`."""

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
            source="../../" if self.inside and self.image.holds_labels else None,
            suffix=self.suffix,
            probabilities=self.options.probabilities,
        )
        return layout_volume(self.image, layout, self.directory)

    def worker_model(self, workers: "WorkerKind", threads: int | None) -> "WorkerModel":
        from tilesegment.execution.versions import installed
        from tilesegment.execution.worker import WorkerModel

        return WorkerModel(
            content=self.model.content,
            description=self.description,
            pixels=self.image.levels[self.plan.source.level].dtype,
            precision=workers.precision,
            device=None if workers.device == "mixed" else workers.device,
            threads=threads,
            blend=self.plan.network.blend,
            average=self.options.average,
            nodata=self.image.nodata(self.plan.source.level),
            probabilities=self.options.probabilities,
            refinement=self.plan.network.refinement,
            kind=workers,
            versions=installed(),
        )

    def fingerprint(self, precision: str) -> dict[str, Any]:
        """What must be equal for two runs to give the same labels; the tile need not be."""
        level = self.image.levels[self.plan.source.level]
        return {
            "version": _FINGERPRINT_VERSION,
            **self.model.identity,
            "level": self.plan.source.level,
            "resampled by": self.plan.source.step,
            "blend": blend_facts(self.plan.network.blend),
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
            # None where an earlier version would not have known of it: its runs are still valid.
            "probabilities": self.options.probabilities or None,
            "refinement": refinement_facts(self.plan.network.refinement),
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
            **({SUFFIX: self.suffix} if self.suffix else {}),
        }

    @property
    def checksums(self) -> Location:
        """Folder of the checksums of the published labels."""
        return checksums_folder(self.directory, f"{self.image.levels[0].path}{self.suffix}")


def earlier_summary(job: Job, provenance: Mapping[str, Any]) -> RunSummary:
    """The summary of labels that another run has published."""
    earlier = RunSummary(**provenance["summary"])
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
        partition=None,
    )


def prepare_job(
    image: str | Path,
    model: Model,
    labels: str | None,
    output: str | Path | None,
    options: RunOptions,
    on_gpus: bool = False,
) -> Job:
    # Workers may stand in another directory.
    place = absolute(locate(image))
    opened = open_image(place, options.axes)
    opened.refuse_non_finite()
    name = labels or model.name
    if not name or "/" in name or name.startswith("."):
        raise OutputError(f"{name!r} cannot name a label image; use letters, digits, - and _")
    directory = labels_directory(place, name, output)
    planned, mask = plan_job(opened, model, options, on_gpus)
    if output is None:
        refuse_unwritable(opened)
    return Job(
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


def labels_directory(image: str | Location, name: str, output: str | Path | None) -> Location:
    """Where the labels of an image are, or are to be written."""
    if output is not None:
        return absolute(locate(output))
    return label_folder(absolute(locate(image))) / name


def plan_job(
    image: Image, model: Model, options: RunOptions, on_gpus: bool = False
) -> tuple[Plan, Mask | None]:
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
    geometry = description.geometry if blend is None else blend.geometry
    refinement = choose_refinement(options, [item.name for item in description.classes])
    network = Network(
        geometry=geometry if refinement is None else refinement.geometry(geometry),
        base_channels=description.base_channels,
        weights_bytes=len(model.content),
        in_bands=description.in_bands,
        blend=blend,
        passes=check_average(options.average),
        fixed_input=description.fixed_input if blend is None else None,
        statistics=bool(description.whole_image_steps),
        stored_classes=len(description.classes) if options.probabilities else 0,
        refinement=refinement,
        refinement_bytes=(
            refinement.bytes_per_pixel(len(description.classes), image.channels)
            if refinement is not None
            else 0
        ),
    )
    plan = _cut(image, description, options, source, _on_device(network, options, on_gpus))
    advise_import(image, plan, reads_all=options.mask == "tissue")
    mask = read_mask(options.mask, image, number, plan.halo)
    return _masked(plan, mask), mask


def for_gpus(job: Job) -> Job:
    """The job in tiles for GPUs, of which nobody knew when it was planned."""
    plan, options = job.plan, job.options
    network = _on_device(plan.network, options, on_gpus=True)
    plan = _cut(job.image, job.description, options, plan.source, network)
    return replace(job, plan=_masked(plan, job.mask))


def _on_device(network: Network, options: RunOptions, on_gpus: bool) -> Network:
    # On a GPU "auto" is a type of 16 bits.
    narrow = on_gpus and options.precision == "auto"
    value_bytes = VALUE_BYTES["bfloat16" if narrow else options.precision]
    return replace(network, on_gpu=on_gpus, value_bytes=value_bytes)


def _cut(
    image: Image, description: Description, options: RunOptions, source: Source, network: Network
) -> Plan:
    shapes = [image.plane_shape(index) for index in range(len(image.levels))]
    return make_plan(source, network, options.tile, shapes, description.label_dtype.itemsize)


def _masked(plan: Plan, mask: Mask | None) -> Plan:
    return replace(plan, masked=mask.count_unwanted(plan.grid) if mask else 0)


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


def blend_facts(blend: Blend | None) -> dict[str, Any] | None:
    """What decides the labels of blended windows; the network is stated elsewhere."""
    if blend is None:
        return None
    return {"kind": blend.kind, "window": blend.window, "step": blend.step}
