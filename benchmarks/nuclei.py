"""Dice of the bundled model `nuclei` on pictures it was not trained on, per kind of picture.

    python benchmarks/nuclei.py DATA

DATA holds `nuclei/index.csv` with `nuclei/devtest/{images,instances}`, and the third-party network
`models/unet2d_nuclei_broad` (TorchScript), which was made for fluorescence: it is given grey
pictures, inverted where the background is bright, with mean 0 and deviation 1.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from common import save_results
from PIL import Image

from tilesegment.geometry import round_up
from tilesegment.metrics.classes import dice
from tilesegment.metrics.overlaps import count_overlaps
from tilesegment.model import zoo
from tilesegment.model.file import read_description
from tilesegment.model.predictor import Predictor
from tilesegment.model.quantise import can_quantise
from tilesegment.model.tiles import segment_picture

Mask = npt.NDArray[np.bool_]
Segment = Callable[[npt.NDArray[np.uint8]], Mask]


def ours(precision: str) -> Segment:
    """The bundled model, as `tilesegment run` applies it."""
    path = zoo.find("nuclei")
    dtype = np.dtype(np.uint8)
    predictor = Predictor(path.read_bytes(), read_description(path), dtype, precision, "cpu")
    return lambda picture: segment_picture(predictor, np.moveaxis(picture, -1, 0)) > 0


def third_party(folder: Path) -> Segment:
    """The network of bioimage.io."""
    network = torch.jit.load(folder / "weights.pt").eval()

    def segment(picture: npt.NDArray[np.uint8]) -> Mask:
        grey = np.asarray(Image.fromarray(picture).convert("L"), np.float32)
        grey = 255 - grey if np.median(grey) > 100 else grey
        grey = (grey - grey.mean()) / (grey.std() + 1e-6)
        missing = [(0, round_up(size, 16) - size) for size in grey.shape]
        padded = torch.from_numpy(np.pad(grey, missing, mode="reflect"))
        with torch.inference_mode():
            foreground = network(padded[None, None])[0, 0].numpy() > 0.5
        return foreground[: grey.shape[0], : grey.shape[1]]

    return segment


def foreground_dice(found: Mask, truth: Mask) -> float:
    """Dice coefficient of the foreground."""
    return float(dice(count_overlaps(truth, found).matrix([0, 1]))[1])


def main() -> None:
    """Measure, print, and write benchmarks/results/nuclei.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    networks = {
        "nuclei": ours("float32"),
        **({"nuclei_int8": ours("int8")} if can_quantise() else {}),
        "third_party": third_party(data / "models" / "unet2d_nuclei_broad"),
    }
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (data / "nuclei" / "index.csv").open() as index:
        rows = [row for row in csv.DictReader(index) if row["split"] == "devtest"]
    for row in rows:
        folder = data / "nuclei" / "devtest"
        picture = np.asarray(Image.open(folder / "images" / row["file"]).convert("RGB"))
        truth = np.asarray(Image.open(folder / "instances" / row["file"])) > 0
        for name, segment in networks.items():
            scores[row["group"]][name].append(foreground_dice(segment(picture), truth))
    results = {
        kind: {
            "pictures": len(found["nuclei"]),
            **{name: round(float(np.mean(values)), 3) for name, values in found.items()},
        }
        for kind, found in sorted(scores.items())
    }
    for kind, row_ in results.items():
        print(kind, row_)
    save_results("nuclei", {"dice": results})


if __name__ == "__main__":
    main()
