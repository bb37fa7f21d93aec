"""The graph of a region: how many tasks, on which threads."""

import os
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from distributed import Client

from tests.pictures import random_pixels, write_image
from tilesegment.errors import IncompleteError
from tilesegment.execution.engine import Batch, _compute, _failure, _region_graph
from tilesegment.geometry import YX, Spacing, unet_geometry
from tilesegment.planning import Network, Plan, Source, make_plan
from tilesegment.storage.image import MirroredPixels, open_image
from tilesegment.tiling import Window


class CountingWriter:
    """Stands in for the real writer: tells where it ran, writes nothing."""

    def write(self, labels: str, number: int, plane: int, window: Window) -> tuple[int, str, str]:
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


@pytest.mark.parametrize("step", [None, Spacing(1.0, 1.0)])
def test_only_the_network_runs_on_its_thread_and_alone(
    step: Spacing | None, planned: tuple[Plan, MirroredPixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask drops annotations when it fuses tasks: then inference would run anywhere."""
    from concurrent.futures import ThreadPoolExecutor

    import dask
    from distributed import LocalCluster

    from tilesegment.execution.cluster import SETTINGS

    plan, pixels = planned
    plan = replace(plan, source=replace(plan.source, step=step))
    monkeypatch.setattr("tilesegment.execution.engine.predict_tile", where_am_i)
    monkeypatch.setattr("tilesegment.execution.engine.resample_tile", where_resampled)
    region = next(iter(plan.region_list()))
    batch = _region_graph(
        plan, region, region.tiles(), pixels, CountingWriter(), "run", "test", None
    )
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
    ):
        executor = ThreadPoolExecutor(1, thread_name_prefix="network")
        for worker in cluster.workers.values():
            worker.executors["test"] = executor
        records = client.get(batch.graph, list(batch.tiles))
        executor.shutdown()
    assert sorted(number for number, _, _ in records) == list(range(64))
    assert {network for _, network, _ in records} == {"network_0"}
    assert not any(writer.startswith("network") for _, _, writer in records)


def test_tasks_per_tile_are_bounded(planned: tuple[Plan, MirroredPixels]) -> None:
    plan, pixels = planned
    region = next(iter(plan.region_list()))
    batch = _region_graph(
        plan, region, region.tiles(), pixels, CountingWriter(), "run", "test", None
    )
    kinds = Counter(str(key[0]).split("-")[0] for key in batch.graph.to_dict())
    assert len(batch.tiles) == 64
    assert kinds["labels"] == kinds["record"] == 64
    assert kinds["pixels"] == 10 * 10
    assert len(batch.graph.to_dict()) / 64 < 16


def test_only_what_the_missing_tiles_need_is_read(planned: tuple[Plan, MirroredPixels]) -> None:
    plan, pixels = planned
    region = next(iter(plan.region_list()))
    missing = list(region.tiles())[27:28]
    batch = _region_graph(plan, region, missing, pixels, CountingWriter(), "run", "test", None)
    kinds = Counter(str(key[0]).split("-")[0] for key in batch.graph.to_dict())
    assert len(batch.tiles) == 1
    assert kinds["pixels"] == 9


def test_a_worker_that_dies_is_one_line(one_worker: str) -> None:
    with Client(one_worker, set_as_default=False) as client:
        batch = Batch({"dies": (os._exit, 1)}, {"dies": 7})
        ((number, error),) = _compute(client, [batch], 1, lambda: None)
        # Other tests need the worker that takes its place.
        client.wait_for_workers(1, timeout=120)
    failure = _failure(number, error)
    assert (failure.tile, failure.worker, failure.of_tile) == (7, None, True)
    assert isinstance(failure.error, IncompleteError)
    assert "workers died several times" in str(failure.error)
