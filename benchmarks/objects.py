"""Objects of a gigapixel: their number, and the peak memory beside that of a tenth of it.

    python benchmarks/objects.py [--gigapixels 0.1,1]

The nuclei of a square of the demo slide are found once, and those along its rim cleared. Square and
mirrored squares make a shard of 4096 x 4096 pixels; the image and its labels are that shard again
and again, linked, so that they need no time and no disk. The number to be found is shards times
the nuclei of one. Blocks of 2000 pixels fit neither shards nor squares.
"""

import argparse
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import SLIDE, run_watched, save_results
from scipy import ndimage

import tilesegment as ts
from tilesegment.storage.importing import import_image

_SHARD = 4096
_CHUNK = 512
_LEVELS = 4
_BLOCK = 2000


def mirrored_shard(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (c, y, x) and labels (y, x) of a square of the slide and its mirror images."""
    slide = folder / "slide.zarr"
    if not slide.exists():
        import_image(SLIDE, slide)
        ts.segment(slide, "nuclei", options=ts.RunOptions(level=0))
    half = slice(100, 100 + _SHARD // 2)
    pixels = zarr.open_array(slide / "0", mode="r")[:, half, half]
    labels = zarr.open_array(slide / "labels" / "nuclei" / "0", mode="r")[half, half]
    labels[[0, -1]] = labels[:, [0, -1]] = 0
    missing = [(0, _SHARD // 2)] * 2
    return np.pad(pixels, [(0, 0), *missing], "symmetric"), np.pad(labels, missing, "symmetric")


def repeated(
    path: Path,
    shard: np.ndarray,
    copies: tuple[int, int],
    extra: dict[str, Any],
    levels: int = _LEVELS,
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


def make_image(folder: Path, copies: tuple[int, int]) -> Path:
    """The image with its labels."""
    path = folder / f"mirrored-{copies[0]}x{copies[1]}.zarr"
    if path.exists():
        return path
    pixels, labels = mirrored_shard(folder)
    repeated(path, pixels, copies, {})
    zarr.create_group(path / "labels", attributes={"ome": {"version": "0.5", "labels": ["nuclei"]}})
    names = [{"label-value": 1, "class": "nucleus"}]
    repeated(path / "labels" / "nuclei", labels, copies, {"image-label": {"properties": names}})
    return path


def measure(image: Path, workers: int) -> dict[str, float]:
    """Run once; peak memory of the driver and of the largest worker."""
    found, peaks = run_watched(
        "objects", image, "--labels", "nuclei", "--table", image.with_suffix(".parquet"),
        "--workers", workers, "--overwrite", "--tile", _BLOCK,
    )  # fmt: skip
    return {"objects": found["objects"], **peaks, "seconds": found["seconds"]}


def main() -> None:
    """Measure, print, and write benchmarks/results/objects.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigapixels", default="0.1,1")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the pictures go; kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        rows = []
        for size in (float(text) for text in arguments.gigapixels.split(",")):
            shards = max(1, round(size * 1e9 / _SHARD**2))
            high = next(count for count in range(int(shards**0.5), 0, -1) if shards % count == 0)
            image = make_image(folder, (high, shards // high))
            row = {
                "gigapixels": round(shards * _SHARD**2 / 1e9, 3),
                "expected": shards * ndimage.label(mirrored_shard(folder)[1])[1],
                **measure(image, arguments.workers),
            }
            rows.append(row)
            print(row, flush=True)
    save_results("objects", {"workers": arguments.workers, "rows": rows})


if __name__ == "__main__":
    main()
