"""What is exported: the labels of one image, with what is known of their classes and place."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilesegment.colours import class_colour
from tilesegment.errors import InputError, OptionError
from tilesegment.geometry import YX
from tilesegment.storage.geozarr import Georeferencing, read_georeferencing
from tilesegment.storage.image import Image, open_image
from tilesegment.storage.labels import (
    LabelProperties,
    is_label_image,
    read_classes,
)
from tilesegment.storage.measurements import (
    MeasurementLookup,
    StoredMeasurements,
    open_measurements,
)
from tilesegment.storage.objects import PROVENANCE_KEY
from tilesegment.storage.remote import Location, locate
from tilesegment.tiling import TileGrid, Window

BLOCK = 2048
"""Pixels per side that are read at once; the shards of `run` divide it, or are as large."""


@dataclass(frozen=True)
class Labelled:
    """The labels of an image, plane by plane."""

    name: str
    """Of the label image."""
    image: Image | None
    """None where the labels have a store of their own, which does not hold the image."""
    labels: Image
    """Of the same size as the image at every level."""
    classes: Mapping[int, LabelProperties]
    """By label, as the label image states them; it may hold others too."""
    place: Georeferencing | None
    """Where the finest level lies on the Earth."""

    @property
    def size(self) -> YX:
        """Of a plane of the finest level."""
        return self.labels.plane_shape(0)

    @property
    def pixel_size_um(self) -> tuple[float, float] | None:
        """Micrometres per pixel of the finest level, (y, x)."""
        return self.labels.pixel_size_um(0)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.labels.levels[0].dtype

    @cached_property
    def counted_shares(self) -> Mapping[str, float]:
        """Share of the pixels of each class by name, as `run` has counted them; or nothing."""
        provenance: Any = dict(self.labels.group.attrs).get(PROVENANCE_KEY) or {}
        shares: Mapping[str, float] = provenance.get("summary", {}).get("shares", {})
        return shares if self.labels.planes(0) == 1 else {}

    @cached_property
    def measurements(self) -> StoredMeasurements | None:
        """Of the objects, where the labels are identities that were measured."""
        place = locate(self.labels.location)
        return open_measurements(place) if isinstance(place, Path) else None

    @cached_property
    def _lookup(self) -> MeasurementLookup | None:
        return None if self.measurements is None else MeasurementLookup(self.measurements)

    def measured(self, value: int) -> dict[str, Any]:
        """The measurements of an object, by column; empty where there are none."""
        return (self._lookup and self._lookup.of(value)) or {}

    def label_class(self, value: int) -> LabelProperties:
        """What is known of a label, or of the class of an object; a name and a colour always."""
        known = self.measured(value)
        if known:
            return LabelProperties(value, known["class_name"], class_colour(known["class"]))
        return self.classes.get(value) or LabelProperties(
            value, f"label {value}", class_colour(value)
        )

    def read(self, plane: int, window: Window, level: int = 0) -> npt.NDArray[Any]:
        """Labels of a window inside a level, (y, x).

        Raises:
            InputError: if a chunk is damaged.
        """
        bottom, right = window.y + window.height, window.x + window.width
        stored = self.labels.pixels(level).stored(plane, window.y, bottom, window.x, right)
        labels: npt.NDArray[Any] = stored[0]
        return labels

    def blocks(self, level: int = 0, block: int = BLOCK) -> list[Window]:
        """Windows that cover a plane, each pixel once, row by row."""
        grid = TileGrid(self.labels.plane_shape(level), planes=1, tile=block)
        return [grid.write_window(tile) for tile in grid.tiles()]

    def check_plane(self, plane: int) -> int:
        """`plane`, if there is one of this number.

        Raises:
            OptionError: if there is not.
        """
        planes = self.labels.planes(0)
        if not 0 <= plane < planes:
            raise OptionError(f"plane {plane} does not exist: {self.labels.location} has {planes}")
        return plane

    def values_of(self, names: Iterable[str]) -> list[int]:
        """The labels of classes, which are given by name or by label.

        Raises:
            OptionError: if there is no such class.
        """
        by_name = {item.name: item.value for item in self.classes.values()}
        values = []
        for name in names:
            value = by_name.get(name, int(name) if name.isdecimal() else None)
            if value is None:
                there = ", ".join(by_name) or "no named ones"
                raise OptionError(
                    f"the labels {self.name!r} have no class {name!r}; there are: {there}"
                )
            values.append(value)
        return values


def open_labelled(location: str | Location, name: str | None = None) -> Labelled:
    """The labels of this name, or the only ones that an image has.

    Args:
        location: an image, or a label image in a store of its own (`run --output`).
        name: of the labels in an image.

    Raises:
        InputError: the image or the labels are absent, or do not fit each other.
        OptionError: no name is given, and the image has several labels.
    """
    image = open_image(location)
    if name is None and is_label_image(image):
        _check_labels(image, image.name, image)
        return _labelled(None, image, image.metadata.get("name") or image.name)
    name = _chosen(image, name)
    labels = open_image(image.label_folder / name)
    _check_labels(labels, name, image)
    return _labelled(image, labels, name)


def labelled_by(image: Image, directory: Location) -> Labelled:
    """The label image in a directory, wherever that is, with the image that it is of.

    Raises:
        InputError: if it is absent, or does not fit the image.
    """
    labels = open_image(directory)
    _check_labels(labels, directory.name, image)
    return _labelled(image, labels, directory.name)


def _labelled(image: Image | None, labels: Image, name: str) -> Labelled:
    """With the place that the image states, or else the labels."""
    groups = [labels] if image is None else [image, labels]
    places = [read_georeferencing(dict(item.group.attrs), item.location) for item in groups]
    return Labelled(
        name=name,
        image=image,
        labels=labels,
        classes={item.value: item for item in read_classes(labels.group)},
        place=next((place for place in places if place is not None), None),
    )


def _chosen(image: Image, name: str | None) -> str:
    names = image.label_names()
    if name is None and len(names) > 1:
        raise OptionError(
            f"{image.location} has several labels; choose with --labels one of: {', '.join(names)}"
        )
    if not names or (name is not None and name not in names):
        there = ", ".join(names) or "none"
        wanted = "no labels" if name is None else f"no labels {name!r}"
        raise InputError(f"{image.location} has {wanted}; there are: {there}")
    return name or names[0]


def _check_labels(labels: Image, name: str, image: Image) -> None:
    """Raises InputError if the labels are none, or have another grid than the image."""
    if [item.shape[-2:] for item in labels.levels] != [item.shape[-2:] for item in image.levels]:
        raise InputError(
            f"the labels {name!r} of {image.location} have other levels than the image"
        )
    if labels.channels != 1 or labels.levels[0].dtype.kind not in "ui":
        raise InputError(
            f"the labels {name!r} of {image.location} are {labels.levels[0].dtype} in "
            f"{labels.channels} channels; whole numbers in one are needed"
        )
