"""What a run would do."""

from dataclasses import replace
from pathlib import Path

from tilesegment.config import ClusterOptions, ForeignOptions, RunOptions
from tilesegment.model import zoo
from tilesegment.model.opening import open_model
from tilesegment.partition import Partition
from tilesegment.planning import Plan
from tilesegment.storage.image import open_image
from tilesegment.storage.masks import read_mask
from tilesegment.usecases.job import plan_job
from tilesegment.usecases.partitions import Share


def plan(
    image: str | Path,
    model: str | Path = zoo.DEFAULT,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    foreign: ForeignOptions = ForeignOptions(),  # noqa: B008 - frozen
    cluster: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
) -> Plan:
    """What `segment` would do; reads metadata only and writes nothing.

    A foreign network is run, to measure its border.

    Args:
        image: path of an OME-Zarr image.
        model: path of a model file or a foreign network, or the name of a bundled model.
        options: level, tile, precision and views and mask.
        foreign: what a foreign network cannot say of itself.
        cluster: who would compute; "auto" counts as the processor here.

    Raises:
        InputError, ModelError, OptionError: as `segment`.
    """
    from tilesegment.execution.cluster import choose_feed

    opened = open_model(model, foreign, blended=options.blend is not None)
    planned, _ = plan_job(open_image(image, options.axes), opened, options, cluster.on_gpus)
    return replace(planned, feed=choose_feed(cluster))


def partition_tiles(
    planned: Plan, image: str | Path, options: RunOptions, partition: Partition
) -> int:
    """How many tiles of a plan one of several runs does."""
    mask = read_mask(options.mask, open_image(image), planned.source.level, planned.halo)
    return len(Share(partition, planned, mask).tiles)
