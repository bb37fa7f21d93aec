"""Objects of a gigapixel: their number, and the peak memory beside that of a tenth of it.

    python benchmarks/objects.py [--gigapixels 0.1,1]

The nuclei of a square of the demo slide are found once, and those along its rim cleared. Square and
mirrored squares make a shard of 4096 x 4096 pixels; the image and its labels are that shard again
and again, linked, so that they need no time and no disk. The number to be found is shards times
the nuclei of one. Blocks of 2000 pixels fit neither shards nor squares.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import zarr
from common import (
    SHARD,
    SQUARE,
    copies_for,
    imported_slide,
    linked_slide,
    repeated,
    run_watched,
    save_results,
)
from scipy import ndimage

import tilesegment as ts

_BLOCK = 2000


def make_labels(folder: Path) -> np.ndarray:
    """Nuclei (y, x) of a square of the slide and its mirror images."""
    slide = imported_slide(folder)
    if not (slide / "labels" / "nuclei").exists():
        ts.segment(slide, "nuclei", options=ts.RunOptions(level=0))
    labels = zarr.open_array(slide / "labels" / "nuclei" / "0", mode="r")[SQUARE, SQUARE]
    labels[[0, -1]] = labels[:, [0, -1]] = 0
    return np.pad(labels, [(0, len(labels))] * 2, "symmetric")


def make_image(folder: Path, copies: tuple[int, int]) -> Path:
    """The image with its labels."""
    path = linked_slide(folder, copies)
    if (path / "labels").exists():
        return path
    zarr.create_group(path / "labels", attributes={"ome": {"version": "0.5", "labels": ["nuclei"]}})
    names = [{"label-value": 1, "class": "nucleus"}]
    properties = {"image-label": {"properties": names}}
    repeated(path / "labels" / "nuclei", make_labels(folder), copies, properties)
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
            copies = copies_for(size)
            image = make_image(folder, copies)
            row = {
                "gigapixels": round(copies[0] * copies[1] * SHARD**2 / 1e9, 3),
                "expected": copies[0] * copies[1] * ndimage.label(make_labels(folder))[1],
                **measure(image, arguments.workers),
            }
            rows.append(row)
            print(row, flush=True)
    save_results("objects", {"workers": arguments.workers, "rows": rows})


if __name__ == "__main__":
    main()
