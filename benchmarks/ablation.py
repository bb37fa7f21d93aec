"""What each part of the paper's recipe is worth: the same training without it.

    python benchmarks/ablation.py DATA [--steps 400] [--seeds 2]

DATA is a folder with `train` and `devtest`, each with `images` and `instances` (BBBC038). A small
U-Net learns from five fluorescence pictures with many touching nuclei and is measured on others.
A gap is background between two nuclei whose distances to it add up to six pixels at most; "open"
is the share of its pixels that is labelled background.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import save_results

import tilesegment as ts
from tilesegment.metrics.boundaries import label_objects
from tilesegment.metrics.instances import Matches, match_objects, score_matches
from tilesegment.metrics.overlaps import count_overlaps
from tilesegment.training.pictures import read_label
from tilesegment.training.weight_map import BorderWeight, border_weights, separate_touching
from tilesegment.usecases.label_sources import Segmenter, whole_plane

KIND = "fluo520x696"
LEARNT_FROM = 5
GAP = 6
"""Pixels, the two distances together."""


def take(source: Path, target: Path, count: int | None) -> Path:
    """Copy the first pictures of the kind, with their labels."""
    for part in ("images", "instances"):
        (target / part).mkdir(parents=True, exist_ok=True)
        for file in sorted((source / part).glob(f"{KIND}_*"))[:count]:
            shutil.copy(file, target / part)
    return target


def variants() -> Mapping[str, tuple[ts.Augmentation, BorderWeight, ts.Sampling]]:
    """The recipe, and the recipe without one of its parts."""
    augmentation, border, sampling = ts.Augmentation(), BorderWeight(), ts.Sampling()
    no_border, equal = BorderWeight(w0=0), ts.Sampling(class_balance=0)
    return {
        "the paper's recipe": (augmentation, border, sampling),
        "without elastic deformation": (replace(augmentation, elastic=0), border, sampling),
        "without the border term": (augmentation, no_border, sampling),
        "plain cross-entropy": (augmentation, no_border, equal),
    }


def train(data: Path, folder: Path, variant: str, steps: int, seed: int) -> Path:
    """One training; the validation pictures are the last of the five."""
    augmentation, border, sampling = variants()[variant]
    return ts.train(
        data,
        folder / f"{variant.replace(' ', '-')}-{seed}.safetensors",
        labels=ts.LabelRule("instances", names=("background", "nucleus")),
        network=ts.NetworkChoice(base_channels=16, depth=3, dropout=0.2),
        recipe=ts.Recipe(
            steps=steps,
            tile=192,
            optimiser="adamw",
            schedule="cosine",
            assess_every=steps,
            seed=seed,
        ),
        augmentation=augmentation,
        border=border,
        sampling=sampling,
    ).model


def gaps(truth: np.ndarray) -> np.ndarray:
    """Background between two near nuclei, (y, x) bool."""
    separated = separate_touching(truth)
    one_at_zero = border_weights(separated, BorderWeight(w0=1))
    return (separated == 0) & (one_at_zero >= np.exp(-(GAP**2) / (2 * BorderWeight().sigma ** 2)))


def measure(model: Path, data: Path) -> dict[str, float]:
    """Dice, panoptic quality, and the share of the gaps that are open, over all pictures."""
    segmenter = Segmenter(ts.Segmentation(model))
    matches, right, gap_pixels, open_pixels = Matches(), np.zeros(2), 0, 0
    for truth, found in _pairs(segmenter, data):
        matches += match_objects(count_overlaps(truth, label_objects(found)))
        right += 2 * np.sum((truth > 0) & found), np.sum(truth > 0) + found.sum()
        gap = gaps(truth)
        gap_pixels += gap.sum()
        open_pixels += (gap & ~found).sum()
    return {
        "dice": right[0] / right[1],
        "panoptic_quality": score_matches(matches).panoptic_quality,
        "open_gaps": open_pixels / gap_pixels,
    }


def _pairs(segmenter: Segmenter, data: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbered nuclei, and where the model finds nuclei."""
    for path in sorted((data / "images").iterdir()):
        yield (
            read_label(data / "instances" / path.name),
            whole_plane(segmenter.segment(path), 0) > 0,
        )


def main() -> None:
    """Train and measure all variants, print a table, write benchmarks/results/ablation.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = take(arguments.data / "train", folder / "few", LEARNT_FROM)
        others = take(arguments.data / "devtest", folder / "others", None)
        for variant in variants():
            runs = [
                measure(train(few, folder, variant, arguments.steps, seed), others)
                for seed in range(arguments.seeds)
            ]
            results[variant] = {key: [round(float(run[key]), 4) for run in runs] for key in runs[0]}
            print(
                variant, {key: np.mean(values).round(3) for key, values in results[variant].items()}
            )
    save_results("ablation", {"steps": arguments.steps, "by_seed": results})


if __name__ == "__main__":
    main()
