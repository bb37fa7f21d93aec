"""Annotated OME-Zarr images, read tile by tile: an annotation of any size trains in little memory.

What is needed of the whole image is taken from the coarsest level of its labels: which values
occur, where objects are and how large. A class that is too small to be seen there must be named.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilesegment.errors import InputError
from tilesegment.geometry import YX
from tilesegment.storage.image import Image, MirroredPixels, open_image
from tilesegment.storage.labels import open_labels
from tilesegment.tiling import Window
from tilesegment.training.dataset import (
    Annotation,
    Dataset,
    LabelRule,
    Patch,
    class_values,
    foreground_positions,
    object_diameter,
    scale_to_one,
)
from tilesegment.training.pictures import made_up_names
from tilesegment.training.weight_map import REACH, BorderWeight

_ROOT_FILES = ("zarr.json", ".zgroup", ".zattrs")
_MOST_OVERVIEW_PIXELS = 2**28


@dataclass(frozen=True)
class ZarrPicture:
    """Level 0 of an image and one of its label images; nothing but the positions is held."""

    name: str
    image: MirroredPixels
    label: MirroredPixels
    annotation: Annotation
    object_size: float
    foreground: npt.NDArray[np.int64]

    @property
    def size(self) -> YX:
        return self.image.plane_shape

    def read(self, window: Window) -> Patch:
        """What is in the window, mirrored beyond the rim.

        The labels are read with a margin as wide as the border weight reaches, so that the
        weights of objects do not depend on the window.
        """
        margin = math.ceil(REACH * self.annotation.weight.sigma) + 1
        values = self.label.read(0, window.grown(margin))[0].astype(np.int64)
        classes, border = self.annotation.interpret(values)
        inner = slice(margin, margin + window.height), slice(margin, margin + window.width)
        pixels = scale_to_one(self.image.read(0, window))
        return Patch(pixels, classes[inner], border[inner])


def is_zarr(path: Path) -> bool:
    """Whether `path` is an OME-Zarr image, or a folder with some."""
    return bool(_locations(path))


def _locations(path: Path) -> list[Path]:
    if any((path / name).is_file() for name in _ROOT_FILES):
        return [path]
    found = sorted(path.glob("*.zarr")) if path.is_dir() else []
    return [item for item in found if any((item / name).is_file() for name in _ROOT_FILES)]


def load_zarr(path: Path, rule: LabelRule, weight: BorderWeight) -> Dataset:
    """Open an annotated OME-Zarr image, or all of a folder.

    Raises:
        InputError: if an image or its labels cannot be used.
    """
    images = [open_image(location) for location in _locations(path)]
    labels = [open_labels(image, rule.label_name, "--label-name") for image in images]
    for image, label in zip(images, labels, strict=True):
        _check_alike(image, label, images[0])
    overviews = [_overview(label) for label in labels]
    values = np.unique(np.concatenate([np.unique(overview) for overview in overviews]))
    found = tuple(int(value) for value in values if value != rule.ignore)
    instances = rule.kind == "instances"
    found = (0, 1) if instances and len(found) > 1 else found
    order = class_values(found, rule, path, instances)
    annotation = Annotation(instances, order, rule.ignore, weight)
    pictures = [
        _picture(image, label, overview, annotation)
        for image, label, overview in zip(images, labels, overviews, strict=True)
    ]
    names = rule.names or made_up_names(order, instances)
    integers = images[0].levels[0].dtype.kind in "ui"
    return Dataset(tuple(pictures), names, images[0].channels, integers)


def _check_alike(image: Image, label: Image, first: Image) -> None:
    if image.planes(0) > 1:
        raise InputError(f"{image.location} has {image.planes(0)} planes; one can be learnt from")
    if image.plane_shape(0) != label.plane_shape(0):
        raise InputError(
            f"{image.location} has {tuple(image.plane_shape(0))} pixels (y, x), its labels "
            f"{tuple(label.plane_shape(0))}; they must be equal"
        )
    if image.channels != first.channels:
        raise InputError(
            f"{image.location} has {image.channels} channel(s), {first.location} has "
            f"{first.channels}; they must be equal"
        )


def _overview(label: Image) -> npt.NDArray[np.int64]:
    """The coarsest level of the labels, (y, x)."""
    last = len(label.levels) - 1
    shape = label.plane_shape(last)
    if shape.y * shape.x > _MOST_OVERVIEW_PIXELS:
        raise InputError(
            f"the coarsest level of {label.location} has {shape.y} x {shape.x} pixels; add coarser "
            "levels, so that it can be looked at as a whole"
        )
    values: npt.NDArray[np.int64] = label.pixels(last).read(0, Window(0, 0, *shape))[0]
    return values.astype(np.int64)


def _picture(
    image: Image, label: Image, overview: npt.NDArray[np.int64], annotation: Annotation
) -> ZarrPicture:
    scale = np.array(image.plane_shape(0)) / overview.shape
    annotated = overview != (-1 if annotation.ignore is None else annotation.ignore)
    objects = np.where(annotated, overview, 0)
    diameter = object_diameter(objects) * float(scale.mean()) if annotation.instances else 0.0
    positions = (foreground_positions(objects != annotation.values[0]) + 0.5) * scale
    return ZarrPicture(
        image.name,
        image.pixels(0),
        label.pixels(0),
        annotation,
        diameter,
        positions.astype(np.int64),
    )
