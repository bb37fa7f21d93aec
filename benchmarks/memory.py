"""Peak memory of the driver and of each worker, for images that differ tenfold in size.

python benchmarks/memory.py [--gigapixels 0.1,1] [--model nuclei --precision int8]
"""

import argparse
import tempfile
import time
from pathlib import Path

from common import SHARD, copies_for, linked_slide, random_model, run_watched, save_results

import tilesegment as ts
from tilesegment.config import RunOptions


def measure(image: Path, model: Path, workers: int, precision: str) -> dict[str, float]:
    """Run once; peak memory of the driver and of the largest worker."""
    started = time.perf_counter()
    summary, peaks = run_watched(
        "run",
        image,
        "--model",
        model,
        "--workers",
        workers,
        "--precision",
        precision,
        "--level",
        0,
        "--overwrite",
    )
    return {
        **peaks,
        "seconds": round(time.perf_counter() - started, 1),
        "mpx_s": summary["megapixels_per_second"],
    }


def main() -> None:
    """Measure, print, and write benchmarks/results/memory.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigapixels", default="0.1,1")
    parser.add_argument("--base", type=int, default=4, help="width of the network")
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--model", help="a model file or name, instead of a random network")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--result", default="memory", help="name of the file of results")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the pictures go; kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        model = arguments.model or random_model(folder, arguments.base, arguments.depth)
        rows = []
        for size in (float(text) for text in arguments.gigapixels.split(",")):
            copies = copies_for(size)
            image = linked_slide(folder, copies)
            planned = ts.plan(image, model, RunOptions(level=0, precision=arguments.precision))
            row = {
                "gigapixels": round(copies[0] * copies[1] * SHARD**2 / 1e9, 3),
                "tiles": len(planned.grid),
                "planned_worker_mib": round(planned.worker_memory_bytes / 2**20),
                **measure(image, model, arguments.workers, arguments.precision),
            }
            rows.append(row)
            print(row, flush=True)
    facts = {"workers": arguments.workers, "precision": arguments.precision}
    save_results(arguments.result, {**facts, "model": Path(model).name, "rows": rows})


if __name__ == "__main__":
    main()
