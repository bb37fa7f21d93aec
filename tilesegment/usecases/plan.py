"""What a run would do, and how long it would take."""

import time
from pathlib import Path

import numpy as np

from tilesegment.config import ClusterOptions, ForeignOptions, RunOptions
from tilesegment.model import zoo
from tilesegment.model.opening import open_model
from tilesegment.model.preprocessing import Scale
from tilesegment.partition import Partition
from tilesegment.planning import Plan
from tilesegment.storage.image import open_image
from tilesegment.storage.masks import read_mask
from tilesegment.usecases.job import plan_job
from tilesegment.usecases.partitions import Share

_TIMED_TILE = 512


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
    return plan_job(open_image(image, options.axes), opened, options)[0]


def partition_tiles(
    planned: Plan, image: str | Path, options: RunOptions, partition: Partition
) -> int:
    """How many tiles of a plan one of several runs does."""
    mask = read_mask(options.mask, open_image(image), planned.source.level, planned.halo)
    return len(Share(partition, planned, mask).tiles)


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
        opened.content,
        description,
        pixels,
        precision,
        "cpu",
        inference_threads(cluster),
        refinement=planned.network.refinement,
    ).build(worker_threads=1)
    geometry = predictor.geometry
    side = geometry.input_size(max(_TIMED_TILE, geometry.smallest_tile))
    side = description.fixed_input or side
    tile = np.zeros((description.in_channels, side, side), pixels)
    predictor.labels(tile)
    started = time.perf_counter()
    predictor.labels(tile)
    seconds_per_pixel = (time.perf_counter() - started) / side**2
    inputs = planned.compute_amplification * planned.pixels
    return round(inputs * seconds_per_pixel / local_workers(cluster), 3)
