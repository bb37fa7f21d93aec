"""A tile as one task, for schedulers of many workers (docs/adr/0019)."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import get_worker

from tilesegment.errors import IncompleteError, TilesegmentError
from tilesegment.execution.worker import (
    STEPS_TOLD,
    ModelPlugin,
    Prediction,
    TileWriter,
    predict_for,
    read_pixels,
    resample_tile,
    told_by_worker,
)
from tilesegment.mask import Mask
from tilesegment.profiling import Step
from tilesegment.storage.image import MirroredPixels
from tilesegment.storage.ledger import TileRecord
from tilesegment.tiling import Window


def segment_tile(
    plugin: str,
    pixels: MirroredPixels,
    haloed: Window,
    writer: TileWriter,
    number: int,
    plane: int,
    window: Window,
    mask: Mask | None = None,
) -> TileRecord:
    """All steps of a tile on an ordinary thread, which waits while the network has its own.

    The scheduler is told of the steps, for `execution.timings`; and a tile that waits for the
    network, which another one may block, does not count as one that takes long.

    Args:
        plugin: name of the `ModelPlugin`.
        pixels: of the image.
        haloed: what the tile reads.
        writer: of the labels; it also knows how the tile is resampled.
        number: of the tile in its grid.
        plane: index over the flattened leading axes.
        window: what the tile writes.
        mask: where some pixels are not wanted.
    """
    worker = get_worker()
    with told_by_worker():
        model = _loaded(worker.plugins[plugin])
    task = worker.state.tasks[worker.get_current_task()]
    steps = task.metadata[STEPS_TOLD] = []

    @contextmanager
    def told(step: Step) -> Iterator[None]:
        began = time.time()
        yield
        steps.append((step, began, time.time()))

    def predict() -> Prediction:
        if task.state == "cancelled":
            raise IncompleteError("the run has stopped")
        return predict_for(task, model, block)

    with told("reading"):
        block = read_pixels(pixels, plane, haloed)
    if writer.resampling is not None:
        with told("resampling"):
            block = resample_tile(block, writer.resampling, window)
    # Until the network's thread has it, see `predict_for`.
    task.start_time = math.inf
    with told_by_worker():
        prediction = worker.executors[plugin].submit(predict).result()
    with told("writing"):
        return writer.write(prediction, number, plane, window, mask)


def _loaded(model: ModelPlugin) -> ModelPlugin:
    """The model, with its network loaded: a worker that joins is given tiles while it loads.

    Raises:
        RuntimeError: if the worker cannot have it.
    """
    try:
        model.predictor  # noqa: B018 - waits
    except TilesegmentError as error:
        raise RuntimeError(f"the worker has no model: {error}") from error
    return model
