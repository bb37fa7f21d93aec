"""Peak memory of the driver and of each worker, for images that differ tenfold in size.

    python benchmarks/memory.py [--gigapixels 0.1,1]

Runs the command line as a user would, in a process of its own, and reads the high-water mark
of the resident memory (VmHWM) of that process and of every process that it starts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from common import mirrored_slide, random_model, save_results

import tilesegment as ts
from tilesegment.config import RunOptions


def peak_bytes(process: psutil.Process) -> int:
    """High-water mark of the resident memory; 0 if the process is gone."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def measure(image: Path, model: Path, workers: int) -> dict[str, float]:
    """Run once; peak memory of the driver and of the largest worker."""
    command = [
        Path(sys.executable).with_name("tilesegment"), "run", image, "--model", model,
        "--workers", str(workers), "--precision", "float32", "--overwrite", "--json",
    ]  # fmt: skip
    started = time.perf_counter()
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    driver = psutil.Process(run.pid)
    while run.poll() is None:
        for process in (driver, *driver.children(recursive=True)):
            peaks[process.pid] = max(peaks.get(process.pid, 0), peak_bytes(process))
        time.sleep(0.5)
    assert run.stdout is not None
    assert run.returncode == 0
    summary = json.loads(run.stdout.read())
    others = [peak for pid, peak in peaks.items() if pid != run.pid]
    return {
        "driver_mib": round(peaks[run.pid] / 2**20),
        "worker_mib": round(max(others) / 2**20),
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
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the pictures go; kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        model = arguments.model or random_model(folder, arguments.base, arguments.depth)
        rows = []
        for size in (float(text) for text in arguments.gigapixels.split(",")):
            side = round((size * 1e9) ** 0.5)
            image = mirrored_slide(folder, side, side)
            planned = ts.plan(image, model, RunOptions())
            row = {
                "gigapixels": size,
                "tiles": len(planned.grid),
                "planned_worker_mib": round(planned.worker_memory_bytes / 2**20),
                **measure(image, model, arguments.workers),
            }
            rows.append(row)
            print(row, flush=True)
    save_results(
        "memory",
        {"workers": arguments.workers, "model": str(model).rpartition("/")[2], "rows": rows},
    )


if __name__ == "__main__":
    main()
