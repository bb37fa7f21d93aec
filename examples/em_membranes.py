"""Cell membranes in electron microscopy, the paper's first experiment (section 4).

    python examples/em_membranes.py DATA RESULT [--steps N] [--base-channels N]

DATA is a folder with `image` and `label` (255 inside a cell, 0 membrane) of the sections of the
ISBI 2012 challenge, 00.png to 24.png; they may be used for generating or testing non-commercial
segmentation software (Cardona et al. 2010), and neither they nor the weights are shipped here.
Sections 00 to 19 are learnt from, 20 to 24 are measured on: neighbouring sections are alike.
"""

import argparse
import shutil
from pathlib import Path

import tilesegment as ts

MEASURED = "2[0-4].png"
PAPER = {"pixel_error": 0.0611, "rand_error": 0.0382, "warping_error": 0.000353}


def train(data: Path, result: Path, steps: int, base_channels: int) -> Path:
    """The paper's network, narrower, with a modern optimiser: it learns in fewer steps."""
    trained = ts.train(
        data,
        result / "em.safetensors",
        labels=ts.LabelRule("classes", names=("membrane", "cell")),
        validation=ts.Validation(MEASURED.removesuffix(".png")),
        network=ts.NetworkChoice(base_channels=base_channels, batch_norm=True, dropout=0.3),
        recipe=ts.Recipe(
            steps=steps,
            tile=256,
            optimiser="adamw",
            learning_rate=0.001,
            weight_decay=0.01,
            schedule="cosine",
            assess_every=300,
        ),
        augmentation=ts.Augmentation(foreground=0, smallest_zoom=0.85, largest_zoom=1.2),
        border=ts.BorderWeight(w0=5),
        sampling=ts.Sampling(class_balance=0.3),
        overwrite=True,
        report=lambda progress: print(f"\rstep {progress.step} of {progress.steps}", end=""),
    )
    print()
    return trained.model


def main() -> None:
    """Train, then measure with and without the average over seven rotated views."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--base-channels", type=int, default=24)
    arguments = parser.parse_args()
    model = train(arguments.data, arguments.result, arguments.steps, arguments.base_channels)
    sections = arguments.result / "sections"
    for part in ("image", "label"):
        (sections / part).mkdir(parents=True, exist_ok=True)
        for file in (arguments.data / part).glob(MEASURED):
            shutil.copy(file, sections / part)
    for average in (1, 7):
        found = ts.evaluate(
            sections / "image",
            sections / "label",
            model=ts.Segmentation(model, average=average),
            options=ts.EvaluateOptions(kind="boundaries"),
            picture=arguments.result / f"em-average-{average}.png",
        )
        print(f"average of {average} view(s)")
        for name, paper in PAPER.items():
            print(f"  {name}: {found.picture_mean[name]:.6f} (paper, other sections: {paper})")


if __name__ == "__main__":
    main()
