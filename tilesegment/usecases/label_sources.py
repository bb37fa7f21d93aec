"""Where the labels that are compared come from: pictures, label stores, or a model.

All give their labels by window, so that what adds up over blocks needs memory for one block.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tilesegment.colours import class_colour
from tilesegment.config import ForeignOptions, Precision, check_average
from tilesegment.errors import InputError, OptionError
from tilesegment.geometry import YX
from tilesegment.model.file import Description, LabelClass
from tilesegment.model.opening import open_model
from tilesegment.model.preprocessing import Collect, measure_scales
from tilesegment.model.tiles import LARGEST_TILE, Read, mirrored, segment_window
from tilesegment.storage.image import Image, open_image
from tilesegment.storage.labels import class_names, is_label_image, open_labels
from tilesegment.tiling import TileGrid, Window, choose_tile
from tilesegment.training.pictures import (
    PICTURE_SUFFIXES,
    check_partners,
    pictures_by_stem,
    read_image,
    read_label,
)

if TYPE_CHECKING:
    from tilesegment.model.predictor import Predictor

BLOCK = 1024
"""Pixels per side that are compared at once; a multiple of every network's alignment."""

Values = npt.NDArray[np.int64]


class Labels(Protocol):
    """The labels of one picture, or of all planes of a volume."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> YX: ...
    @property
    def planes(self) -> int: ...
    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """What the values mean; empty if unknown."""

    def read(self, plane: int, window: Window) -> Values:
        """The labels in a window inside the plane, (y, x)."""


@dataclass(frozen=True)
class MemoryLabels:
    """Labels that are held in memory."""

    name: str
    values: npt.NDArray[np.integer]
    """(plane, y, x)"""
    classes: tuple[LabelClass, ...] = ()

    @property
    def size(self) -> YX:
        return YX(*self.values.shape[1:])

    @property
    def planes(self) -> int:
        return len(self.values)

    def read(self, plane: int, window: Window) -> Values:
        part: Values = self.values[plane][window.slices].astype(np.int64)
        return part


@dataclass(frozen=True)
class StoredLabels:
    """Level 0 of an OME-Zarr label image."""

    image: Image
    classes: tuple[LabelClass, ...]

    @property
    def name(self) -> str:
        return self.image.name

    @property
    def size(self) -> YX:
        return self.image.plane_shape(0)

    @property
    def planes(self) -> int:
        return self.image.planes(0)

    def read(self, plane: int, window: Window) -> Values:
        bottom, right = window.y + window.height, window.x + window.width
        stored = self.image.pixels(0).stored(plane, window.y, bottom, window.x, right)
        part: Values = stored[0].astype(np.int64)
        return part


@dataclass(frozen=True)
class SegmentedLabels:
    """What a model says of an image, computed when it is read."""

    name: str
    size: YX
    planes: int
    classes: tuple[LabelClass, ...]
    predictor: "Predictor"
    pixels: Callable[[int], Read]
    """The pixels of a plane."""
    fixed_input: int | None = None
    """The only input size that the network takes, pixels per side; None if it takes others."""

    def read(self, plane: int, window: Window) -> Values:
        geometry = self.predictor.geometry
        tile = choose_tile(LARGEST_TILE, self.size, geometry)
        if self.fixed_input is not None:
            tile = self.fixed_input - 2 * geometry.halo
        top, left = window.y % geometry.alignment, window.x % geometry.alignment
        aligned = Window(window.y - top, window.x - left, window.height + top, window.width + left)
        labels = segment_window(self.predictor, self.pixels(plane), aligned, tile)
        return labels[top:, left:].astype(np.int64)


def whole_plane(labels: Labels, plane: int) -> Values:
    """A whole plane, (y, x)."""
    values = np.empty(labels.size, np.int64)
    for window in blocks(labels.size):
        values[window.slices] = labels.read(plane, window)
    return values


def blocks(size: YX) -> Iterator[Window]:
    """The windows in which a plane is looked at."""
    grid = TileGrid(size, 1, BLOCK)
    return (grid.write_window(tile) for tile in grid.tiles())


@dataclass(frozen=True)
class Segmentation:
    """How pictures are segmented, where images are given instead of a prediction."""

    model: str | Path
    """A model file, the name of a bundled model, or a foreign network."""
    precision: Precision = "auto"
    device: Literal["cpu", "cuda"] = "cpu"
    average: int = 1
    """Views over which the output is averaged, see `RunOptions.average`."""
    foreign: ForeignOptions = ForeignOptions()  # noqa: RUF009 - frozen
    """What a foreign network cannot say of itself."""


class Segmenter:
    """A loaded model that gives pictures the labels that `run` gives them."""

    def __init__(self, options: Segmentation) -> None:
        self.options = options
        self.model = open_model(options.model, options.foreign)
        self._predictors: dict[str, Predictor] = {}

    @property
    def description(self) -> Description:
        return self.model.description

    def predictor(self, pixels: np.dtype[Any]) -> "Predictor":
        """The loaded network, for pixels of one type.

        Raises:
            OptionError: if the device is absent, or cannot compute in this precision.
        """
        if str(pixels) not in self._predictors:
            self._predictors[str(pixels)] = self._load(self.description, pixels)
        return self._predictors[str(pixels)]

    def _load(self, description: Description, pixels: np.dtype[Any]) -> "Predictor":
        from tilesegment.execution.memory import keep_freed_memory

        keep_freed_memory()
        import torch

        from tilesegment.model.predictor import Predictor, choose_precision

        options = self.options
        if options.device == "cuda" and not torch.cuda.is_available():
            raise OptionError("there is no GPU for --device cuda; use --device cpu")
        precision = choose_precision(description.precision(options.precision), options.device)
        average = check_average(options.average)
        return Predictor(
            self.model.content, description, pixels, precision, options.device, average=average
        )

    def segment(self, path: Path) -> SegmentedLabels:
        """The labels of a picture, or of level 0 of an OME-Zarr image.

        Raises:
            InputError: if the image cannot be used.
            ModelError: if the model takes other channels.
        """
        if path.is_dir():
            image = open_image(path)
            self.description.check_channels(image.channels, str(path))
            stored = image.pixels(0)
            return self._labels(
                image.name, image.plane_shape(0), image.planes(0), stored.dtype,
                lambda plane: lambda window: stored.read(plane, window),
            )  # fmt: skip
        pixels = read_image(path)
        self.description.check_channels(len(pixels), str(path))
        return self._labels(
            path.stem, YX(*pixels.shape[1:]), 1, pixels.dtype,
            lambda plane: lambda window: mirrored(pixels, window),
        )  # fmt: skip

    def _labels(
        self, name: str, size: YX, planes: int, dtype: np.dtype[Any], pixels: Callable[[int], Read]
    ) -> SegmentedLabels:
        steps = self.description.whole_image_steps
        if steps:
            found = measure_scales(steps, _every_block(size, planes, pixels))
            predictor = self._load(self.description.with_scales(found), dtype)
        else:
            predictor = self.predictor(dtype)
        return SegmentedLabels(
            name,
            size,
            planes,
            self.description.classes,
            predictor,
            pixels,
            self.description.fixed_input,
        )


def _every_block(size: YX, planes: int, pixels: Callable[[int], Read]) -> Collect:
    """What a function makes of each block of an image, for `measure_scales`."""

    def collect(summarise: Callable[..., tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        for plane in range(planes):
            read = pixels(plane)
            for window in blocks(size):
                yield summarise(read(window))

    return collect


def load_labels(path: Path, name: str | None = None) -> Labels:
    """The labels in a picture, or in an OME-Zarr label image or image with labels.

    Args:
        path: where they are.
        name: which labels of an image; None if it has only one.

    Raises:
        InputError: if there are none, or they are damaged.
    """
    if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
        return MemoryLabels(path.stem, read_label(path)[None])
    image = open_image(path)
    if not is_label_image(image):
        image = open_labels(image, name, f"--labels, or give {image.label_folder}/NAME")
    if image.channels != 1 or image.levels[0].dtype.kind not in "ui":
        raise InputError(
            f"{image.location} has {image.channels} channel(s) of {image.levels[0].dtype}; labels "
            "are one channel of integers"
        )
    names = class_names(image.group)
    classes = tuple(LabelClass(names[value], value, class_colour(value)) for value in sorted(names))
    return StoredLabels(image, classes)


@dataclass(frozen=True)
class PathPair:
    """What is compared with what."""

    name: str
    predicted: Path
    truth: Path


def find_path_pairs(predicted: Path, truth: Path) -> Sequence[PathPair]:
    """Two pictures or stores, or two folders of them with equal names.

    Raises:
        InputError: if a path is absent, a folder is empty, or a file has no partner.
    """
    for path in (predicted, truth):
        if not path.exists():
            raise InputError(f"there is nothing at {path}; give a picture, a store or a folder")
    if _is_folder(predicted) != _is_folder(truth):
        folder, other = (predicted, truth) if _is_folder(predicted) else (truth, predicted)
        raise OptionError(
            f"{folder} is a folder of pictures and {other} is not; give two folders, or two files"
        )
    if not _is_folder(truth):
        return [PathPair(truth.stem, predicted, truth)]
    predicted_files, true_files = _entries(predicted), _entries(truth)
    check_partners(predicted_files, true_files, truth)
    check_partners(true_files, predicted_files, predicted)
    return [PathPair(name, predicted_files[name], path) for name, path in true_files.items()]


def _is_folder(path: Path) -> bool:
    """Whether it is a directory, but no Zarr store."""
    return path.is_dir() and not any(
        (path / name).exists() for name in ("zarr.json", ".zgroup", ".zattrs", ".zarray")
    )


def _entries(folder: Path) -> dict[str, Path]:
    stores = {path.stem: path for path in sorted(folder.glob("*.zarr")) if path.is_dir()}
    found = {**pictures_by_stem(folder), **stores}
    if not found:
        raise InputError(f"{folder} holds no pictures (PNG, TIFF, JPEG) and no Zarr stores")
    return found
