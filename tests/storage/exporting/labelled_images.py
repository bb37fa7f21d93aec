"""Images with labels that tests know pixel by pixel."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from tests.pictures import as_a_run, write_image
from tilesegment.geometry import YX
from tilesegment.storage.geozarr import Affine, Georeferencing, geozarr_attributes
from tilesegment.storage.image import open_image
from tilesegment.storage.labels import (
    LabelLayout,
    LabelProperties,
    layout_volume,
    levels_to_derive,
    list_labels,
)
from tilesegment.tiling import Window

CLASSES = (
    LabelProperties(0, "background", (0, 0, 0)),
    LabelProperties(1, "nucleus", (0, 158, 115)),
    LabelProperties(2, "stroma", (213, 94, 0)),
)
SCENE = Georeferencing(Affine(0.5, 0, 733601, 0, -0.25, 3725139), "EPSG:32616")
TILE = 64


def write_labelled(
    path: Path,
    labels: np.ndarray,
    *,
    name: str = "cells",
    place: Georeferencing | None = None,
    classes: tuple[LabelProperties, ...] = CLASSES,
    levels: int = 1,
    version: str = "0.5",
    probabilities: np.ndarray | None = None,
    **options: Any,
) -> Path:
    """A grey image with the given labels, (y, x) or (z, y, x)."""
    axes = "zyx"[-labels.ndim :]
    image = write_image(
        path, np.full(labels.shape, 200, np.uint8), axes, levels=levels, version=version, **options
    )
    if place is not None:
        shapes = [YX(*level.shape[-2:]) for level in open_image(image).levels]
        paths = [str(level) for level in range(levels)]
        zarr.open_group(image).attrs.update(geozarr_attributes(place, paths, shapes))
    add_labels(image, labels, name, classes, probabilities)
    return image


def add_labels(
    image: Path,
    labels: np.ndarray,
    name: str,
    classes: tuple[LabelProperties, ...] = CLASSES,
    probabilities: np.ndarray | None = None,
) -> None:
    """One more label image; of one plane where it has probabilities, (classes, y, x) uint8."""
    opened = open_image(image)
    layout = LabelLayout(
        name,
        opened.version,
        labels.dtype.name,
        TILE,
        TILE // 2,
        classes,
        "../../",
        probabilities=probabilities is not None,
    )
    volume = layout_volume(opened, layout, image / "labels" / name)
    with as_a_run(volume.directory):
        planes = labels.reshape(-1, *labels.shape[-2:])
        for number, plane in enumerate(planes):
            volume.write(0, number, Window(0, 0, *plane.shape), plane, probabilities)
        for level, neighbour in levels_to_derive(len(volume.arrays), 0):
            grid = volume.grid(level, 10**6)
            for tile in grid.tiles():
                volume.derive(level, neighbour, tile.plane, grid.write_window(tile))
    volume.publish({})
    list_labels(image / "labels", name, opened.version)


def blobs(height: int, width: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """Labels 0, 1 and 2 in patches, of which many touch."""
    coarse = np.random.default_rng(seed).integers(0, 3, (-(-height // 5), -(-width // 5)))
    return coarse.repeat(5, 0).repeat(5, 1)[:height, :width].astype(dtype)
