"""Annotated pictures, and the training tiles drawn from them.

The network with unpadded convolutions sees a tile and a halo on each side, and predicts the
tile (`tilesegment.geometry` draws it). Beyond the rim of the picture both are mirrored, without
repeating the pixels of the rim: NumPy's "reflect", as wherever tilesegment reads an image.
"""

import fnmatch
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tilesegment.errors import InputError, OptionError
from tilesegment.geometry import YX, NetworkGeometry
from tilesegment.tiling import Window, mirrored_positions
from tilesegment.training.augment import Augmentation, change_grey_values, draw_placement
from tilesegment.training.loss import IGNORED
from tilesegment.training.pictures import (
    Pair,
    Pixels,
    find_pairs,
    made_up_names,
    read_image,
    read_label,
    value_name,
)
from tilesegment.training.weight_map import BorderWeight, border_weights, separate_touching

logger = logging.getLogger(__name__)

LabelKind = Literal["auto", "classes", "instances"]
_MOST_CLASSES = 64
_REMEMBERED_POSITIONS = 4096
MOST_WINDOWS = 64
"""Windows of one picture that are looked at where the whole would take too long."""


@dataclass(frozen=True)
class LabelRule:
    """How the values of the label pictures become classes."""

    kind: LabelKind = "auto"
    """"instances": 0 is background, every other number one object. "classes": every value is a
    class. "auto": instances if their folder or their file name says so."""
    names: tuple[str, ...] | None = None
    """Names of the classes, in the order of the values; None for made-up ones."""
    ignore: int | None = None
    """Value (0xRRGGBB for colours) of pixels that nobody annotated."""
    label_name: str | None = None
    """Which label image of an OME-Zarr image; None if there is only one."""


@dataclass(frozen=True)
class Patch:
    """What a picture and its annotation hold in a window."""

    image: npt.NDArray[np.float32]
    """(c, y, x); integers are divided by the largest value of their type."""
    classes: npt.NDArray[np.uint8]
    """(y, x); index of the class, or `IGNORED`."""
    border: npt.NDArray[np.float32]
    """(y, x); second term of the weight map."""


class Picture(Protocol):
    """An annotated picture, in memory or in a store."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> YX: ...
    @property
    def object_size(self) -> float:
        """Median diameter of its objects in pixels; 0 if unknown."""

    @property
    def foreground(self) -> npt.NDArray[np.int64]:
        """(n, 2): some positions (y, x) that belong to objects."""

    def read(self, window: Window) -> Patch:
        """What is in the window, mirrored beyond the rim."""


@dataclass(frozen=True)
class MemoryPicture:
    """A picture whose pixels, classes and weight map are held in memory."""

    name: str
    image: Pixels
    """(c, y, x)"""
    classes: npt.NDArray[np.uint8]
    """(y, x)"""
    border: npt.NDArray[np.float32]
    """(y, x)"""
    object_size: float
    foreground: npt.NDArray[np.int64]

    @property
    def size(self) -> YX:
        return YX(*self.classes.shape)

    def read(self, window: Window) -> Patch:
        rows = mirrored_positions(window.y, window.y + window.height, self.size.y)
        columns = mirrored_positions(window.x, window.x + window.width, self.size.x)
        grid = np.ix_(rows, columns)
        channels = [scale_to_one(channel[grid]) for channel in self.image]
        return Patch(np.stack(channels), self.classes[grid], self.border[grid])


def scale_to_one(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Integers divided by the largest value of their type, floats as they are; float32."""
    largest = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1
    scaled: npt.NDArray[np.float32] = pixels.astype(np.float32) / np.float32(largest)
    return scaled


@dataclass(frozen=True)
class Dataset:
    """Annotated pictures with the same channels and classes."""

    pictures: tuple[Picture, ...]
    names: tuple[str, ...]
    """Names of the classes, by index."""
    channels: int
    integers: bool
    """Whether the pictures hold integers, so that grey values stay within 0 to 1."""


def load_folder(folder: Path, rule: LabelRule, weight: BorderWeight) -> Dataset:
    """Read a folder of pictures with labels; see `find_pairs` for the names.

    Raises:
        InputError: if a picture or its labels cannot be used.
    """
    pairs = find_pairs(folder)
    instances = rule.kind == "instances" or (
        rule.kind == "auto" and all(pair.instances for pair in pairs)
    )
    images = [read_image(pair.image) for pair in pairs]
    labels = [read_label(pair.label) for pair in pairs]
    _check_alike(pairs, images, labels)
    values = np.unique(np.concatenate([np.unique(label) for label in labels]))
    values = values[values != rule.ignore] if rule.ignore is not None else values
    found = (0, 1) if instances and len(values) > 1 else tuple(int(value) for value in values)
    order = class_values(found, rule, folder, instances)
    annotation = Annotation(instances, order, rule.ignore, weight)
    pictures = [
        _memory_picture(pair.name, image, label, annotation)
        for pair, image, label in zip(pairs, images, labels, strict=True)
    ]
    names = rule.names or made_up_names(order, instances)
    logger.info("%d pictures with the classes %s", len(pictures), ", ".join(names))
    return Dataset(tuple(pictures), names, len(images[0]), images[0].dtype != np.float32)


def _check_alike(
    pairs: Sequence[Pair], images: Sequence[Pixels], labels: Sequence[npt.NDArray[np.int64]]
) -> None:
    for pair, image, label in zip(pairs, images, labels, strict=True):
        if image.shape[1:] != label.shape:
            raise InputError(
                f"{pair.image} has {image.shape[1]} x {image.shape[2]} pixels (y, x), its labels "
                f"{pair.label} have {label.shape[0]} x {label.shape[1]}; they must be equal"
            )
        if len(image) != len(images[0]) or _kind(image) != _kind(images[0]):
            raise InputError(
                f"{pair.image} has {len(image)} channel(s) of {_kind(image)}, {pairs[0].image} "
                f"has {len(images[0])} of {_kind(images[0])}; convert the pictures to one kind"
            )


def _kind(image: Pixels) -> str:
    return "floats" if image.dtype == np.float32 else "integers"


def class_values(
    found: tuple[int, ...], rule: LabelRule, where: Path, instances: bool
) -> tuple[int, ...]:
    """The value of every class, in the order of their indices.

    With names for N classes and values below N, the value is the index; else the values that
    occur are numbered in rising order.

    Raises:
        InputError: if there is nothing to tell apart, or the values do not fit the names.
    """
    if len(found) < 2 and not (rule.names and found):
        what = "only background" if instances else f"only {len(found)} value(s)"
        raise InputError(f"the labels in {where} hold {what}: nothing is annotated to learn from")
    if rule.names is None and len(found) > _MOST_CLASSES:
        raise InputError(
            f"the labels in {where} hold {len(found)} different values; if every object has its "
            "own, use --labels instances, else save them as classes"
        )
    if rule.names is None:
        return found
    if len(found) > len(rule.names):
        raise InputError(
            f"the labels in {where} hold {len(found)} classes ({_few(found)}), but "
            f"{len(rule.names)} are named ({', '.join(rule.names)}); name all, or --ignore one"
        )
    if max(found) < len(rule.names):
        _check_no_class_is_empty(rule.names, found, where)
    elif len(found) < len(rule.names):
        raise InputError(
            f"the labels in {where} hold {len(found)} classes ({_few(found)}), fewer than the "
            f"{len(rule.names)} named; leave out the empty class"
        )
    return found


def _check_no_class_is_empty(
    names: tuple[str, ...], found: tuple[int, ...], where: Path | str
) -> None:
    empty = [name for index, name in enumerate(names) if index not in found]
    if empty:
        raise InputError(
            f"the class {empty[0]!r} has no pixels in {where}; annotate it, or leave it out"
        )


def _few(values: tuple[int, ...]) -> str:
    return ", ".join(map(value_name, values[:8])) + (", ..." if len(values) > 8 else "")


@dataclass(frozen=True)
class Annotation:
    """What the values of a label picture mean."""

    instances: bool
    """Whether every value but 0 is one object."""
    values: tuple[int, ...]
    """Of the classes, by index; unused for instances."""
    ignore: int | None
    """Value of pixels that nobody annotated."""
    weight: BorderWeight

    def objects(
        self, label: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer]]:
        """Class indices and numbered objects, both (y, x).

        Instances that touch are separated first. With two classes the objects are the connected
        pixels of the second one, with more there are none.

        Raises:
            InputError: if a value is none of the classes'.
        """
        unknown = label == self.ignore if self.ignore is not None else np.zeros(label.shape, bool)
        if self.instances:
            objects = separate_touching(np.where(unknown, 0, label))
            return np.where(unknown, IGNORED, objects > 0).astype(np.uint8), objects
        index = self._indices(np.where(unknown, self.values[0], label))
        classes = np.where(unknown, IGNORED, index).astype(np.uint8)
        if len(self.values) > 2:
            return classes, np.zeros(label.shape, np.int32)
        return classes, ndimage.label(classes == 1)[0]

    def _indices(self, label: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        index = np.minimum(np.searchsorted(self.values, label), len(self.values) - 1)
        strange = label[np.array(self.values)[index] != label]
        if len(strange):
            raise InputError(
                f"the labels hold the value {value_name(int(strange[0]))}, which is none of the "
                f"classes ({_few(self.values)}); name all classes, or --ignore it"
            )
        return index

    def interpret(
        self, label: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Class indices and the second term of the weight map, both (y, x)."""
        classes, objects = self.objects(label)
        return classes, border_weights(objects, self.weight)


def _memory_picture(
    name: str, image: Pixels, label: npt.NDArray[np.int64], annotation: Annotation
) -> MemoryPicture:
    classes, objects = annotation.objects(label)
    return MemoryPicture(
        name,
        image,
        classes,
        border_weights(objects, annotation.weight),
        object_diameter(objects),
        foreground_positions((classes != IGNORED) & (classes > 0)),
    )


def foreground_positions(foreground: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """(n, 2): up to a few thousand of the positions (y, x) where `foreground` holds."""
    positions: npt.NDArray[np.int64] = np.argwhere(foreground)
    return positions[:: len(positions) // _REMEMBERED_POSITIONS + 1]


def object_diameter(objects: npt.NDArray[np.integer]) -> float:
    """Median over the objects of the diameter of a disc of equal area, in pixels; 0 if none."""
    areas = np.unique(objects[objects > 0], return_counts=True)[1]
    return float(np.sqrt(np.median(areas) * 4 / np.pi)) if len(areas) else 0.0


@dataclass(frozen=True)
class Split:
    """Which pictures are learnt from, and which are only looked at."""

    training: tuple[Picture, ...]
    validation: tuple[Picture, ...]


def split_pictures(
    pictures: Sequence[Picture], share: float, group: Callable[[str], str], seed: int
) -> Split:
    """Draw the pictures for validation: `share` of each group, at least one over all.

    A group of one picture is trained on.

    Raises:
        OptionError: if one of the two would be empty.
    """
    random = np.random.default_rng([seed, 0])
    groups: dict[str, list[int]] = {}
    for index, picture in enumerate(pictures):
        groups.setdefault(group(picture.name), []).append(index)
    counts = {name: round(len(members) * share) for name, members in groups.items()}
    if sum(counts.values()) == 0:
        counts[max(groups, key=lambda name: len(groups[name]))] = 1
    chosen = {
        int(index)
        for name, members in groups.items()
        for index in random.permutation(members)[: counts[name]]
    }
    return _split(pictures, chosen, f"a validation share of {share}")


def split_by_pattern(pictures: Sequence[Picture], pattern: str) -> Split:
    """Keep for validation the pictures whose names match `pattern` (with ``*``, ``?``, ``[]``).

    Raises:
        OptionError: if none matches, or all do.
    """
    matches = {
        index
        for index, picture in enumerate(pictures)
        if fnmatch.fnmatchcase(picture.name, pattern)
    }
    return _split(pictures, matches, f"the validation pattern {pattern!r}")


def _split(pictures: Sequence[Picture], chosen: set[int], how: str) -> Split:
    training = tuple(item for index, item in enumerate(pictures) if index not in chosen)
    validation = tuple(item for index, item in enumerate(pictures) if index in chosen)
    if not training or not validation:
        raise OptionError(
            f"{how} takes {len(validation)} of {len(pictures)} pictures (such as "
            f"{pictures[0].name}); leave at least one for training and one for validation"
        )
    return Split(training, validation)


def picture_shares(
    pictures: Sequence[Picture], group: Callable[[str], str], emphasis: Mapping[str, float]
) -> npt.NDArray[np.float64]:
    """How often each picture is drawn: groups equally, times their emphasis; the sum is 1."""
    groups = [group(picture.name) for picture in pictures]
    parts = np.array([emphasis.get(name, 1.0) / groups.count(name) for name in groups])
    shares: npt.NDArray[np.float64] = parts / parts.sum()
    return shares


@dataclass(frozen=True)
class TrainingTile:
    """What the network is shown, and what it should say."""

    image: npt.NDArray[np.float32]
    """(c, tile + 2 halo, tile + 2 halo)"""
    classes: npt.NDArray[np.int64]
    """(tile, tile)"""
    border: npt.NDArray[np.float32]
    """(tile, tile)"""


def draw_tile(
    picture: Picture,
    tile: int,
    geometry: NetworkGeometry,
    augmentation: Augmentation,
    span: float,
    random: np.random.Generator,
) -> TrainingTile:
    """One random training tile of a picture; grey values not yet normalised.

    Args:
        picture: where it comes from.
        tile: its size in pixels, without halo.
        geometry: of the network.
        augmentation: how it may be changed.
        span: range of the grey values, see `change_grey_values`.
        random: where the randomness comes from.
    """
    placement = draw_placement(augmentation, picture.object_size, random)
    reduction = float(np.sqrt(abs(np.linalg.det(placement.matrix))))
    centre = _draw_centre(picture, tile * reduction, augmentation.foreground, random)
    positions = placement.positions(centre, geometry.input_size(tile))
    sampled = sample(picture, positions, geometry.halo, reduction)
    return TrainingTile(
        change_grey_values(sampled.image, augmentation, span, random),
        sampled.classes,
        sampled.border,
    )


def _draw_centre(
    picture: Picture, extent: float, foreground: float, random: np.random.Generator
) -> YX:
    """A position near an object, or anywhere; the tile stays in the picture where it can."""
    size = np.array(picture.size)
    if len(picture.foreground) and random.random() < foreground:
        centre = random.choice(picture.foreground) + random.uniform(-0.25, 0.25, 2) * extent
    else:
        centre = random.uniform(0, size - 1)
    room = np.minimum(extent / 2, (size - 1) / 2)
    # Sizes are even: between two pixels a tile that is only shifted needs no interpolation.
    return YX(*(np.floor(np.clip(centre, room, size - 1 - room)) + 0.5))


def sample(
    picture: Picture, positions: npt.NDArray[np.float64], halo: int, reduction: float
) -> TrainingTile:
    """The picture at `positions` (2, n, n), linearly; its classes without the halo, nearest.

    A picture that is reduced is averaged first over blocks of whole pixels, against aliasing.
    """
    block = max(int(reduction), 1)
    low = np.floor(positions.min(axis=(1, 2))).astype(int) - 1
    extent = np.ceil(positions.max(axis=(1, 2))).astype(int) + 2 - low
    extent = -(-extent // block) * block
    patch = picture.read(Window(*low.tolist(), *extent.tolist()))
    local = positions - low[:, None, None]
    inner = local[:, halo : local.shape[1] - halo, halo : local.shape[2] - halo]
    rows, columns = np.rint(inner).astype(int)
    return TrainingTile(
        _sample_channels(_average_blocks(patch.image, block), (local + 0.5) / block - 0.5),
        patch.classes[rows, columns].astype(np.int64),
        ndimage.map_coordinates(patch.border, inner, order=1, mode="nearest"),
    )


def _average_blocks(image: npt.NDArray[np.float32], block: int) -> npt.NDArray[np.float32]:
    if block == 1:
        return image
    channels, rows, columns = image.shape
    blocks = image.reshape(channels, rows // block, block, columns // block, block)
    averaged: npt.NDArray[np.float32] = blocks.mean(axis=(2, 4))
    return averaged


def _sample_channels(
    image: npt.NDArray[np.float32], positions: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    return np.stack(
        [ndimage.map_coordinates(channel, positions, order=1, mode="nearest") for channel in image]
    )


@dataclass(frozen=True)
class Statistics:
    """What the pictures for training hold, over all."""

    mean: tuple[float, ...]
    """Per channel."""
    deviation: tuple[float, ...]
    """Per channel, above 0."""
    class_pixels: npt.NDArray[np.int64]
    """Annotated pixels per class."""


def measure(pictures: Sequence[Picture], names: tuple[str, ...], block: int = 1024) -> Statistics:
    """Grey values (each picture counts the same) and class frequencies, block by block.

    Of a picture with more than 64 blocks, 64 that are evenly spread are looked at.

    Raises:
        InputError: if a class has no pixels in these pictures.
    """
    sums, squares, counts = [], [], np.zeros(256, np.int64)
    for picture in pictures:
        total, square = 0.0, 0.0
        area = 0
        for window in spread(blocks_of(picture.size, block), MOST_WINDOWS):
            patch = picture.read(window)
            area += window.height * window.width
            total += patch.image.sum(axis=(1, 2), dtype=np.float64)
            square += (patch.image.astype(np.float64) ** 2).sum(axis=(1, 2))
            counts += np.bincount(patch.classes.ravel(), minlength=256)
        sums.append(total / area)
        squares.append(square / area)
    occurring = tuple(int(index) for index in np.flatnonzero(counts[: len(names)]))
    _check_no_class_is_empty(names, occurring, "the pictures for training")
    mean = np.mean(sums, axis=0)
    deviation = np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 1e-8))
    return Statistics(tuple(mean.tolist()), tuple(deviation.tolist()), counts[: len(names)])


Item = TypeVar("Item")


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """All items, or `most` of them, evenly spread.

    >>> spread([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 3)
    [0, 3, 6]
    """
    if len(items) <= most:
        return list(items)
    return [items[index * len(items) // most] for index in range(most)]


def blocks_of(size: YX, block: int) -> list[Window]:
    """Windows that cover a picture without overlap; the last ones may be smaller."""
    return [
        Window(y, x, min(block, size.y - y), min(block, size.x - x))
        for y in range(0, size.y, block)
        for x in range(0, size.x, block)
    ]
