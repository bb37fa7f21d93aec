"""What ledger, checksums and synchronised writes cost, as a share of the run that they belong to.

    python benchmarks/reliability.py [--side 5120]

One run over the real slide, mirrored to the wanted size, with the bundled model on one worker. The
seconds inside each step that only serves reliability are added up, on the worker and in the
driver, and divided by the run's: one run is its own comparison. Writing the labels' bytes is not
counted, synchronising them is.

Two shares: of computing (CPU time of the thread), which is taken from the network; and of elapsed
time, nearly all of it waiting for the disk. The worker waits on its ordinary threads while the
network goes on, and the driver while it has nothing else to do: this is an upper bound of what a
run is longer for it.
"""

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import mirrored_slide, save_results
from distributed import Client, LocalCluster, Worker, WorkerPlugin

import tilesegment as ts
from tilesegment.config import ClusterOptions

PLUGIN = "stopwatch"
# Module and name of each step, and what it is told as.
ON_WORKERS = [
    ("os", "fsync", "fsync"),
    ("tilesegment.storage.objects", "_name", "link"),
    ("tilesegment.storage.objects", "describe", "sha256"),
    ("tilesegment.storage.labels", "describe", "sha256 again"),
]
IN_DRIVER = [
    ("tilesegment.storage.ledger.Ledger", "__init__", "open ledger"),
    ("tilesegment.storage.ledger.Ledger", "add", "ledger"),
    ("tilesegment.storage.ledger.Ledger", "flush", "ledger"),
    ("tilesegment.storage.ledger.Ledger", "remove", "ledger"),
    ("tilesegment.usecases.labelling", "write_objects", "checksums"),
    ("tilesegment.usecases.labelling", "write_copies", "checksums"),
    ("tilesegment.storage.image.Image", "inventory", "inventory"),
]


class Stopwatch:
    """Adds up the seconds inside functions; what is called by another that counts is not twice."""

    def __init__(self) -> None:
        self.elapsed: dict[str, float] = defaultdict(float)
        self.computing: dict[str, float] = defaultdict(float)
        self._inside = threading.local()

    def wrap(self, owner: Any, name: str, told: str) -> None:
        original = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            if getattr(self._inside, "counts", False):
                return original(*arguments, **named)
            self._inside.counts = True
            started, computing = time.perf_counter(), time.thread_time()
            try:
                return original(*arguments, **named)
            finally:
                self._inside.counts = False
                self.elapsed[told] += time.perf_counter() - started
                self.computing[told] += time.thread_time() - computing

        setattr(owner, name, timed)


def watch(steps: list[tuple[str, str, str]]) -> Stopwatch:
    from pydoc import locate

    stopwatch = Stopwatch()
    for owner, name, told in steps:
        stopwatch.wrap(locate(owner), name, told)
    return stopwatch


class Watch(WorkerPlugin):  # type: ignore[misc]
    """A stopwatch on the worker."""

    name = PLUGIN

    def setup(self, worker: Worker) -> None:
        self.stopwatch = watch(ON_WORKERS)


def read_watch(dask_worker: Worker) -> tuple[dict[str, float], dict[str, float]]:
    stopwatch = dask_worker.plugins[PLUGIN].stopwatch
    return dict(stopwatch.elapsed), dict(stopwatch.computing)


def measure(image: Path) -> dict[str, Any]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=5, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(Watch())
        driver = watch(IN_DRIVER)
        started = time.perf_counter()
        summary = ts.segment(image, cluster=ClusterOptions(cluster.scheduler_address))
        seconds = time.perf_counter() - started
        on_worker = next(iter(client.run(read_watch).values()))
    elapsed = {**driver.elapsed, **on_worker[0]}
    computing = {**driver.computing, **on_worker[1]}
    return {
        "seconds": round(seconds, 2),
        "tiles": summary.tiles,
        "megapixels": round(summary.megapixels_per_second * summary.seconds, 1),
        "elapsed_seconds": {name: round(value, 4) for name, value in sorted(elapsed.items())},
        "computing_share": round(sum(computing.values()) / seconds, 5),
        "elapsed_share": round(sum(elapsed.values()) / seconds, 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=5120)
    side = parser.parse_args().side
    with tempfile.TemporaryDirectory() as folder:
        found = measure(mirrored_slide(Path(folder), side, side))
    save_results("reliability", found)


if __name__ == "__main__":
    main()
