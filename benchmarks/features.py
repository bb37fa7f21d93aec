"""What bands of rows save and cost: memory of one tile's features, and time, with and without.

    python benchmarks/features.py [--runs 5] [--cases 16:float32:same:1536,...]

Each case is a process of its own for each way, with the allocator settings of our workers: how much
the high-water mark of its resident memory grows over some passes, as a multiple of one map of base
width and full size (what `tilesegment plan` reckons with), the median of their times, and the
megapixels of the input per second, which tell whether the size of the tile matters. Bands begin at
the size of a map that `tilesegment.config` names: maps below it have none either way.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from common import save_results

import tilesegment as ts
from tilesegment.config import LARGE_MAP_BYTES, ClusterOptions
from tilesegment.execution.cluster import inference_threads
from tilesegment.execution.memory import keep_freed_memory
from tilesegment.model.banded import BandedUNet
from tilesegment.model.fuse import fuse

CASES = ",".join(
    f"{base}:{precision}:{padding}:{tile}"
    for base, precision, tile in (
        (16, "float32", 512), (16, "float32", 1024), (16, "float32", 1536),
        (16, "float32", 2048), (16, "bfloat16", 1024), (16, "bfloat16", 2048),
        (16, "bfloat16", 3072),
        (64, "float32", 1024), (64, "bfloat16", 1536),
    )
    for padding in ("valid", "same")
)  # fmt: skip
MIB = 2**20


def grown(case: str, bands: bool, runs: int) -> dict[str, float]:
    """What one process sees of a case."""
    base, precision, padding, tile = case.split(":")
    keep_freed_memory()
    torch.set_num_threads(inference_threads(ClusterOptions(workers=1)) or 1)
    torch.manual_seed(0)
    unet = ts.UNet(3, 2, base_channels=int(base), depth=4, padding=padding)
    geometry, dtype = unet.geometry, getattr(torch, precision)
    margin = geometry.crop if geometry.loss == 0 else 0
    large_bytes = LARGE_MAP_BYTES if bands else 2**62
    network = BandedUNet(fuse(unet.eval().to(dtype)), margin, large_bytes)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = geometry.input_size(int(tile))
    image = torch.rand(1, 3, side, side).to(dtype).to(memory_format=torch.channels_last)
    before, times = high_water(), []
    with torch.inference_mode():
        for _ in range(runs):
            started = time.perf_counter()
            network(image)
            times.append(time.perf_counter() - started)
    return {
        "bytes": high_water() - before,
        "map_bytes": side**2 * int(base) * dtype.itemsize,
        "megapixels": side**2 / 1e6,
        "seconds": statistics.median(times[1:]),
    }


def high_water() -> int:
    """Bytes of resident memory, at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(case: str, runs: int) -> dict[str, Any]:
    """A case with bands and without, each in a process of its own."""
    found = {}
    for bands in (True, False):
        words = [sys.executable, __file__, "--case", case, "--runs", str(runs)]
        output = subprocess.check_output([*words, "--bands"] if bands else words, text=True)
        found[bands] = json.loads(output)
    banded, whole = found[True], found[False]
    map_bytes = whole["map_bytes"]
    return {
        "case": case,
        "input_mpx_s": round(banded["megapixels"] / banded["seconds"], 3),
        "map_mib": round(map_bytes / MIB),
        "in_bands": map_bytes >= LARGE_MAP_BYTES,
        "maps": round(banded["bytes"] / map_bytes, 1),
        "maps_without_bands": round(whole["bytes"] / map_bytes, 1),
        "memory_over_without": round(banded["bytes"] / whole["bytes"], 2),
        "seconds_over_without": round(banded["seconds"] / whole["seconds"], 3),
    }


def main() -> None:
    """Measure, print, and write benchmarks/results/features.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=CASES, help="base width:precision:padding:tile, ...")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--bands", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(grown(arguments.case, arguments.bands, arguments.runs)))
        return
    rows = []
    for case in arguments.cases.split(","):
        rows.append(measure(case, arguments.runs))
        print(rows[-1], flush=True)
    save_results("features", {"rows": rows})


if __name__ == "__main__":
    main()
