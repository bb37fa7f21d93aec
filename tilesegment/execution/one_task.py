"""A tile as one task, for schedulers of many workers (docs/adr/0019)."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Worker, get_worker

from tilesegment.errors import IncompleteError, TilesegmentError
from tilesegment.execution.worker import (
    ModelPlugin,
    Prediction,
    TileWriter,
    read_pixels,
    resample_tile,
    told_by_worker,
)
from tilesegment.mask import Mask
from tilesegment.profiling import Step
from tilesegment.storage.image import MirroredPixels
from tilesegment.storage.ledger import TileRecord
from tilesegment.tiling import Window

_JOIN_SECONDS = 60.0
"""Within which a worker that has joined is sent the model."""
_LOOK_SECONDS = 0.2


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

    dask is told of the steps as if they were tasks; and a tile that waits for the network, which
    another one may block, does not count as one that takes long.

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
        model = _loaded_model(worker, plugin)
    task = worker.state.tasks[worker.get_current_task()]

    @contextmanager
    def told(step: Step) -> Iterator[None]:
        began = time.time()
        yield
        task.startstops.append({"action": step, "start": began, "stop": time.time()})

    def predict() -> Prediction:
        if task.state == "cancelled":
            raise IncompleteError("the run has stopped")
        task.start_time = time.time()
        with told("inference"):
            return model.predict(block)

    with told("reading"):
        block = read_pixels(pixels, plane, haloed)
    if writer.resampling is not None:
        with told("resampling"):
            block = resample_tile(block, writer.resampling, window)
    # The time that dask sees it run, from which --tile-timeout tells what hangs.
    task.start_time = math.inf
    with told_by_worker():
        prediction = worker.executors[plugin].submit(predict).result()
    with told("writing"):
        return writer.write(prediction, number, plane, window, mask)


def _loaded_model(worker: Worker, plugin: str) -> ModelPlugin:
    """The model; waits for it on a worker that has just joined.

    Raises:
        RuntimeError: if the worker cannot have it.
    """
    deadline = time.monotonic() + _JOIN_SECONDS
    while plugin not in worker.executors and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    model: ModelPlugin = worker.plugins[plugin]
    try:
        model.predictor  # noqa: B018 - waits
    except TilesegmentError as error:
        raise RuntimeError(f"the worker has no model: {error}") from error
    return model
