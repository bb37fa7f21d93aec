"""What smoothing, CRF, thresholds and cleaning gain and cost, with the bundled model `nuclei`.

    python benchmarks/refinement.py DATA [--pictures 8]

DATA holds `nuclei/index.csv` with `nuclei/devtest/{images,instances}`: pictures that the model was
not trained on. Scores, by kind of picture, are those of `tilesegment evaluate`: Dice of the
foreground, and the panoptic quality of its connected parts. Cost: processor time, as a ratio to
that without refinement; one thread.
"""

import argparse
import csv
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import save_results
from PIL import Image

import tilesegment as ts
from tilesegment.cleaning import (
    Cleaning,
    classes_above,
    fill_holes,
    find_holes,
    find_regions,
    remove_small,
)
from tilesegment.config import RunOptions
from tilesegment.execution.memory import keep_freed_memory
from tilesegment.geometry import YX
from tilesegment.model import zoo
from tilesegment.model.file import read_description
from tilesegment.model.predictor import Predictor
from tilesegment.model.tiles import segment_picture
from tilesegment.refinement import choose_refinement
from tilesegment.tiling import TileGrid

WAYS: dict[str, RunOptions | Cleaning] = {
    "none": RunOptions(),
    "clean --min-area 40 --fill-holes 100": Cleaning(40, 100),
    "--smooth 1": RunOptions(smooth=1.0),
    "--smooth 2": RunOptions(smooth=2.0),
    "--refine crf": RunOptions(refine="crf"),
    "--refine crf --crf-contrast 0.15": RunOptions(refine="crf", crf_contrast=0.15),
    "--smooth 1 --refine crf": RunOptions(smooth=1.0, refine="crf"),
    "--class-threshold nucleus=0.4": RunOptions(class_thresholds=(("nucleus", 0.4),)),
    "--class-threshold nucleus=0.6": RunOptions(class_thresholds=(("nucleus", 0.6),)),
}


def chosen_pictures(data: Path, most: int) -> list[str]:
    """File names: the first of each kind."""
    with (data / "nuclei" / "index.csv").open() as index:
        rows = [row for row in csv.DictReader(index) if row["split"] == "devtest"]
    seen: Counter[str] = Counter()
    chosen = []
    for row in rows:
        seen[row["group"]] += 1
        if seen[row["group"]] <= most:
            chosen.append(row["file"])
    return chosen


def predictor_for(options: RunOptions) -> Predictor:
    path = zoo.find("nuclei")
    description = read_description(path)
    refinement = choose_refinement(options, [item.name for item in description.classes])
    return Predictor(
        path.read_bytes(),
        description,
        np.dtype(np.uint8),
        "float32",
        "cpu",
        refinement=refinement,
    )


def cleaned(labels: np.ndarray, cleaning: Cleaning) -> np.ndarray:
    """As `tilesegment clean`, of a picture that fits in memory."""
    grid = TileGrid(YX(*labels.shape), 1, max(labels.shape))
    window = grid.write_window(next(grid.tiles()))
    none = np.zeros(0, np.int32)
    regions = find_regions(labels, window, window, grid)
    labels = remove_small(labels, regions, cleaning.min_area, none)
    holes = find_holes(labels, window, grid)
    marks = classes_above(labels, np.zeros(window.width, labels.dtype), holes)
    return fill_holes(labels, holes, marks, cleaning.fill_holes, grid, none, none.astype(np.int64))


def measure(
    images: dict[str, Any], truth: Path, folder: Path, way: RunOptions | Cleaning
) -> tuple[Any, float]:
    """Scores of one way by kind, and its seconds."""
    predictor = predictor_for(way if isinstance(way, RunOptions) else RunOptions())
    folder.mkdir()
    # The first time pays for what is made once.
    segment_picture(predictor, next(iter(images.values())))
    seconds = 0.0
    for file, pixels in images.items():
        started = time.process_time()
        labels = segment_picture(predictor, pixels)
        if isinstance(way, Cleaning):
            labels = cleaned(labels, way)
        seconds += time.process_time() - started
        Image.fromarray(labels).save(folder / file)
    found = ts.evaluate(
        folder, truth, options=ts.EvaluateOptions(kind="instances", by_group=True)
    ).as_json()
    scores = {}
    for kind, group in {**found["by_group"], "all": found}.items():
        foreground = list(group["classes"].values())[1]
        scores[kind] = {
            "dice": round(foreground["dice"], 4),
            "panoptic_quality": round(group["instances"]["panoptic_quality"], 4),
        }
    return scores, seconds


def main() -> None:
    """Measure, print, and write benchmarks/results/refinement.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=int, default=8, help="of each kind")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    devtest = arguments.data / "nuclei" / "devtest"
    files = chosen_pictures(arguments.data, arguments.pictures)
    images = {
        file: np.moveaxis(
            np.asarray(Image.open(devtest / "images" / file).convert("RGB")), -1, 0
        ).copy()
        for file in files
    }
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        truth = Path(temporary) / "instances"
        truth.mkdir()
        for file in files:
            (truth / file).write_bytes((devtest / "instances" / file).read_bytes())
        plain = 0.0
        for number, (name, way) in enumerate(WAYS.items()):
            scores, seconds = measure(images, truth, Path(temporary) / str(number), way)
            plain = plain or seconds
            results[name] = {"scores": scores, "time_ratio": round(seconds / plain, 2)}
            print(name, results[name], flush=True)
    save_results("refinement", {"pictures": len(files), "ways": results})


if __name__ == "__main__":
    main()
