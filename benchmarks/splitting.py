"""Panoptic quality of the nuclei that `tilesegment objects` makes, with and without splitting.

    python benchmarks/splitting.py DATA

Beside it, watersheds of the whole picture by scikit-image, which no tiling could give exactly: from
peaks of the distance that are farther apart than the reach, and from those that stand out by a
pixel.

DATA holds `nuclei/index.csv` with `nuclei/devtest/{images,instances}`: pictures that the bundled
model `nuclei` was not trained on. Reach and neck were chosen on `nuclei/train`.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from common import save_results
from nuclei import ours
from PIL import Image
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from tilesegment.components import find_components
from tilesegment.geometry import YX
from tilesegment.metrics.instances import Matches, match_objects, score_matches
from tilesegment.metrics.overlaps import count_overlaps
from tilesegment.splitting import REACH, Split, join
from tilesegment.tiling import TileGrid

_SMALLEST = 15
"""Pixels: smaller regions are no objects, with splitting or without."""


Splitting = Callable[[np.ndarray], np.ndarray]
"""From a mask to its objects, both (y, x)."""


def objects_of(mask: np.ndarray, split: Split) -> np.ndarray:
    """The objects of a picture that fits in memory, (y, x)."""
    grid = TileGrid(YX(*mask.shape), 1, max(mask.shape))
    window = grid.write_window(next(grid.tiles()))

    return find_components(join(mask.astype(np.uint8), split), window, grid).labels


def from_peaks(mask: np.ndarray) -> np.ndarray:
    """Watershed from the peaks of the distance that are farther apart than the reach."""
    depths = ndimage.distance_transform_edt(mask)
    peaks = peak_local_max(depths, min_distance=REACH, labels=ndimage.label(mask)[0])
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-depths, markers, mask=mask)


def from_prominent(mask: np.ndarray) -> np.ndarray:
    """Watershed from the peaks of the distance that stand out by a pixel."""
    depths = ndimage.distance_transform_edt(mask)
    return watershed(-depths, ndimage.label(h_maxima(depths, 1))[0], mask=mask)


SPLITS: dict[str, Splitting] = {
    "none": partial(objects_of, split=Split()),
    "distance": partial(objects_of, split=Split("distance")),
    "watershed from peaks": from_peaks,
    "watershed from prominent peaks": from_prominent,
}


def without_small(mask: np.ndarray) -> np.ndarray:
    regions = objects_of(mask, Split())
    large = np.bincount(regions.ravel()) >= _SMALLEST
    return mask & large[regions]


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
        mask = without_small(segment(picture))
        for name, split in SPLITS.items():
            overlaps = count_overlaps(truth, split(mask).astype(np.int64))
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
