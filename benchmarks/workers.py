"""Real workers of this machine: speed of one, two, ..., and what travels between them.

    python benchmarks/workers.py [--workers 1,2] [--megapixels 40] [--precision bfloat16] [--runs 5]

The same image, tile and network (16 base channels, depth 4) with both feeds (`--feed` of
`tilesegment run`), in turn. The cores are shared out among the workers, so that the speed can only
stay what it is; how it grows with cores of their own is what `scheduling.py` simulates. What
travels is the pixels of halos and the labels of tiles whose steps different workers do.
"""

import argparse
import statistics
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from common import mirrored_slide, random_model, save_results
from scheduling import FEEDS

import tilesegment as ts
from tilesegment.config import ClusterOptions, RunOptions


def measure(image: Path, model: Path, options: RunOptions, cluster: ClusterOptions) -> Any:
    """Megapixels per second, and bytes sent per pixel."""
    summary = ts.segment(image, model, options=options, cluster=cluster, overwrite=True)
    assert summary.cluster is not None
    pixels = summary.megapixels_per_second * 1e6 * summary.seconds
    return summary.megapixels_per_second, summary.cluster["moved_bytes"] / pixels


def main() -> None:
    """Measure, print, and write benchmarks/results/workers.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--megapixels", type=float, default=40)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    cases = list(product(map(int, arguments.workers.split(",")), FEEDS))
    found: dict[tuple[int, Any], list[tuple[float, float]]] = {case: [] for case in cases}
    options = RunOptions(precision=arguments.precision, tile=arguments.tile)
    side = round((arguments.megapixels * 1e6) ** 0.5)
    with tempfile.TemporaryDirectory() as name:
        image = mirrored_slide(Path(name), side, side)
        model = random_model(Path(name), 16, depth=4)
        for _ in range(arguments.runs):
            for workers, feed in cases:
                cluster = ClusterOptions("cpu", workers=workers, feed=feed)
                found[workers, feed].append(measure(image, model, options, cluster))
                print(workers, feed, found[workers, feed][-1], flush=True)
    first = [speed for speed, _ in found[cases[0]]]
    rows = [
        {
            "workers": workers,
            "feed": feed,
            "mpx_s": round(statistics.median(speed for speed, _ in runs), 3),
            "over_first": round(
                statistics.median(
                    speed / other for (speed, _), other in zip(runs, first, strict=True)
                ),
                3,
            ),
            "sent_bytes_per_pixel": round(statistics.median(sent for _, sent in runs), 3),
        }
        for (workers, feed), runs in found.items()
    ]
    save_results("workers", {**vars(arguments), "rows": rows})
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
