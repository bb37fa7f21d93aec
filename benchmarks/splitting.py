"""Panoptic quality of the nuclei that `tilesegment objects` makes, with and without splitting.

    python benchmarks/splitting.py DATA

DATA holds `nuclei/index.csv` with `nuclei/devtest/{images,instances}`: pictures that the bundled
model `nuclei` was not trained on. Reach and neck were chosen on `nuclei/train`.
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from common import save_results
from nuclei import ours
from PIL import Image

from tilesegment.components import find_components
from tilesegment.geometry import YX
from tilesegment.metrics.instances import Matches, match_objects, score_matches
from tilesegment.metrics.overlaps import count_overlaps
from tilesegment.splitting import Split, join
from tilesegment.tiling import TileGrid

SPLITS = {"none": Split(), "distance": Split("distance")}
_SMALLEST = 15
"""Pixels: smaller regions are no objects, with splitting or without."""


def objects_of(mask: np.ndarray, split: Split) -> np.ndarray:
    """The objects of a picture that fits in memory, (y, x)."""
    grid = TileGrid(YX(*mask.shape), 1, max(mask.shape))
    window = grid.write_window(next(grid.tiles()))

    def found(split: Split, classes: np.ndarray) -> np.ndarray:
        return find_components(join(classes, split), window, grid).labels

    regions = found(Split(), mask.astype(np.uint8))
    large = np.bincount(regions.ravel()) >= _SMALLEST
    return found(split, (mask & large[regions]).astype(np.uint8))


def main() -> None:
    """Measure, print, and write benchmarks/results/splitting.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data / "nuclei"
    segment = ours()
    matches: dict[str, dict[str, Matches]] = defaultdict(lambda: defaultdict(Matches))
    with (data / "index.csv").open() as index:
        rows = [row for row in csv.DictReader(index) if row["split"] == "devtest"]
    for row in rows:
        picture = np.asarray(Image.open(data / "devtest/images" / row["file"]).convert("RGB"))
        truth = np.asarray(Image.open(data / "devtest/instances" / row["file"])).astype(np.int64)
        mask = segment(picture)
        for name, split in SPLITS.items():
            overlaps = count_overlaps(truth, objects_of(mask, split))
            for group in (row["group"], "all"):
                matches[group][name] += match_objects(overlaps)
    results = {
        group: {
            "true_objects": found["none"].true_objects,
            **{
                name: {
                    "objects": counted.predicted_objects,
                    "panoptic_quality": round(score_matches(counted).panoptic_quality, 3),
                    "f1": round(score_matches(counted).recognition_quality, 3),
                }
                for name, counted in found.items()
            },
        }
        for group, found in sorted(matches.items())
    }
    for group, row_ in results.items():
        print(group, row_)
    save_results("splitting", {"pictures": len(rows), "groups": results})


if __name__ == "__main__":
    main()
