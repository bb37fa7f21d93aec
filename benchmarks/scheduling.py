"""What one scheduler can feed: tasks and milliseconds per tile, and where it saturates.

    python benchmarks/scheduling.py [--tiles 1024] [--most-workers 256] [--seconds 1]

The engine's own graphs with a network that sleeps and a store that throws away, for both feeds
(`--feed` of `tilesegment run`). First with two workers that do nothing at all: the CPU time of the
driver (which holds the scheduler, as with `--cluster cpu`) per tile is what one more tile costs the
part that cannot be shared out. Then with more and more workers, each of which takes as long for a
tile as it is told to. They live in two processes beside the driver's, which give way to it; where
the machine has few cores, it is they that saturate first, and a real cluster later.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import zarr
from common import save_results
from distributed import Client, LocalCluster

from tilesegment.execution.cluster import SETTINGS
from tilesegment.execution.engine import segment_tiles
from tilesegment.execution.feed import TileFeed
from tilesegment.execution.timings import timed
from tilesegment.execution.worker import ModelPlugin, Prediction
from tilesegment.geometry import YX, NetworkGeometry, unet_geometry
from tilesegment.model.predictor import TileClasses, Waiting
from tilesegment.planning import Network, Plan, Source, make_plan
from tilesegment.profiling import Profile, summarise_times
from tilesegment.retry import Trouble
from tilesegment.storage.image import MirroredPixels
from tilesegment.storage.ledger import TileRecord
from tilesegment.tiling import Window

TILE = 64
FEEDS = ("overlap", "tile")
HOSTS = 2
THREADS = 5
"""Of a worker, as `--cluster cpu` starts them."""
CALM = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "false",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "1h",
}
"""Many workers in one process must not each look at all of it, many times a second."""
TILES_OF_A_WORKER = 20
"""So that the first and the last, during which others wait, count for little."""
TILE_SIZES = (1024, 2048, 4096, 8192)
NETWORK = unet_geometry(depth=2)


@dataclass(frozen=True)
class Sleeper:
    """In place of a model and its predictor: the labels of a tile are what sleeping gives."""

    seconds: float
    geometry: NetworkGeometry = NETWORK
    device: str = "cpu"
    nodata: None = None
    kind: None = None
    versions: None = None
    tiles_at_once: int = 1

    def build(self, worker_threads: int) -> "Sleeper":
        return self

    def classify(self, pixels: npt.NDArray[Any], waiting: Waiting) -> TileClasses:
        time.sleep(self.seconds)
        return TileClasses(np.zeros((TILE, TILE), np.uint8), None, self.seconds)


class Nowhere:
    """In place of a writer."""

    resampling = None

    def write(
        self, prediction: Prediction, number: int, plane: int, window: Window, mask: None = None
    ) -> TileRecord:
        return TileRecord(number, (window.height * window.width,), 0, (), "", "computed")


def noise(folder: Path, tiles: int) -> tuple[Plan, MirroredPixels]:
    """An image of so many tiles, none of one value, and its plan."""
    side = round(tiles**0.5) * TILE
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side), np.uint8)
    # Not compressed: small tiles decode a chunk again and again, if each reads its halo itself.
    array = zarr.create_array(
        folder / "noise.zarr", data=pixels, chunks=(1, 512, 512), compressors=None
    )
    source = Source(str(folder), 0, YX(side, side), 1, 1, 1, YX(512, 512))
    plan = make_plan(source, Network(NETWORK, 4, 0), TILE, [YX(side, side)], 1)
    return plan, MirroredPixels(array, 0, ())


@contextmanager
def workers(count: int) -> Iterator[Client]:
    """A client of so many workers, which share a few processes of low priority."""
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=0, protocol="tcp://", host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        hosts = [start_workers(client, part) for part in parts(count)]
        client.wait_for_workers(count, timeout=300)
        try:
            yield client
        finally:
            client.retire_workers(close_workers=True)
            for host in hosts:
                host.terminate()
                host.wait()


def parts(count: int) -> list[int]:
    """So many workers, divided among the processes."""
    each = [(count + host) // HOSTS for host in range(HOSTS)]
    return [part for part in each if part]


def start_workers(client: Client, count: int) -> subprocess.Popen[bytes]:
    options = {"nthreads": THREADS, "memory_limit": 0, "dashboard": False, "protocol": "tcp://"}
    spec = {uuid.uuid4().hex: {"cls": "distributed.Worker", "opts": options} for _ in range(count)}
    command = [sys.executable, "-m", "distributed.cli.dask_spec", client.scheduler.address]
    return subprocess.Popen(
        ["nice", *command, "--spec", json.dumps(spec)],
        env={**os.environ, **CALM},
        stderr=subprocess.DEVNULL,
    )


@dataclass(frozen=True)
class Fed:
    """What was seen of one run."""

    seconds: float
    driver_cpu_seconds: float
    profile: Profile


def run_tiles(client: Client, plan: Plan, pixels: MirroredPixels, seconds: float) -> Fed:
    """All tiles of a plan, each of which takes a worker's network so many seconds."""
    name = f"sleeper-{uuid.uuid4().hex[:8]}"
    client.register_plugin(ModelPlugin(name, Sleeper(seconds)), name=name)  # type: ignore[arg-type]
    writer: Any = Nowhere()
    feed = TileFeed(plan, pixels, writer, name, name)
    with timed(client) as times:
        clock, cpu = time.perf_counter(), time.process_time()
        records = segment_tiles(client, feed, range(len(plan.grid)), Trouble(), lambda: None)
        assert sum(1 for _ in records) == len(plan.grid)
        clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    client.unregister_worker_plugin(name)
    return Fed(clock, cpu, summarise_times(times))


def measure_alone(plan: Plan, pixels: MirroredPixels, runs: int) -> dict[str, Any]:
    """What a tile costs, by feed; and what one scheduler can feed at most, by the tile's size."""
    measured: dict[str, list[Fed]] = {feed: [] for feed in FEEDS}
    with workers(2) as client:
        for _ in range(runs):
            for feed, found in measured.items():
                found.append(run_tiles(client, replace(plan, feed=feed), pixels, 0))
    tiles, results = len(plan.grid), {}
    for feed, found in measured.items():
        cpu_ms = 1e3 * statistics.median(run.driver_cpu_seconds for run in found) / tiles
        results[feed] = {
            "tiles": tiles,
            "tasks_per_tile": found[0].profile.tasks_per_tile,
            "driver_cpu_ms_per_tile": round(cpu_ms, 2),
            "clock_ms_per_tile": round(
                1e3 * statistics.median(run.seconds for run in found) / tiles, 2
            ),
            "most_megapixels_per_second": {
                size: round(size**2 / 1e3 / cpu_ms) for size in TILE_SIZES
            },
        }
        print(feed, results[feed], flush=True)
    return results


def measure_growth(folder: Path, most_workers: int, seconds: float) -> list[dict[str, Any]]:
    """How much of the ideal speed more and more workers reach."""
    rows, feeds = [], list(FEEDS)
    for count in (4, 8, 16, 32, 64, 128, 256):
        if count > most_workers:
            break
        plan, pixels = noise(folder / str(count), TILES_OF_A_WORKER * count)
        ideal = -(-len(plan.grid) // count) * seconds
        with workers(count) as client:
            for feed in feeds:
                fed = run_tiles(client, replace(plan, feed=feed), pixels, seconds)
                rows.append(
                    {
                        "feed": feed,
                        "workers": count,
                        "tiles_per_second": round(len(plan.grid) / fed.seconds, 2),
                        "efficiency": round(ideal / fed.seconds, 3),
                        "driver_busy": round(fed.driver_cpu_seconds / fed.seconds, 3),
                    }
                )
                print(rows[-1], flush=True)
        # More workers add nothing to what is saturated.
        feeds = [row["feed"] for row in rows if row["workers"] == count and row["efficiency"] > 0.5]
    return rows


def main() -> None:
    """Measure, print, and write benchmarks/results/scheduling.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--most-workers", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=1.0, help="per tile, of a worker")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {
            "alone": measure_alone(*noise(folder / "alone", arguments.tiles), arguments.runs),
            "seconds_per_tile": arguments.seconds,
            "rows": measure_growth(folder, arguments.most_workers, arguments.seconds),
        }
    save_results("scheduling", results)


if __name__ == "__main__":
    main()
