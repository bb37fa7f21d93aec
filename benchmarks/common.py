"""What the benchmarks share: a large image made of a real one, networks, and results as JSON."""

import itertools
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import zarr

import tilesegment as ts
from tilesegment.storage.importing import import_image
from tilesegment.tiling import mirrored_positions

ROOT = Path(__file__).resolve().parents[1]
SLIDE = ROOT / "examples" / "data" / "CMU-1-Small-Region.svs"
RESULTS = ROOT / "benchmarks" / "results"
SHARD = 4096
SQUARE = slice(100, 100 + SHARD // 2)
"""Rows and columns of the slide that are full of tissue."""
_CHUNK = 512
_BLOCK = 2048


def imported_slide(folder: Path) -> Path:
    """The real slide as OME-Zarr."""
    small = folder / "slide.zarr"
    if not small.exists():
        import_image(SLIDE, small)
    return small


def copies_for(gigapixels: float) -> tuple[int, int]:
    """Rows and columns of shards that give about so many pixels, as near to a square as can be."""
    shards = max(1, round(gigapixels * 1e9 / SHARD**2))
    high = next(count for count in range(int(shards**0.5), 0, -1) if shards % count == 0)
    return high, shards // high


def linked_slide(folder: Path, copies: tuple[int, int], levels: int = 4) -> Path:
    """A square of the slide and its mirror images, again and again.

    It needs neither time nor disk, whatever its size: its shards are links to one.
    """
    path = folder / f"linked-{copies[0]}x{copies[1]}.zarr"
    if not path.exists():
        pixels = zarr.open_array(imported_slide(folder) / "0", mode="r")[:, SQUARE, SQUARE]
        rims = [(0, 0), *[(0, pixels.shape[-1])] * 2]
        repeated(path, np.pad(pixels, rims, "symmetric"), copies, {}, levels)
    return path


def repeated(
    path: Path,
    shard: np.ndarray,
    copies: tuple[int, int],
    extra: dict[str, Any],
    levels: int = 4,
) -> None:
    """An OME-Zarr image of one shard again and again."""
    group = zarr.create_group(path)
    axes, channels = "cyx"[-shard.ndim :], shard.shape[:-2]
    datasets = []
    for level in range(levels):
        part, repeats = shard[..., :: 2**level, :: 2**level], copies
        if part.shape[-1] < _CHUNK:
            part, repeats = np.tile(part, copies), (1, 1)
        height, width = part.shape[-2:]
        array = group.create_array(
            str(level),
            shape=(*channels, height * repeats[0], width * repeats[1]),
            shards=part.shape,
            chunks=(*channels, math.gcd(_CHUNK, height), math.gcd(_CHUNK, width)),
            dtype=part.dtype,
            dimension_names=list(axes),
        )
        array[..., :height, :width] = part
        keys = path / str(level) / "c" / ("0" if channels else "")
        for row, column in np.ndindex(*repeats):
            (keys / str(row)).mkdir(exist_ok=True)
            if row or column:
                os.link(keys / "0" / "0", keys / str(row) / str(column))
        scale = [0.499 * 2.0**level if axis in "yx" else 1.0 for axis in axes]
        transformations = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    micrometres = {"type": "space", "unit": "micrometer"}
    entries = [
        {"name": axis, **(micrometres if axis in "yx" else {"type": "channel"})} for axis in axes
    ]
    multiscales = [{"axes": entries, "datasets": datasets}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales, **extra}


def mirrored_slide(folder: Path, height: int, width: int) -> Path:
    """An OME-Zarr image of any size: the real slide, mirrored until it is large enough.

    Written block by block, so that its size is bounded by the disk only.
    """
    source = zarr.open_array(imported_slide(folder) / "0", mode="r")[...]
    path = folder / f"mirrored-{height}x{width}.zarr"
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    group = zarr.create_group(partial, overwrite=True)
    finest = _level(group, 0, height, width)
    for top, left in _corners(height, width):
        rows = mirrored_positions(top, min(top + _BLOCK, height), source.shape[1])
        columns = mirrored_positions(left, min(left + _BLOCK, width), source.shape[2])
        block = source[:, rows[:, None], columns[None, :]]
        finest[:, top : top + _BLOCK, left : left + _BLOCK] = block
    levels = [finest]
    while min(levels[-1].shape[1:]) > 1024:
        levels.append(_halved(group, len(levels), levels[-1]))
    micrometres = {"type": "space", "unit": "micrometer"}
    axes = [{"name": "c", "type": "channel"}, *({"name": name, **micrometres} for name in "yx")]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, 0.499 * 2**level, 0.499 * 2**level]}
            ],
        }
        for level in range(len(levels))
    ]
    multiscales = [{"axes": axes, "datasets": datasets}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    partial.rename(path)
    return path


def _level(group: zarr.Group, level: int, height: int, width: int) -> zarr.Array:
    return group.create_array(
        str(level),
        shape=(3, height, width),
        chunks=(3, 512, 512),
        shards=(3, _BLOCK, _BLOCK),
        dtype="uint8",
        dimension_names=["c", "y", "x"],
    )


def _halved(group: zarr.Group, level: int, finer: zarr.Array) -> zarr.Array:
    """The next level, every second pixel: what it holds does not matter here."""
    height, width = (-(-size // 2) for size in finer.shape[1:])
    array = _level(group, level, height, width)
    for top, left in _corners(height, width):
        block = finer[:, 2 * top : 2 * (top + _BLOCK), 2 * left : 2 * (left + _BLOCK)]
        array[:, top : top + _BLOCK, left : left + _BLOCK] = block[:, ::2, ::2]
    return array


def _corners(height: int, width: int) -> Iterator[tuple[int, int]]:
    return itertools.product(range(0, height, _BLOCK), range(0, width, _BLOCK))


def random_model(folder: Path, base_channels: int, depth: int) -> Path:
    """A model file with random weights: speed and memory do not depend on them."""
    torch.manual_seed(0)
    network = ts.UNet(3, 2, base_channels=base_channels, depth=depth)
    return ts.save_model(network, folder / f"base{base_channels}-depth{depth}.safetensors")


def run_watched(*words: object) -> tuple[dict[str, Any], dict[str, int]]:
    """What the command line says with --json, and peak memory of driver and largest worker.

    It runs as a user would run it, in a process of its own; the high-water mark of the resident
    memory (VmHWM) is read of that process and of every process that it starts.
    """
    command = [Path(sys.executable).with_name("tilesegment"), *words, "--json"]
    run = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    peaks: dict[int, int] = {}
    driver = psutil.Process(run.pid)
    while run.poll() is None:
        for process in (driver, *driver.children(recursive=True)):
            peaks[process.pid] = max(peaks.get(process.pid, 0), _peak_bytes(process))
        time.sleep(0.5)
    assert run.stdout is not None
    assert run.returncode == 0
    of_driver = peaks.pop(run.pid)
    mib = {
        "driver_mib": round(of_driver / 2**20),
        "worker_mib": round(max(peaks.values(), default=0) / 2**20),
    }
    return json.loads(run.stdout.read()), mib


def _peak_bytes(process: psutil.Process) -> int:
    """High-water mark of the resident memory; 0 if the process is gone."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def save_results(name: str, results: dict[str, Any]) -> None:
    """Write ``benchmarks/results/NAME.json``."""
    RESULTS.mkdir(exist_ok=True)
    content = {"machine": machine(), **results}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
