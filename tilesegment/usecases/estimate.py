"""How long a run will take: one of its tiles, timed on this machine once for each model."""

import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import tilesegment
from tilesegment.cache import Measurement
from tilesegment.config import ClusterOptions, ForeignOptions, RunOptions
from tilesegment.model.opening import Model, open_model
from tilesegment.model.preprocessing import Scale
from tilesegment.planning import Plan

if TYPE_CHECKING:
    from tilesegment.execution.worker import WorkerModel

_LEFT_FOR_THE_NETWORK = 0.9
"""Of the machine, while workers also read and write; see docs/performance.md."""
_TIMED_SECONDS = 2.0
_MOST_PASSES = 3


def estimate_seconds(
    planned: Plan,
    model: str | Path,
    options: RunOptions,
    cluster: ClusterOptions,
    foreign: ForeignOptions = ForeignOptions(),  # noqa: B008 - frozen
) -> float | None:
    """How long a run will take, without the start of its workers.

    The network is shown one tile of the plan, and what that took is remembered in the user's
    cache folder.

    Returns:
        Seconds; None if the cluster is not this machine's cores.
    """
    from tilesegment.execution.cluster import inference_threads, local_workers, resolve_kind

    cluster = resolve_kind(cluster)
    if cluster.kind != "cpu":
        return None
    opened = open_model(model, foreign, blended=options.blend is not None)
    threads = inference_threads(cluster)
    on_worker = _worker_model(opened, planned, options, threads)
    measurement = _measurement(opened, planned, on_worker)
    found = measurement.remembered()
    if found is None:
        found = {"seconds": _time_tile(on_worker, planned)}
        measurement.remember(found)
    rounds = -(-(len(planned.grid) - planned.masked) // local_workers(cluster))
    seconds: float = found["seconds"]
    return round(rounds * seconds / _LEFT_FOR_THE_NETWORK, 3)


def _worker_model(
    opened: Model, planned: Plan, options: RunOptions, threads: int | None
) -> "WorkerModel":
    from tilesegment.execution.worker import WorkerModel, describe_worker

    description = opened.description
    wanted = description.precision(options.precision)
    kind = describe_worker("cpu", wanted, planned.source.location)[0]
    return WorkerModel(
        opened.content,
        description.with_scales(Scale() for _ in description.whole_image_steps),
        np.dtype(np.uint8),
        kind.precision,
        "cpu",
        threads,
        blend=planned.network.blend,
        average=options.average,
        probabilities=options.probabilities,
        refinement=planned.network.refinement,
    )


def _time_tile(on_worker: "WorkerModel", planned: Plan) -> float:
    """Seconds of one tile: the median of a few, after one that does not count."""
    from tilesegment.execution.memory import keep_freed_memory

    keep_freed_memory()
    predictor = on_worker.build(worker_threads=1)
    pixels = np.zeros((planned.source.channels, *planned.shown), np.uint8)
    predictor.classify(pixels)
    passes: list[float] = []
    while len(passes) < _MOST_PASSES and sum(passes) < _TIMED_SECONDS:
        started = time.perf_counter()
        predictor.classify(pixels)
        passes.append(time.perf_counter() - started)
    return statistics.median(passes)


def _measurement(opened: Model, planned: Plan, on_worker: "WorkerModel") -> Measurement:
    """With all that decides how long a tile takes."""
    import torch

    refinement, blend = on_worker.refinement, on_worker.blend
    facts = {
        "model": dict(opened.identity),
        "shown": planned.shown,
        "precision": on_worker.precision,
        "threads": on_worker.threads,
        "average": on_worker.average,
        "probabilities": on_worker.probabilities,
        "blend": None if blend is None else repr(blend),
        "refinement": repr(refinement),
        "machine": [platform.node(), os.cpu_count(), torch.__version__],
        "version": tilesegment.__version__,
    }
    return Measurement("tile-seconds", facts)
