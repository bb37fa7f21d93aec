"""What the benchmarks share: a large image made of a real one, networks, and results as JSON."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

import tilesegment as ts
from tilesegment.storage.importing import import_image
from tilesegment.tiling import mirrored_positions

ROOT = Path(__file__).resolve().parents[1]
SLIDE = ROOT / "examples" / "data" / "CMU-1-Small-Region.svs"
RESULTS = ROOT / "benchmarks" / "results"
_BLOCK = 2048


def mirrored_slide(folder: Path, height: int, width: int) -> Path:
    """An OME-Zarr image of any size: the real slide, mirrored until it is large enough.

    Written block by block, so that its size is bounded by the disk only.
    """
    small = folder / "slide.zarr"
    if not small.exists():
        import_image(SLIDE, small)
    source = zarr.open_array(small / "0", mode="r")[...]
    path = folder / f"mirrored-{height}x{width}.zarr"
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    group = zarr.create_group(partial, overwrite=True)
    array = group.create_array(
        "0",
        shape=(3, height, width),
        chunks=(3, 512, 512),
        shards=(3, _BLOCK, _BLOCK),
        dtype="uint8",
        dimension_names=["c", "y", "x"],
    )
    for top in range(0, height, _BLOCK):
        rows = mirrored_positions(top, min(top + _BLOCK, height), source.shape[1])
        for left in range(0, width, _BLOCK):
            columns = mirrored_positions(left, min(left + _BLOCK, width), source.shape[2])
            block = source[:, rows[:, None], columns[None, :]]
            array[:, top : top + _BLOCK, left : left + _BLOCK] = block
    micrometres = {"type": "space", "unit": "micrometer"}
    axes = [{"name": "c", "type": "channel"}, *({"name": name, **micrometres} for name in "yx")]
    scale = [{"type": "scale", "scale": [1.0, 0.499, 0.499]}]
    multiscale = {
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": scale}],
    }
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    partial.rename(path)
    return path


def random_model(folder: Path, base_channels: int, depth: int) -> Path:
    """A model file with random weights: speed and memory do not depend on them."""
    torch.manual_seed(0)
    network = ts.UNet(3, 2, base_channels=base_channels, depth=depth)
    return ts.save_model(network, folder / f"base{base_channels}-depth{depth}.safetensors")


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
