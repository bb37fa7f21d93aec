"""Land cover of a satellite scene: learnt on some tiles, mapped on another, opened in a GIS.

    python examples/aerial_scene.py DATA RESULT [--steps N] [--base-channels N]

DATA is a folder with `tile1` to `tile5` and `tile7` of the open data set "Semantic segmentation of
aerial imagery" (MBRSC satellite pictures of Dubai), each of them `images/image_part_00N.jpg` and
`masks/image_part_00N.png`, nine parts that are a 3 x 3 cut of one scene. It is not shipped here.
Tiles 1 to 5 are learnt from, at half their resolution; tile 7, 6184 x 5450 pixels, is mapped.
"""

import argparse
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

import tilesegment as ts

LEARNT, MAPPED = (1, 2, 3, 4, 5), 7
CLASSES = {
    "land": 0x8429F6,
    "building": 0x3C1098,
    "road": 0x6EC1E4,
    "vegetation": 0xFEDD3A,
    "water": 0xE2A929,
}
UNKNOWN = 255
SMALLEST_PARCEL = 400
"""Pixels of the scene; smaller ones are noise on a map."""
PIXEL_M = 0.3
# The pictures do not say where they are: this place, in Dubai, is only near the truth.
PLACE = rasterio.Affine(PIXEL_M, 0, 320_000, 0, -PIXEL_M, 2_780_000)
CRS = "EPSG:32640"


def read_classes(mask: Path) -> np.ndarray:
    """Number of the class of each pixel, (y, x) uint8; the masks are colours or palettes."""
    colours = np.asarray(Image.open(mask).convert("RGB")).astype(int) @ (1 << 16, 1 << 8, 1)
    classes = np.full(colours.shape, UNKNOWN, np.uint8)
    for number, colour in enumerate(CLASSES.values()):
        classes[colours == colour] = number
    return classes


def prepare_training(data: Path, folder: Path) -> Path:
    """Pictures and classes at half the resolution, so that more of the place is seen at once."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for tile in LEARNT:
        for path in sorted((data / f"tile{tile}/images").glob("*.jpg")):
            name = f"tile{tile}-{path.stem[-3:]}.png"
            mask = path.parents[1] / "masks" / path.with_suffix(".png").name
            Image.open(path).reduce(2).save(folder / "images" / name)
            classes = read_classes(mask)
            # Where a picture of odd size is reduced, its last pixel is half a pixel.
            Image.fromarray(classes[::2, ::2]).save(folder / "labels" / name)
    return folder


def stitch(tile: Path) -> tuple[np.ndarray, np.ndarray]:
    """The nine parts of a tile as one picture (y, x, 3), and its classes (y, x)."""
    pictures = [np.asarray(Image.open(path)) for path in sorted((tile / "images").glob("*"))]
    classes = [read_classes(path) for path in sorted((tile / "masks").glob("*"))]
    return tuple(
        np.concatenate([np.concatenate(parts[row : row + 3], axis=1) for row in (0, 3, 6)])
        for parts in (pictures, classes)
    )


def write_scene(path: Path, picture: np.ndarray) -> Path:
    """The picture as a GeoTIFF, which is what a provider would deliver."""
    height, width, bands = picture.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=bands, dtype="uint8",
        photometric="rgb", tiled=True, compress="deflate", crs=CRS, transform=PLACE,
    ) as scene:  # fmt: skip
        scene.write(picture.transpose(2, 0, 1))
    return path


def train(pictures: Path, model: Path, steps: int, base_channels: int) -> Path:
    """A small U-Net; it remembers the size of the pixels that it was trained at."""
    ts.train(
        pictures,
        model,
        labels=ts.LabelRule("classes", names=tuple(CLASSES), ignore=UNKNOWN),
        validation=ts.Validation("tile?-005*"),
        network=ts.NetworkChoice(
            base_channels=base_channels, depth=4, batch_norm=True, dropout=0.2
        ),
        recipe=ts.Recipe(
            steps=steps,
            tile=256,
            optimiser="adamw",
            learning_rate=0.002,
            schedule="cosine",
            assess_every=max(steps // 4, 1),
        ),
        # Each scene has light and haze of its own.
        augmentation=ts.Augmentation(
            foreground=0, elastic=0, brightness=0.2, contrast=0.6, gamma=0.5, colour=0.1
        ),
        border=ts.BorderWeight(w0=0),
        sampling=ts.Sampling(class_balance=0.4),
        pixel_size_um=2 * PIXEL_M * 1e6,
        overwrite=True,
        report=lambda progress: print(f"\rstep {progress.step} of {progress.steps}", end=""),
    )
    print()
    return model


def main() -> None:
    """Train, map, export, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--base-channels", type=int, default=16)
    arguments = parser.parse_args()
    data, result = arguments.data, arguments.result

    pictures = prepare_training(data, result / "training")
    model = train(pictures, result / "cover.safetensors", arguments.steps, arguments.base_channels)

    picture, truth = stitch(data / f"tile{MAPPED}")
    scene = write_scene(result / "scene.tif", picture)
    Image.fromarray(truth).save(result / "truth.png")
    # No import: the scene is read as it is, at the level whose pixels the model was trained at.
    summary = ts.segment(scene, model, labels="cover", overwrite=True)
    print(f"{summary.labels}: {summary.megapixels_per_second:.1f} Mpx/s")
    everything, parcels = ts.PolygonOptions(), ts.PolygonOptions(min_area=SMALLEST_PARCEL)
    for out, polygons in (
        ("cover.tif", everything),
        ("cover.png", everything),
        ("cover.gpkg", parcels),
    ):
        exported = ts.export_labels(scene, result / out, polygons=polygons, overwrite=True)
        print(exported.path)

    found = ts.evaluate(
        summary.labels,
        result / "truth.png",
        options=ts.EvaluateOptions(kind="classes", ignore=UNKNOWN, names=tuple(CLASSES)),
    )
    print(f"pixel error {found.overall.pixel_error:.3f}")
    for name, scores in found.overall.classes.items():
        print(f"  {name}: IoU {scores.iou:.3f}")


if __name__ == "__main__":
    main()
