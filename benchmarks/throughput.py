"""End to end over forward-only: how much of the network's own speed a whole run keeps.

    python benchmarks/throughput.py [--megapixels 64] [--runs 5] [--precisions float32,int8]
                                    [--networks 16,64] [--result throughput]

Forward-only is the network on one tile in memory, again and again, on a worker of the same
cluster: same threads, same allocator settings. End to end is what `tilesegment run` reports:
from zarr to a published label image with all its levels. Starting and stopping the worker
processes and loading the model is shown apart. Both in pixels of the image per second, with
the same tile and halo, and in turn. Beside it what the plan said: seconds, amplifications.
"""

import argparse
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path

import dask
import numpy as np
from common import mirrored_slide, random_model, save_results
from distributed import Client, get_worker

import tilesegment as ts
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.execution.cluster import inference_threads, open_cluster
from tilesegment.execution.worker import ModelPlugin, WorkerModel
from tilesegment.model.file import read_description
from tilesegment.usecases.estimate import estimate_seconds
from tilesegment.usecases.workers import Progress


class FirstTile:
    """Seconds from the first sign of a run to its first tile."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.seconds: float | None = None

    def __call__(self, progress: Progress) -> None:
        now = time.perf_counter()
        self.began = self.began or now
        if progress.done and self.seconds is None:
            self.seconds = now - self.began


def forward_only(client: Client, model: Path, tile: int, precision: str, seconds: float) -> float:
    """Mpx/s of the network alone on one worker, times the number of workers."""
    content = WorkerModel(
        model.read_bytes(),
        read_description(model),
        np.dtype(np.uint8),
        precision,
        "cpu",
        inference_threads(ClusterOptions()),
    )
    client.register_plugin(ModelPlugin("forward-only", content), name="forward-only")
    workers = list(client.scheduler_info()["workers"])

    def measure(tile: int, seconds: float) -> float:
        predictor = get_worker().plugins["forward-only"].predictor
        side = predictor.geometry.input_size(tile)
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 256, (3, side, side), np.uint8)
        predictor.labels(pixels)
        passes, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            predictor.labels(pixels)
            passes += 1
        return passes * tile**2 / 1e6 / (time.perf_counter() - started)

    with dask.annotate(executor="forward-only"):
        futures = [
            client.submit(measure, tile, seconds, workers=[worker], pure=False)
            for worker in workers
        ]
    speeds = client.gather(futures)
    client.unregister_worker_plugin("forward-only")
    return sum(speeds)


def main() -> None:
    """Measure, print, and write benchmarks/results/throughput.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--networks", default="16,64", help="base widths, depth 4")
    parser.add_argument("--precisions", default="float32", help="as float32,bfloat16,int8")
    parser.add_argument("--result", default="throughput", help="name of the file of results")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for base, precision in product(
            map(int, arguments.networks.split(",")), arguments.precisions.split(",")
        ):
            # The wide network, which is 16 times slower, gets a quarter of the pixels.
            pixels = arguments.megapixels * 1e6 * 16 / base
            # No multiple of the tile: the last tiles reach beyond the image, as on any slide.
            side = max(int(pixels**0.5) // 1024, 2) * 1024 - 100
            image = mirrored_slide(folder, side, side)
            model = random_model(folder, base, depth=4)
            if precision == "int8":
                ts.calibrate(model, [image], model, overwrite=True)
            options = RunOptions(precision=precision)
            planned = ts.plan(image, model, options)
            tile = planned.tile
            expected = estimate_seconds(planned, model, options, ClusterOptions())
            forward, whole, starts, firsts, seconds = [], [], [], [], []
            for _ in range(arguments.runs):
                with open_cluster(ClusterOptions()) as client:
                    forward.append(forward_only(client, model, tile, precision, seconds=10))
                started = time.perf_counter()
                first = FirstTile()
                summary = ts.segment(image, model, options=options, overwrite=True, report=first)
                firsts.append(first.seconds)
                seconds.append(summary.seconds)
                starts.append(time.perf_counter() - started - summary.seconds)
                whole.append(summary.megapixels_per_second)
            ratios = [one / other for one, other in zip(whole, forward, strict=True)]
            row = {
                "base_channels": base,
                "precision": precision,
                "megapixels": side**2 / 1e6,
                "tile": tile,
                "forward_only_mpx_s": round(statistics.median(forward), 3),
                "end_to_end_mpx_s": round(statistics.median(whole), 3),
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
                "start_and_stop_seconds": round(statistics.median(starts), 2),
                "first_tile_seconds": round(statistics.median(firsts), 2),
                "compute_amplification": round(planned.compute_amplification, 3),
                "read_amplification": round(planned.read_amplification, 3),
                "planned_over_real_seconds": round(expected / statistics.median(seconds), 3),
            }
            rows.append(row)
            print(row, flush=True)
    save_results(arguments.result, {"rows": rows})


if __name__ == "__main__":
    main()
