"""The tasks of a region: how many, on which threads, and what they tell dask of themselves."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import dask
import numpy as np
import numpy.typing as npt
import pytest
from dask.highlevelgraph import HighLevelGraph
from distributed import Client, Future, LocalCluster, Worker

from tests.pictures import random_pixels, write_image
from tilesegment.execution.cluster import SETTINGS
from tilesegment.execution.feed import Batch, TileFeed
from tilesegment.execution.timings import timed
from tilesegment.geometry import YX, Spacing, unet_geometry
from tilesegment.model.predictor import Waiting
from tilesegment.planning import Network, Plan, Source, make_plan
from tilesegment.resampling import Resampling
from tilesegment.storage.image import MirroredPixels, open_image
from tilesegment.tiling import Region, Window


class CountingWriter:
    """Stands in for the real writer: tells where it ran, writes nothing."""

    resampling: Resampling | None = None

    def write(
        self, labels: str, number: int, plane: int, window: Window, mask: None = None
    ) -> tuple[int, str, str]:
        return number, labels, threading.current_thread().name


def where_am_i(pixels: np.ndarray, plugin: str) -> str:
    assert pixels.shape == (3, 32 + 2 * 20, 32 + 2 * 20)
    return threading.current_thread().name


def where_resampled(*_: object) -> np.ndarray:
    assert not threading.current_thread().name.startswith("network")
    return np.empty((3, 32 + 2 * 20, 32 + 2 * 20))


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Plan, MirroredPixels]:
    pixels = random_pixels((3, 8 * 32, 8 * 32), "uint8")
    image = open_image(write_image(tmp_path / "i.zarr", pixels))
    source = Source(image.location, 0, YX(256, 256), 1, 3, 1, YX(256, 256))
    network = Network(unet_geometry(2), base_channels=4, weights_bytes=1000)
    return make_plan(source, network, 32, [YX(256, 256)], 1), image.pixels(0)


class ThreadName(str):
    """Stands in for a prediction."""

    seconds = 0.0


class Model:
    """Stands in for the plugin that holds the network."""

    predictor = None

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.may_go.set()
        self.calls = 0

    def predict(self, pixels: npt.NDArray[np.uint8], waiting: Waiting) -> ThreadName:
        self.calls += 1
        self.may_go.wait(timeout=30)
        return ThreadName(where_am_i(pixels, "test"))


@contextmanager
def equipped(model: Model) -> Iterator[tuple[LocalCluster, Client]]:
    """One worker in this process, with a thread for the network."""
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=1,
            threads_per_worker=4,
            processes=False,
            dashboard_address="127.0.0.1:0",
            resources={"test": 1},
        ) as cluster,
        Client(cluster) as client,
        ThreadPoolExecutor(1, thread_name_prefix="network") as executor,
    ):
        (worker,) = cluster.workers.values()
        worker.executors["test"] = executor
        worker.plugins["test"] = model
        try:
            yield cluster, client
        finally:
            model.may_go.set()


def first_batch(plan: Plan, pixels: MirroredPixels, writer: CountingWriter | None = None) -> Batch:
    region = next(iter(plan.region_list()))
    feed = TileFeed(plan, pixels, writer or CountingWriter(), "run", "test")
    return feed.batch(region, region.tiles())


@pytest.mark.parametrize("feed", ["overlap", "tile"])
@pytest.mark.parametrize("step", [None, Spacing(1.0, 1.0)])
def test_only_the_network_runs_on_its_thread_and_alone(
    step: Spacing | None,
    feed: Literal["overlap", "tile"],
    planned: tuple[Plan, MirroredPixels],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dask drops annotations when it fuses tasks: then inference would run anywhere."""
    plan, pixels = planned
    plan = replace(plan, source=replace(plan.source, step=step), feed=feed)
    monkeypatch.setattr("tilesegment.execution.feed.predict_tile", where_am_i)
    for module in ("feed", "one_task"):
        monkeypatch.setattr(f"tilesegment.execution.{module}.resample_tile", where_resampled)
    writer = CountingWriter()
    writer.resampling = plan.resampling
    batch = first_batch(plan, pixels, writer)
    with equipped(Model()) as (_, client):
        records = client.get(batch.graph, list(batch.tiles))
    assert sorted(number for number, _, _ in records) == list(range(64))
    assert {network for _, network, _ in records} == {"network_0"}
    assert not any(writer.startswith("network") for _, _, writer in records)


@pytest.fixture
def blocked(
    planned: tuple[Plan, MirroredPixels],
) -> Iterator[tuple[Client, Worker, Model, list[Future]]]:
    """A worker that was given tiles, and computes the first for as long as the test likes."""
    plan, pixels = planned
    model = Model()
    batch = first_batch(replace(plan, feed="tile"), pixels)
    with equipped(model) as (cluster, client):
        model.may_go.clear()
        graph = HighLevelGraph.from_collections("tiles", batch.graph)
        futures = client.get(graph, list(batch.tiles), sync=False)
        (worker,) = cluster.workers.values()
        yield client, worker, model, futures


def test_a_tile_that_waits_for_the_network_does_not_take_long(
    blocked: tuple[Client, Worker, Model, list[Future]],
) -> None:
    """Another tile may block the network for ever; that one hangs, and no other."""
    client, worker, model, futures = blocked
    assert sum(map(math.isfinite, wait_for_turns(worker))) == 1
    model.may_go.set()
    client.gather(futures)


def wait_for_turns(worker: Worker) -> list[float]:
    """When each of four tiles began, once all but one of them wait for the network."""

    def began() -> list[float]:
        return [worker.state.tasks[key].start_time for key in list(worker.active_keys)]

    wait_until(lambda: sum(map(math.isinf, began())) == 3)
    return began()


def is_executing(worker: Worker) -> bool:
    return any(worker.state.tasks[key].state == "executing" for key in list(worker.active_keys))


def wait_until(fulfilled: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not fulfilled():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_tiles_of_a_run_that_has_stopped_are_not_computed(
    blocked: tuple[Client, Worker, Model, list[Future]],
) -> None:
    client, worker, model, futures = blocked
    wait_for_turns(worker)
    client.cancel(futures)
    wait_until(lambda: not is_executing(worker))
    model.may_go.set()
    wait_until(lambda: not worker.active_keys)
    assert model.calls == 1


def test_a_tile_that_is_one_task_tells_of_its_steps(
    planned: tuple[Plan, MirroredPixels],
) -> None:
    plan, pixels = planned
    batch = first_batch(replace(plan, feed="tile"), pixels)
    assert len(batch.graph) == len(batch.tiles) == 64
    with equipped(Model()) as (_, client), timed(client) as times:
        client.get(batch.graph, list(batch.tiles))
    (worked,) = times.values()
    assert worked.tasks == {"inference": 64}
    assert set(worked.seconds) == {"reading", "inference", "writing"}


def test_tiles_wait_at_the_scheduler_for_the_first_worker_that_is_free(
    planned: tuple[Plan, MirroredPixels],
) -> None:
    """Also those of a region that is no larger than the cluster: who joins has work at once."""
    plan, pixels = planned
    region = Region(0, 0, 0, 1, 8)
    feed = TileFeed(replace(plan, feed="tile"), pixels, CountingWriter(), "run", "test")
    model = Model()
    batch = feed.batch(region, region.tiles())
    with equipped(model) as (cluster, client):
        model.may_go.clear()
        graph = HighLevelGraph.from_collections("tiles", batch.graph)
        futures = client.get(graph, list(batch.tiles), sync=False)
        wait_until(lambda: len(cluster.scheduler.queued) == 4)
        model.may_go.set()
        client.gather(futures)


def test_tasks_per_tile_are_bounded(planned: tuple[Plan, MirroredPixels]) -> None:
    batch = first_batch(*planned)
    kinds = Counter(str(key[0]).split("-")[0] for key in batch.graph.to_dict())
    assert len(batch.tiles) == 64
    assert kinds["labels"] == kinds["record"] == 64
    assert kinds["pixels"] == 10 * 10
    assert len(batch.graph.to_dict()) / 64 < 16


def test_only_what_the_missing_tiles_need_is_read(planned: tuple[Plan, MirroredPixels]) -> None:
    plan, pixels = planned
    region = next(iter(plan.region_list()))
    missing = list(region.tiles())[27:28]
    batch = TileFeed(plan, pixels, CountingWriter(), "run", "test").batch(region, missing)
    kinds = Counter(str(key[0]).split("-")[0] for key in batch.graph.to_dict())
    assert len(batch.tiles) == 1
    assert kinds["pixels"] == 9
