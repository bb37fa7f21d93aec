"""Faults to plant on workers.

A module of its own, without torch: a worker that starts again loads it on its event loop while
another thread loads torch for the model.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, Worker, WorkerPlugin
from zarr.storage import LocalStore

from tilesegment.retry import Backoff

HALO = 20
MARKED = 9
"""Number of the tile that holds the brightest pixel, by which a planted fault knows it."""
LOST_KEY = "0/c/0/2/1"
"""Of the chunk under that tile."""


@dataclass(frozen=True)
class Place:
    """Where a fault is: it is asked before each tile that the network is given."""

    folder: Path
    marked: bool
    """Whether this is the marked tile."""
    side: int
    """Of the pieces that the tile is predicted in, without halo."""

    def first(self, name: str) -> bool:
        """Whether nobody asked this before, in any process."""
        try:
            (self.folder / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def unforeseen(place: Place) -> None:
    if place.marked:
        raise RuntimeError("planted")


def unforeseen_once(place: Place) -> None:
    if place.marked and place.first("once"):
        raise RuntimeError("planted")


def killed_once(place: Place) -> None:
    if place.marked and place.first("once"):
        os.kill(os.getpid(), signal.SIGKILL)


def kills_always(place: Place) -> None:
    if place.marked:
        os.kill(os.getpid(), signal.SIGKILL)


def frozen_once(place: Place) -> None:
    """Until somebody wakes the process, which the scheduler has given up by then."""
    if place.marked and place.first("once"):
        (place.folder / "frozen").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)


def hangs_once(place: Place) -> None:
    if place.marked and place.first("once"):
        time.sleep(10_000)


def hangs_always(place: Place) -> None:
    if place.marked:
        time.sleep(10_000)


def waits(place: Place) -> None:
    """Until the test makes a file of this name."""
    while place.marked and not (place.folder / "go").exists():
        time.sleep(0.05)


def lost_gpu_once(place: Place) -> None:
    if place.marked and place.first("once"):
        import torch

        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def little_memory(place: Place) -> None:
    if place.side > 16:
        import torch

        raise torch.OutOfMemoryError("planted")


def broken_worker(place: Place) -> None:
    if place.first("claimed"):
        (place.folder / "broken").write_text(str(os.getpid()))
    if (place.folder / "broken").read_text() == str(os.getpid()):
        raise RuntimeError("planted")


def works_for_five_tiles(place: Place) -> None:
    if not any(place.first(f"worked-{number}") for number in range(5)):
        raise RuntimeError("planted")


def calm(place: Place) -> None:
    pass


def unhurried(place: Place) -> None:
    """As real tiles are: those of tests are done before another worker is given any."""
    time.sleep(0.2)


def slow(place: Place) -> None:
    time.sleep(5)


class Plant(WorkerPlugin):  # type: ignore[misc]
    """Asks a fault before each tile, also on workers that are started again, and counts tiles."""

    name = "plant"

    def __init__(self, fault: Callable[[Place], None], folder: Path, lost: int = 0) -> None:
        self.fault, self.folder, self.lost = fault, folder, lost

    def setup(self, worker: Worker) -> None:
        from tilesegment.execution import worker as module
        from tilesegment.storage import objects

        self.in_parts, self.get = module.in_parts, LocalStore.get
        # What is lost is asked for as often as ever, but sooner.
        self.backoff, objects.Backoff = objects.Backoff, partial(Backoff, first_seconds=0.01)
        plant, in_parts, get = self, self.in_parts, self.get

        def faulty(predictor: Any, pixels: np.ndarray, parts: int, waiting: Any) -> Any:
            inner = pixels[:, HALO:-HALO, HALO:-HALO]
            marked = bool(inner.max() == 255)
            with (plant.folder / "executions").open("a") as file:
                file.write(f"{marked} {os.getpid()}\n")
            plant.fault(Place(plant.folder, marked, inner.shape[-1] // parts))
            return in_parts(predictor, pixels, parts, waiting)

        async def losing_get(store: LocalStore, key: str, *arguments: Any, **named: Any) -> Any:
            if key == LOST_KEY and plant.lost:
                plant.lost -= 1
                return None
            return await get(store, key, *arguments, **named)

        module.in_parts, LocalStore.get = faulty, losing_get

    def teardown(self, worker: Worker) -> None:
        from tilesegment.execution import worker as module
        from tilesegment.storage import objects

        module.in_parts, LocalStore.get = self.in_parts, self.get
        objects.Backoff = self.backoff


class planted:  # noqa: N801 - used as a context manager
    """A fault on all workers of a cluster while the block lasts."""

    def __init__(self, address: str, *arguments: Any) -> None:
        self.address, self.plant = address, Plant(*arguments)

    def __enter__(self) -> "planted":
        self.client = Client(self.address, set_as_default=False)
        self.client.register_plugin(self.plant, name="plant")
        return self

    def __exit__(self, *_: object) -> None:
        self.client.unregister_worker_plugin("plant")
        self.client.close()

    def executions(self) -> Counter[bool]:
        """How often the marked tile was given to the network, and all others together."""
        file = self.plant.folder / "executions"
        lines = file.read_text().splitlines() if file.exists() else []
        return Counter(line.startswith("True") for line in lines)
