"""Nuclei from few images: learn from ten pictures, measure on others, and look at the result.

    python examples/few_nuclei.py DATA RESULT

DATA is a folder with `train` and `devtest`, each with `images` and `instances` (one number per
nucleus), such as pictures of BBBC038 (bbbc.broadinstitute.org). The file names begin with the
kind of picture; ten fluorescence pictures of 520 x 696 pixels are learnt from. RESULT is a folder
for the model, its learning curve, and `few_nuclei.png`, a picture of what was right and wrong.
"""

import shutil
import sys
from pathlib import Path

import tilesegment as ts

KIND = "fluo520x696"
LEARNT_FROM = 10


def take(source: Path, target: Path, count: int | None) -> Path:
    """Copy the first pictures of the kind, with their labels."""
    for part in ("images", "instances"):
        (target / part).mkdir(parents=True, exist_ok=True)
        for file in sorted((source / part).glob(f"{KIND}_*"))[:count]:
            shutil.copy(file, target / part)
    return target


def main() -> None:
    """Train, then measure."""
    data, result = Path(sys.argv[1]), Path(sys.argv[2])
    few = take(data / "train", result / "few", LEARNT_FROM)
    others = take(data / "devtest", result / "others", None)
    trained = ts.train(
        few,
        result / "few_nuclei.safetensors",
        labels=ts.LabelRule("instances", names=("background", "nucleus")),
        network=ts.NetworkChoice(base_channels=16, depth=3, dropout=0.2),
        recipe=ts.Recipe(
            steps=600, tile=192, batch=2, optimiser="adamw", schedule="cosine", assess_every=100
        ),
        overwrite=True,
        report=lambda progress: print(f"\rstep {progress.step} of {progress.steps}", end=""),
    )
    found = ts.evaluate(
        others / "images",
        others / "instances",
        model=ts.Segmentation(trained.model),
        options=ts.EvaluateOptions(kind="instances"),
        picture=result / "few_nuclei.png",
    )
    numbers = found.overall.headline()
    print(f"\nDice {numbers['dice object']:.3f}, ", end="")
    print(f"panoptic quality {numbers['panoptic_quality']:.3f}")


if __name__ == "__main__":
    main()
