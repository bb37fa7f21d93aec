"""What one scheduler can feed: tasks and milliseconds per tile, and where it saturates.

    python benchmarks/scheduling.py [--tiles 1024] [--most-workers 256]

The engine's own graphs with a network that sleeps and a store that throws away. First with two
worker processes that do nothing at all: the CPU time of the driver (which holds the scheduler, as
with `--cluster cpu`) per tile is what one more tile costs the part that cannot be shared out. Then
with more and more workers, each of which takes as long for a tile as it is told to; all of them
live in one process here, whose one interpreter they share with the scheduler: a real cluster
saturates later.
"""

import argparse
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from tilesegment.execution.timings import timed
from tilesegment.execution.worker import ModelPlugin, Prediction
from tilesegment.geometry import YX, NetworkGeometry, unet_geometry
from tilesegment.model.predictor import TileClasses
from tilesegment.planning import Network, Plan, Source, make_plan
from tilesegment.profiling import Profile, summarise_times
from tilesegment.retry import Trouble
from tilesegment.storage.image import MirroredPixels
from tilesegment.storage.ledger import TileRecord
from tilesegment.tiling import Window

TILE = 64
NETWORK = unet_geometry(depth=2)


@dataclass(frozen=True)
class Sleeper:
    """In place of a model and its predictor: the labels of a tile are what sleeping gives."""

    seconds: float
    geometry: NetworkGeometry = NETWORK
    nodata: None = None
    kind: None = None
    versions: None = None

    def build(self, worker_threads: int) -> "Sleeper":
        return self

    def classify(self, pixels: npt.NDArray[Any]) -> TileClasses:
        time.sleep(self.seconds)
        return TileClasses(np.zeros((TILE, TILE), np.uint8), None)


class Nowhere:
    """In place of a writer."""

    def write(self, prediction: Prediction, number: int, plane: int, window: Window) -> TileRecord:
        return TileRecord(number, (window.height * window.width,), 0, (), "", "computed")


def noise(folder: Path, tiles: int) -> tuple[Plan, MirroredPixels]:
    """An image of so many tiles, none of one value, and its plan."""
    side = round(tiles**0.5) * TILE
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side), np.uint8)
    array = zarr.create_array(folder / "noise.zarr", data=pixels, chunks=(1, 512, 512))
    source = Source(str(folder), 0, YX(side, side), 1, 1, 1, YX(512, 512))
    plan = make_plan(source, Network(NETWORK, 4, 0), TILE, [YX(side, side)], 1)
    return plan, MirroredPixels(array, 0, ())


@contextmanager
def workers(count: int, processes: bool) -> Iterator[Client]:
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=count,
            threads_per_worker=2,
            processes=processes,
            protocol="tcp://",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def feed(
    client: Client, plan: Plan, pixels: MirroredPixels, seconds: float
) -> tuple[float, float, Profile]:
    """Seconds on the clock, CPU seconds of this process, and what the workers did."""
    name = f"sleeper-{uuid.uuid4().hex[:8]}"
    client.register_plugin(ModelPlugin(name, Sleeper(seconds)), name=name)  # type: ignore[arg-type]
    with timed(client) as times:
        clock, cpu = time.perf_counter(), time.process_time()
        records = segment_tiles(
            client,
            plan,
            pixels,
            Nowhere(),  # type: ignore[arg-type]
            name,
            name,
            range(len(plan.grid)),
            Trouble(),
            lambda: None,
        )
        assert sum(1 for _ in records) == len(plan.grid)
        clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    client.unregister_worker_plugin(name)
    return clock, cpu, summarise_times(times)


def main() -> None:
    """Measure, print, and write benchmarks/results/scheduling.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--most-workers", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=4.0, help="per tile, of a worker")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        plan, pixels = noise(Path(name), arguments.tiles)
        with workers(2, processes=True) as client:
            runs = [feed(client, plan, pixels, 0) for _ in range(arguments.runs)]
        tiles = len(plan.grid)
        alone = {
            "tiles": tiles,
            "tasks_per_tile": runs[0][2].tasks_per_tile,
            "driver_cpu_ms_per_tile": round(1e3 * statistics.median(r[1] for r in runs) / tiles, 2),
            "clock_ms_per_tile": round(1e3 * statistics.median(r[0] for r in runs) / tiles, 2),
        }
        print(alone, flush=True)
        rows = []
        count = 1
        while count <= arguments.most_workers:
            folder = Path(name) / str(count)
            some, part = noise(folder, max(4 * count, 16))
            with workers(count, processes=False) as client:
                clock, _, profile = feed(client, some, part, arguments.seconds)
            ideal = -(-len(some.grid) // count) * arguments.seconds
            rows.append(
                {
                    "workers": count,
                    "tiles_per_second": round(len(some.grid) / clock, 2),
                    "efficiency": round(ideal / clock, 3),
                    "idle_share": profile.idle_share,
                }
            )
            print(rows[-1], flush=True)
            count *= 2
    save_results(
        "scheduling", {"alone": alone, "seconds_per_tile": arguments.seconds, "rows": rows}
    )


if __name__ == "__main__":
    main()
