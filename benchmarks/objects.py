"""Objects of a gigapixel: their number, and the peak memory beside that of a tenth of it.

    python benchmarks/objects.py [--gigapixels 0.1,1]

The nuclei of the demo slide are found once. Image and labels are then mirrored, so that each
copy has its own objects: labels along the rim of the slide are cleared, and the mirror axes
are those cleared rows and columns. The number to be found is copies times those of the slide.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from common import SLIDE, mirrored_slide, save_results
from memory import peak_bytes
from scipy import ndimage

import tilesegment as ts
from tilesegment.storage.importing import import_image
from tilesegment.storage.labels import (
    LabelLayout,
    LabelProperties,
    layout_volume,
    levels_to_derive,
    list_labels,
)
from tilesegment.storage.objects import make_aside
from tilesegment.tiling import mirrored_positions

_TILE = 2048
_CLASSES = (
    LabelProperties(0, "background", (0, 0, 0)),
    LabelProperties(1, "nucleus", (240, 228, 66)),
)


def slide_labels(folder: Path) -> np.ndarray:
    """The nuclei of the demo slide, (y, x), with a cleared rim."""
    kept = folder / "nuclei.npy"
    if not kept.exists():
        small = folder / "slide.zarr"
        if not small.exists():
            import_image(SLIDE, small)
        ts.segment(small, "nuclei", options=ts.RunOptions(level=0))
        np.save(kept, ts.open_image(small / "labels" / "nuclei").group["0"][...])
    labels = np.load(kept)
    labels[[0, -1]] = labels[:, [0, -1]] = 0
    return labels


def add_mirrored(image: Path, labels: np.ndarray) -> None:
    """Labels of the mirrored image, as a run would leave them."""
    if (image / "labels" / "nuclei").exists():
        return
    opened = ts.open_image(image)
    layout = LabelLayout("nuclei", "0.5", "uint8", _TILE, 512, _CLASSES, "../../")
    volume = layout_volume(opened, layout, image / "labels" / "nuclei")
    make_aside(volume.directory)
    grid = volume.grid(0, _TILE)
    for tile in grid.tiles():
        window = grid.write_window(tile)
        rows, columns = (
            mirrored_positions(part.start, part.stop, size)
            for part, size in zip(window.slices, labels.shape, strict=True)
        )
        volume.write(0, 0, window, labels[rows[:, None], columns[None, :]])
    for level, neighbour in levels_to_derive(len(volume.arrays), 0):
        coarse = volume.grid(level, _TILE)
        for tile in coarse.tiles():
            volume.derive(level, neighbour, 0, coarse.write_window(tile))
    volume.publish({})
    list_labels(image / "labels", "nuclei", "0.5")


def measure(image: Path, workers: int) -> dict[str, float]:
    """Run once; peak memory of the driver and of the largest worker."""
    command = [
        Path(sys.executable).with_name("tilesegment"), "objects", image, "--labels", "nuclei",
        "--table", image.with_suffix(".parquet"), "--workers", str(workers), "--overwrite",
        "--json",
    ]  # fmt: skip
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    driver = psutil.Process(run.pid)
    while run.poll() is None:
        for process in (driver, *driver.children(recursive=True)):
            peaks[process.pid] = max(peaks.get(process.pid, 0), peak_bytes(process))
        time.sleep(0.5)
    assert run.stdout is not None
    assert run.returncode == 0
    found = json.loads(run.stdout.read())
    workers_peak = max(peak for pid, peak in peaks.items() if pid != run.pid)
    return {
        "objects": found["objects"],
        "driver_mib": round(peaks[run.pid] / 2**20),
        "worker_mib": round(workers_peak / 2**20),
        "seconds": found["seconds"],
    }


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
        labels = slide_labels(folder)
        per_copy = ndimage.label(labels)[1]
        height, width = (size - 1 for size in labels.shape)
        rows = []
        for size in (float(text) for text in arguments.gigapixels.split(",")):
            copies = [round((size * 1e9) ** 0.5 / step) for step in (height, width)]
            image = mirrored_slide(folder, copies[0] * height + 1, copies[1] * width + 1)
            add_mirrored(image, labels)
            row = {
                "gigapixels": round(copies[0] * height * copies[1] * width / 1e9, 3),
                "expected": copies[0] * copies[1] * per_copy,
                **measure(image, arguments.workers),
            }
            rows.append(row)
            print(row, flush=True)
    save_results("objects", {"workers": arguments.workers, "rows": rows})


if __name__ == "__main__":
    main()
