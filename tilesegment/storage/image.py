"""OME-Zarr images, versions 0.4 and 0.5: what is in them, and their pixels by window.

https://ngff.openmicroscopy.org/0.5/ (zarr v3, attributes under "ome") and .../0.4/ (zarr v2).
"""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from ome_zarr_models.v04.multiscales import Multiscale as Multiscale04
from ome_zarr_models.v05.multiscales import Multiscale as Multiscale05
from pydantic import ValidationError
from zarr.storage import StorePath, ZipStore

from tilesegment.errors import InputError, OptionError
from tilesegment.geometry import YX, Spacing
from tilesegment.retry import is_transient
from tilesegment.storage.importing.original import OriginalStore, take_original_inventory
from tilesegment.storage.inventory import Inventory, take_inventory
from tilesegment.storage.limits import check_array, check_document, guarded
from tilesegment.storage.objects import patiently
from tilesegment.storage.remote import Location, RemotePath, locate, zarr_store
from tilesegment.storage.stores import LostObjectError, StrictStore, label_folder, open_group
from tilesegment.storage.written_elsewhere import ArrayStore, brought_to_04, images_in, is_older
from tilesegment.tiling import Window, mirrored_positions, mirrored_span

OMEVersion = Literal["0.4", "0.5"]

_MICROMETRES = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}


_LARGEST_LOOK_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Axis:
    """One axis, as in the specification: name, type and unit."""

    name: str
    type: str | None
    unit: str | None


@dataclass(frozen=True)
class Level:
    """One resolution level."""

    path: str
    """Of the array, inside the image's group."""
    shape: tuple[int, ...]
    """In the order of the image's axes."""
    chunks: tuple[int, ...]
    """What is decoded as one piece: inner chunks where the array is sharded."""
    dtype: np.dtype[Any]
    scale: tuple[float, ...]
    """Per axis, in its unit."""
    translation: tuple[float, ...]
    """Per axis, in its unit; of the centre of the first pixel."""


@dataclass(frozen=True)
class Image:
    """An OME-Zarr image: its axes and levels, and the group that holds them."""

    location: str
    version: OMEVersion
    name: str
    axes: tuple[Axis, ...]
    """A subset of t, c, z, y, x in this order."""
    levels: tuple[Level, ...]
    """From the finest to the coarsest."""
    metadata: Mapping[str, Any]
    """The multiscales entry as stored, for what is not interpreted here."""
    given_axes: str | None = None
    """Of a plain array, as the user has told them."""

    @cached_property
    def group(self) -> zarr.Group:
        return open_group(self.location, self.given_axes)

    @property
    def holds_labels(self) -> bool:
        """Whether label images can go into its store; beside it otherwise."""
        return not isinstance(self.group.store, OriginalStore | ZipStore | ArrayStore)

    @property
    def is_original(self) -> bool:
        """Whether it is a slide, TIFF or picture, read as it is, and not OME-Zarr."""
        return isinstance(self.group.store, OriginalStore)

    @property
    def format(self) -> str:
        """What it is, for people."""
        store = self.group.store
        if isinstance(store, OriginalStore):
            return f"{store.info.format}, not imported"
        if isinstance(store, ArrayStore):
            return f"Zarr {self.group.metadata.zarr_format} array"
        return f"OME-Zarr {self.version}"

    @property
    def decodes_whole_rows(self) -> bool:
        """Whether a narrow window of it costs as much as one over the full width."""
        store = self.group.store
        return isinstance(store, OriginalStore) and store.info.decodes_whole_rows

    @property
    def label_folder(self) -> Location:
        """Where its label images are."""
        return label_folder(locate(self.location))

    def position(self, axis: str) -> int | None:
        """Where `axis` stands among the axes; None if the image lacks it."""
        names = [item.name for item in self.axes]
        return names.index(axis) if axis in names else None

    @property
    def channels(self) -> int:
        """Number of channels; 1 if the image has no channel axis."""
        position = self.position("c")
        return 1 if position is None else self.levels[0].shape[position]

    @property
    def leading(self) -> tuple[int, ...]:
        """Positions of the axes t and z, whose planes are segmented one by one."""
        return tuple(index for index, axis in enumerate(self.axes) if axis.name in "tz")

    def plane_shape(self, level: int) -> YX:
        """Height and width of one plane, pixels."""
        return YX(*self.levels[level].shape[-2:])

    def planes(self, level: int) -> int:
        """Number of (t, z) planes; 1 for a plain picture."""
        return prod(self.levels[level].shape[index] for index in self.leading)

    def pixel_size_um(self, level: int) -> Spacing | None:
        """Micrometres per pixel; None if the axes have no unit of length, or no positive scale."""
        factors = [_MICROMETRES.get(axis.unit or "", 0.0) for axis in self.axes[-2:]]
        scales = zip(self.levels[level].scale[-2:], self._shared_scale[-2:], factors, strict=True)
        size = Spacing(*(prod(numbers) for numbers in scales))
        return size if min(size) > 0 else None

    @property
    def pixel_sizes_um(self) -> list[Spacing]:
        """Micrometres per pixel of each level; empty if one of them is unknown."""
        sizes = [self.pixel_size_um(level) for level in range(len(self.levels))]
        known = [size for size in sizes if size is not None]
        return known if len(known) == len(sizes) else []

    @property
    def _shared_scale(self) -> Sequence[float]:
        """The scale that the image states once for all its levels, per axis."""
        shared = self.metadata.get("coordinateTransformations") or []
        scales = (item["scale"] for item in shared if item.get("type") == "scale")
        return next(scales, [1.0] * len(self.axes))

    def label_names(self) -> list[str]:
        """Names of the label images in its `label_folder`, as listed there."""
        if not self.holds_labels:
            listed = (self.label_folder / "zarr.json").exists()
            group = open_group(self.label_folder) if listed else None
        else:
            group = self.group.get("labels")
        if group is None:
            return []
        attributes = dict(group.attrs)
        ome = attributes.get("ome", attributes)
        return [str(name) for name in ome.get("labels", [])]

    def pixels(self, level: int, absent: Location | None = None) -> "MirroredPixels":
        """The pixels of a level, extended by mirroring.

        Args:
            level: of the image.
            absent: file with the keys of the chunks that may be missing, see `StrictStore`;
                by default any may be.
        """
        array = self._stored(level)
        place = locate(self.location)
        is_listed = not (isinstance(place, RemotePath) and place.is_web)
        if absent is not None and is_listed and not self._is_file:
            store = StrictStore(zarr_store(place), absent)
            array = zarr.Array(zarr.AsyncArray(array.metadata, StorePath(store, array.path)))
        return MirroredPixels(array, self.position("c"), self.leading)

    def inventory(self, level: int) -> Inventory:
        """Which chunks of a level are there, and of what size.

        Raises:
            InputError: if one lies outside the image, behind a symbolic link.
        """
        if self._is_file:
            return take_original_inventory(Path(self.location))
        return take_inventory(self._stored(level), locate(self.location))

    @property
    def _is_file(self) -> bool:
        return isinstance(self.group.store, OriginalStore | ZipStore)

    def _stored(self, level: int) -> zarr.Array:
        """The array of a level in the store at the image's location."""
        if isinstance(self.group.store, ArrayStore):
            version = self.group.metadata.zarr_format
            return zarr.open_array(self.location, mode="r", zarr_format=version)
        return self.group[self.levels[level].path]

    def nodata(self, level: int) -> float | None:
        """The value that stands for "nothing was recorded here"; None if none is declared.

        It is the attribute `_FillValue` of the level's array (CF conventions, section 2.5.1;
        xarray encodes floats in base64). NaN is none: such pixels are refused.
        """
        value = self.group[self.levels[level].path].attrs.get("_FillValue")
        if isinstance(value, str):
            value = struct.unpack("<d", base64.b64decode(value))[0]
        return None if value is None or np.isnan(value) else value

    def refuse_non_finite(self) -> None:
        """Look for NaN in the coarsest level of a float image, where averaging has spread them.

        The pixels that the network is given are looked at as they are read; this is to fail
        before anything is written.

        Raises:
            InputError: if there is one.
        """
        # The coarsest level of an original is not stored, but made from all its pixels.
        level = self.levels[0 if self.is_original else -1]
        if (
            level.dtype.kind != "f"
            or prod(level.shape) * level.dtype.itemsize > _LARGEST_LOOK_BYTES
        ):
            return
        last = len(self.levels) - 1
        whole = Window(0, 0, *self.plane_shape(last))
        for plane in range(self.planes(last)):
            self.pixels(last).read(plane, whole)

    def level_number(self, level: int) -> int:
        """`level`, if the image has it.

        Raises:
            OptionError: if it does not.
        """
        if not 0 <= level < len(self.levels):
            raise OptionError(
                f"level {level} does not exist: {self.location} has levels 0 to "
                f"{len(self.levels) - 1}"
            )
        return level


@dataclass(frozen=True)
class MirroredPixels:
    """One level as (plane, c, y, x), endless in y and x: beyond the rim it is mirrored.

    This is the image of which tilesegment computes one forward pass (paper, figure 2).
    """

    array: zarr.Array
    channel_axis: int | None
    leading: tuple[int, ...]
    """Positions of the axes that are flattened into planes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    @property
    def plane_shape(self) -> YX:
        return YX(*self.array.shape[-2:])

    def read(self, plane: int, window: Window) -> npt.NDArray[Any]:
        """Pixels of a window that may reach beyond the rim.

        Returns:
            (c, window.height, window.width), in the image's dtype.

        Raises:
            InputError: if a pixel is NaN or infinite, or a chunk is damaged.
        """
        shape = self.plane_shape
        top, bottom = mirrored_span(window.y, window.y + window.height, shape.y)
        left, right = mirrored_span(window.x, window.x + window.width, shape.x)
        pixels = self.stored(plane, top, bottom, left, right)
        _refuse_non_finite(pixels, plane, top, left)
        if window.clipped(shape) == window:
            return pixels
        rows = mirrored_positions(window.y, window.y + window.height, shape.y) - top
        columns = mirrored_positions(window.x, window.x + window.width, shape.x) - left
        # One axis after the other: five times as fast as both at once.
        return pixels.take(rows, axis=1).take(columns, axis=2)

    def stored(self, plane: int, top: int, bottom: int, left: int, right: int) -> npt.NDArray[Any]:
        """Pixels inside the image: (c, bottom - top, right - left), in the image's dtype.

        Raises:
            InputError: if a chunk is damaged.
        """
        lengths = [self.array.shape[index] for index in self.leading]
        selection: list[Any] = [slice(None)] * self.array.ndim
        for index, position in zip(self.leading, np.unravel_index(plane, lengths), strict=True):
            selection[index] = int(position)
        selection[-2:] = slice(top, bottom), slice(left, right)
        # Guarded here and not when it is made: zarr cannot pickle codecs that it does not know.
        array = guarded(self.array)
        try:
            pixels = patiently(
                lambda: np.asarray(array[tuple(selection)]),
                worth=lambda error: is_transient(error) or isinstance(error, LostObjectError),
            )
        except (ValueError, RuntimeError, OSError, LostObjectError) as error:
            where = f"rows {top} to {bottom}, columns {left} to {right} of plane {plane}"
            raise InputError(f"the image {_fault(error)} chunk in {where}: {error}") from error
        return pixels if self.channel_axis is not None else pixels[None]


def _fault(error: Exception) -> str:
    if isinstance(error, LostObjectError):
        return "has lost a"
    return "has an unreadable" if isinstance(error, OSError) else "has a damaged"


def open_image(location: str | Location, axes: str | None = None) -> Image:
    """Read the metadata of an image: OME-Zarr, a plain Zarr array, or a slide, TIFF or picture.

    A plate or collection with a single image is that image.

    Args:
        location: path or URL of the image.
        axes: of a plain array that does not tell them, as "cyx".

    Raises:
        InputError: if there is no image; the message says what is there instead.
    """
    # A URL that went through pathlib has lost a slash.
    location = locate(location) if isinstance(location, Path) else location
    group = open_group(location, axes)
    try:
        found = images_in(group)
        if len(found) == 1:
            return open_image(locate(location) / found[0])
        return _read_image(location, group, axes)
    # Metadata may be anything: whatever does not fit what is looked for ends here.
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        problem = str(error).partition("\n")[0]
        raise InputError(
            f"{location} has damaged metadata ({type(error).__name__}: {problem})"
        ) from error


def images_of(location: str) -> list[str]:
    """The images of a plate or collection, or the place itself, whatever is there."""
    path = locate(location)
    try:
        is_file = isinstance(path, Path) and not path.is_dir()
        found = [] if is_file else images_in(open_group(path))
    # Said by who opens it.
    except (InputError, AttributeError, KeyError, TypeError, ValueError):
        found = []
    return [f"{location}/{inside}" for inside in found] or [location]


def _read_image(location: str | Location, group: zarr.Group, given: str | None) -> Image:
    attributes = dict(group.attrs)
    version: OMEVersion = "0.5" if "ome" in attributes else "0.4"
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, dict) or not ome.get("multiscales"):
        raise InputError(_other_group(location, group, ome))
    stored = ome["multiscales"][0]
    if is_older(stored):
        stored = brought_to_04(stored, group)
    multiscale = _validate(stored, version, location)
    axes = tuple(
        Axis(axis.name, axis.type, getattr(axis, "unit", None)) for axis in multiscale.axes
    )
    _check_axes(axes, location)
    return Image(
        location=str(location),
        version=version,
        name=_name(location),
        axes=axes,
        levels=tuple(_level(group, item, len(axes), location) for item in multiscale.datasets),
        metadata=stored,
        given_axes=given,
    )


def _name(location: str | Location) -> str:
    path = locate(location)
    is_file = isinstance(path, Path) and path.is_file()
    return Path(path.name).stem if is_file else path.name.removesuffix(".zarr")


def _validate(stored: Any, version: OMEVersion, location: str | Location) -> Any:
    """The multiscales entry as a model of ome-zarr-models.

    Numbers as dataset paths are written by some programs, and meant as strings.
    """
    datasets = stored.get("datasets", []) if isinstance(stored, dict) else []
    for item in datasets:
        if isinstance(item, dict) and isinstance(item.get("path"), int):
            item["path"] = str(item["path"])
    model = Multiscale05 if version == "0.5" else Multiscale04
    try:
        return model.model_validate(stored)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputError(
            f"{location} is not valid OME-Zarr {version}: multiscales.{where}: {problem['msg']}"
        ) from error


def _check_axes(axes: tuple[Axis, ...], location: str | Location) -> None:
    names = [axis.name for axis in axes]
    if names != [name for name in "tczyx" if name in names] or names[-2:] != ["y", "x"]:
        raise InputError(
            f"{location} has axes {', '.join(names)}; tilesegment needs y and x last, and before "
            "them any of t, c, z in this order"
        )


def _level(group: zarr.Group, dataset: Any, ndim: int, location: str | Location) -> Level:
    for name in ("zarr.json", ".zarray"):
        check_document(locate(location) / dataset.path / name)
    try:
        array = group[dataset.path]
    except KeyError as error:
        raise InputError(
            f"{location} lacks the array {dataset.path!r} that its metadata names"
        ) from error
    # zarr raises whatever its parser stumbles over.
    except Exception as error:
        problem = str(error).partition("\n")[0]
        raise InputError(
            f"{location}/{dataset.path} cannot be read: its Zarr metadata is damaged, or names a "
            f"codec that is not installed ({problem})"
        ) from error
    if not isinstance(array, zarr.Array) or array.ndim != ndim or 0 in array.shape:
        raise InputError(
            f"{location}/{dataset.path} does not fit the {ndim} axes of its metadata, or is empty"
        )
    if array.dtype.kind not in "uif":
        raise InputError(
            f"{location} has pixels of type {array.dtype}; integers or floats are needed"
        )
    check_array(array, f"{location}/{dataset.path}")
    scale = [1.0] * ndim
    translation = [0.0] * ndim
    for transform in dataset.coordinateTransformations:
        if transform.type == "scale":
            scale = list(transform.scale)
        elif transform.type == "translation":
            translation = list(transform.translation)
    return Level(
        dataset.path, array.shape, array.chunks, np.dtype(array.dtype), tuple(scale),
        tuple(translation),
    )  # fmt: skip


def _other_group(location: str | Location, group: zarr.Group, ome: Any) -> str:
    """What a group without multiscales is, and what to give instead."""
    found = images_in(group)
    if found:
        kind = "plate" if "plate" in ome else "collection"
        some = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
        return (
            f"{location} is a {kind} of {len(found)} images; give one of them, as "
            f"{location}/{found[0]} (there are {some})"
        )
    if isinstance(ome, dict) and ("plate" in ome or "bioformats2raw.layout" in ome):
        return f"{location} is a plate or collection without any image; look at its metadata"
    members = ", ".join(sorted(group.keys())[:4]) or "nothing"
    return f"{location} is a Zarr group without OME-Zarr metadata (multiscales); it holds {members}"


def _refuse_non_finite(pixels: npt.NDArray[Any], plane: int, top: int, left: int) -> None:
    if pixels.dtype.kind != "f" or np.isfinite(pixels).all():
        return
    channel, row, column = (int(found[0]) for found in np.nonzero(~np.isfinite(pixels)))
    value = pixels[channel, row, column]
    raise InputError(
        f"the image holds {value} at plane {plane}, channel {channel}, row {top + row}, column "
        f"{left + column}; replace such pixels first, a network cannot use them"
    )
