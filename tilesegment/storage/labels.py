"""The label volume: an OME-Zarr image-label, of the same version and grid as its image.

Pixels are written under their final keys while the metadata that would make them an array
is only in memory; `LabelVolume.publish` writes it last. Until then no reader sees a label
image, and afterwards every reader sees the whole.
"""

import json
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore, StorePath

from tilesegment.colours import RGB, class_colour
from tilesegment.errors import InputError, OutputError
from tilesegment.geometry import YX
from tilesegment.storage.geozarr import carried_attributes
from tilesegment.storage.image import Image, Level, OMEVersion, open_image
from tilesegment.storage.media import medium_of
from tilesegment.storage.objects import (
    LEDGER_NAME,
    PROVENANCE_KEY,
    Publishing,
    StoredObject,
    describe,
    patiently,
    read_document,
    synchronise,
    write_failed,
)
from tilesegment.storage.probabilities import (
    PROBABILITIES_NAME,
    Probabilities,
    channel_position,
    create_probability_array,
    pool_by_mean,
    probability_attributes,
)
from tilesegment.storage.pyramid import Labels, level_factors, pool_by_mode, repeat
from tilesegment.storage.remote import Location, RemotePath, zarr_store
from tilesegment.storage.replacing import finish_replacing
from tilesegment.storage.stores import LostObjectError, StrictStore
from tilesegment.tiling import TileGrid, Window


@dataclass(frozen=True)
class LabelProperties:
    """What a reader is told of one label value."""

    value: int
    name: str
    colour: RGB


@dataclass(frozen=True)
class LabelLayout:
    """What decides the arrays of a label volume."""

    name: str
    version: OMEVersion
    dtype: str
    tile: int
    """Pixels per side that one task writes: the shard, where the format has shards."""
    chunk: int
    """Pixels per side that a viewer reads at once."""
    properties: tuple[LabelProperties, ...]
    source: str | None
    """Relative path of the image; None if it lies elsewhere."""
    suffix: str = ""
    """Of the levels' paths: new for each run where nothing can be renamed."""
    probabilities: bool = False
    """Whether the probabilities of the classes are stored, too."""

    @property
    def compressor(self) -> Any:
        """With a checksum: Zstandard's own, which both formats have."""
        if self.version == "0.4":
            return numcodecs.Zstd(level=1, checksum=True)
        return ZstdCodec(level=1, checksum=True)

    def path(self, level: Level) -> str:
        """Of a level's array, in the label image."""
        return f"{level.path}{self.suffix}"


@dataclass(frozen=True)
class WrittenTile:
    """What is stored of a tile once it was written."""

    labels: Labels
    """Ours; or those of whoever wrote this tile before, if they differ."""
    objects: tuple[StoredObject, ...]


@dataclass(frozen=True)
class LabelVolume:
    """All levels of a label image, writable, whether or not they are published.

    Axes are those of the image without c. It can be pickled, and written from many processes
    as long as no two of them write one tile.
    """

    directory: Location
    arrays: tuple[zarr.Array, ...]
    """From the finest to the coarsest level."""
    scales: tuple[tuple[float, ...], ...]
    """Per level and axis."""
    documents: Mapping[str, str]
    """Metadata to be published: key relative to the directory, and JSON text."""
    publishing: Publishing = "link"
    """How an object gets its name."""
    probabilities: tuple[zarr.Array, ...] = ()
    """Of the classes, from the finest to the coarsest level; empty if they are not stored."""
    channel_axis: int = 0
    """Position of the classes among the axes of the probabilities."""

    def write(
        self,
        level: int,
        plane: int,
        window: Window,
        labels: Labels,
        probabilities: Probabilities | None = None,
    ) -> WrittenTile:
        """Write one tile, unless somebody wrote it before.

        Args:
            level: of the pyramid.
            plane: index over the flattened leading axes.
            window: inside the level.
            labels: (window.height, window.width), integer.
            probabilities: (classes, window.height, window.width); None where none are stored.

        Raises:
            IncompleteError: if the disk is full; the run can go on once there is space.
        """
        array = self.arrays[level]
        selection = (*_plane_index(array, plane), *window.slices)
        objects, is_ours = self._store(array, selection, labels)
        if probabilities is not None:
            chosen = self._with_classes(selection)
            objects += self._store(self.probabilities[level], chosen, probabilities)[0]
        return WrittenTile(labels if is_ours else np.asarray(array[selection]), objects)

    def _with_classes(self, selection: Sequence[Any]) -> tuple[Any, ...]:
        """A selection of labels, as one of the probabilities of all classes."""
        axis = self.channel_axis
        return (*selection[:axis], slice(0, self.classes), *selection[axis:])

    @property
    def classes(self) -> int:
        """How many have probabilities."""
        return self.probabilities[0].shape[self.channel_axis] if self.probabilities else 0

    def no_probabilities(self, window: Window) -> Probabilities | None:
        """What is stored where nothing was computed; None where no probabilities are stored."""
        if not self.probabilities:
            return None
        return np.zeros((self.classes, window.height, window.width), np.uint8)

    def _store(
        self, array: zarr.Array, selection: Any, values: Any
    ) -> tuple[tuple[StoredObject, ...], bool]:
        """The objects that are stored now, and whether they hold these values."""
        encoded, medium = _encode(array, selection, values), medium_of(self.directory)
        try:
            objects = tuple(
                patiently(partial(medium.create, self.directory, key, content, self.publishing))
                for key, content in encoded.items()
            )
        except OSError as error:
            needed = sum(map(len, encoded.values()))
            raise medium.write_failed(error, self.directory, needed) from error
        ours = [describe(key, content).sha256 for key, content in encoded.items()]
        return objects, [item.sha256 for item in objects] == ours

    def read(self, level: int, plane: int, window: Window) -> Labels:
        """Labels of a window inside the level: (window.height, window.width).

        Raises:
            OutputError: if a chunk is lost or damaged.
        """
        selection = (*_plane_index(self.arrays[level], plane), *window.slices)
        return self._read(self.arrays[level], selection, level, plane, window)

    def read_probabilities(self, level: int, plane: int, window: Window) -> Probabilities:
        """Those of all classes: (classes, window.height, window.width); raises as `read`."""
        selection = self._with_classes((*_plane_index(self.arrays[level], plane), *window.slices))
        return self._read(self.probabilities[level], selection, level, plane, window)

    def _read(
        self, array: zarr.Array, selection: Any, level: int, plane: int, window: Window
    ) -> npt.NDArray[Any]:
        try:
            return np.asarray(array[selection])
        except (ValueError, RuntimeError, OSError, LostObjectError) as error:
            fault = "has lost a" if isinstance(error, LostObjectError) else "has a damaged"
            raise OutputError(
                f"{self.directory} {fault} chunk at row {window.y}, column {window.x} of plane "
                f"{plane}, level {level}: {error}; compute it again with --repair"
            ) from error

    def derive(self, level: int, neighbour: int, plane: int, window: Window) -> WrittenTile:
        """Write one tile of `level` from the next level that is stored already.

        A coarser level takes the most frequent label of each block of the finer one, and the
        mean of its probabilities; a finer level repeats those of the coarser one.

        Raises:
            OutputError: if an object of the stored level is lost or damaged.
        """
        here = [slice(index, index + 1) for index in _plane_index(self.arrays[level], plane)]
        here.extend(window.slices)
        factors = self._factors(level, neighbour)
        labels = _derived(self.arrays, level, neighbour, here, factors, pool_by_mode)
        labels = labels.reshape(window.height, window.width)
        if not self.probabilities:
            return self.write(level, plane, window, labels)
        axis, with_classes = self.channel_axis, self._with_classes(here)
        factors = (*factors[:axis], 1, *factors[axis:])
        probabilities = _derived(
            self.probabilities, level, neighbour, with_classes, factors, pool_by_mean
        ).reshape(self.classes, window.height, window.width)
        return self.write(level, plane, window, labels, probabilities)

    def _factors(self, level: int, neighbour: int) -> tuple[int, ...]:
        """Pixels of the finer of two levels per pixel of the coarser one, per axis."""
        fine, coarse = sorted((level, neighbour))
        return level_factors(
            self.arrays[coarse].shape, self.scales[coarse],
            self.arrays[fine].shape, self.scales[fine],
        )  # fmt: skip

    def grid(self, level: int, tile: int) -> TileGrid:
        """The tiles of a level."""
        shape = self.arrays[level].shape
        return TileGrid(YX(*shape[-2:]), int(np.prod(shape[:-2], dtype=int)), tile)

    def final_documents(self, provenance: Mapping[str, Any]) -> dict[str, str]:
        """The metadata as published: key, and JSON text; the arrays first, the root last.

        Args:
            provenance: how the labels were made; JSON, stored beside the OME metadata.
        """
        root_keys = ("zarr.json", ".zattrs", ".zgroup")
        inner = {key: text for key, text in self.documents.items() if key not in root_keys}
        root = {
            key: _with_provenance(key, self.documents[key], provenance)
            for key in root_keys
            if key in self.documents
        }
        return {**inner, **root}

    def publish(self, provenance: Mapping[str, Any]) -> None:
        """Write the metadata: from now on there is a label image for every reader."""
        for key, text in self.final_documents(provenance).items():
            medium_of(self.directory).write_document(self.directory / key, text)


def layout_volume(image: Image, layout: LabelLayout, directory: Location) -> LabelVolume:
    """The label volume for an image, with nothing written yet."""
    kept = [index for index, axis in enumerate(image.axes) if axis.name != "c"]
    documents: dict[str, Any] = {}
    memory = MemoryStore(documents)
    group = zarr.create_group(
        memory,
        zarr_format=3 if layout.version == "0.5" else 2,
        attributes={
            **_attributes(image, layout, kept),
            **carried_attributes(dict(image.group.attrs), layout.version),
        },
    )
    names = [image.axes[index].name for index in kept]
    arrays = [
        _create_array(group, layout.path(level), tuple(level.shape[i] for i in kept), layout, names)
        for level in image.levels
    ]
    probabilities = []
    if layout.probabilities:
        inner = group.create_group(
            PROBABILITIES_NAME, attributes=probability_attributes(image, layout)
        )
        probabilities = [
            create_probability_array(inner, image, level, layout)
            for level in range(len(image.levels))
        ]
    return LabelVolume(
        directory=directory,
        arrays=tuple(_stored_in(directory, array) for array in arrays),
        scales=tuple(tuple(level.scale[index] for index in kept) for level in image.levels),
        documents={key: value.to_bytes().decode() for key, value in documents.items()},
        probabilities=tuple(_stored_in(directory, array) for array in probabilities),
        channel_axis=channel_position(names),
    )


def _stored_in(directory: Location, array: zarr.Array) -> zarr.Array:
    """An array whose pixels lie in a directory, though its metadata does not yet.

    Background is stored too: what is missing was lost.
    """
    place = StorePath(StrictStore(zarr_store(directory, read_only=False)), array.path)
    return zarr.Array(zarr.AsyncArray(array.metadata, place, config={"write_empty_chunks": True}))


def _create_array(
    group: zarr.Group, path: str, shape: tuple[int, ...], layout: LabelLayout, names: list[str]
) -> zarr.Array:
    leading = (1,) * (len(shape) - 2)
    common: dict[str, Any] = {
        "name": path,
        "shape": shape,
        "dtype": layout.dtype,
        "chunks": (*leading, layout.chunk, layout.chunk),
        "fill_value": 0,
    }
    if layout.version == "0.4":
        return group.create_array(
            **common,
            compressors=layout.compressor,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
    return group.create_array(
        **common,
        shards=(*leading, layout.tile, layout.tile) if layout.tile > layout.chunk else None,
        compressors=layout.compressor,
        dimension_names=names,
    )


def _attributes(image: Image, layout: LabelLayout, kept: Sequence[int]) -> dict[str, Any]:
    """The OME metadata of the label image: the image's own axes and transformations."""
    axes = []
    for index in kept:
        axis = image.axes[index]
        entry = {"name": axis.name, "type": axis.type, "unit": axis.unit}
        axes.append({key: value for key, value in entry.items() if value is not None})
    datasets = [
        {
            "path": layout.path(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [level.scale[index] for index in kept]},
                {"type": "translation", "translation": [level.translation[i] for i in kept]},
            ],
        }
        for level in image.levels
    ]
    multiscale: dict[str, Any] = {"name": layout.name, "axes": axes, "datasets": datasets}
    shared = _shared_transformations(image, kept)
    if shared:
        multiscale["coordinateTransformations"] = shared
    label: dict[str, Any] = {
        "colors": [
            {"label-value": item.value, "rgba": [*item.colour, 255 if item.value else 0]}
            for item in layout.properties
        ],
        "properties": [
            {"label-value": item.value, "class": item.name} for item in layout.properties
        ],
    }
    if layout.source is not None:
        label["source"] = {"image": layout.source}
    if layout.version == "0.5":
        ome = {"version": "0.5", "multiscales": [multiscale], "image-label": label}
        return {"ome": ome}
    multiscale["version"] = "0.4"
    return {"multiscales": [multiscale], "image-label": {"version": "0.4", **label}}


def _shared_transformations(image: Image, kept: Sequence[int]) -> list[dict[str, Any]]:
    """The transformations that the image states once for all its levels, without c."""
    shared = image.metadata.get("coordinateTransformations") or []
    return [
        {"type": item["type"], item["type"]: [item[item["type"]][index] for index in kept]}
        for item in shared
        if item.get("type") in ("scale", "translation") and item["type"] in item
    ]


def _encode(array: zarr.Array, selection: Any, labels: Labels) -> dict[str, bytes]:
    """The objects that a tile becomes, by their keys relative to the label image."""
    objects: dict[str, Any] = {}
    memory = StorePath(MemoryStore(objects), array.path)
    settings = {"write_empty_chunks": True}
    zarr.Array(zarr.AsyncArray(array.metadata, memory, config=settings))[selection] = labels
    return {key: value.to_bytes() for key, value in objects.items()}


def _plane_index(array: zarr.Array, plane: int) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(plane, array.shape[:-2]))


def _derived(
    arrays: Sequence[zarr.Array],
    level: int,
    neighbour: int,
    here: Sequence[slice],
    factors: tuple[int, ...],
    pool: Callable[[npt.NDArray[Any], tuple[int, ...]], npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    """What the slices `here` of a level hold, from its neighbour.

    Raises:
        OutputError: if an object of the neighbour is lost or damaged.
    """
    source = arrays[neighbour]
    try:
        if neighbour < level:
            values = pool(_finer(source, here, factors), factors)
        else:
            values = _coarser(source, here, factors)
    except (ValueError, RuntimeError, OSError, LostObjectError) as error:
        raise OutputError(
            f"the pixels that level {level} is made from cannot be read ({error}); start anew "
            "with --overwrite"
        ) from error
    return _fill(values, tuple(part.stop - part.start for part in here))


def _finer(source: zarr.Array, here: Sequence[slice], factors: tuple[int, ...]) -> Labels:
    """The pixels of the finer level behind the slices `here` of the coarser one."""
    selection = []
    for part, factor, size in zip(here, factors, source.shape, strict=True):
        start = min(part.start * factor, size - 1)
        selection.append(slice(start, max(min(part.stop * factor, size), start + 1)))
    return np.asarray(source[tuple(selection)])


def _coarser(source: zarr.Array, here: Sequence[slice], factors: tuple[int, ...]) -> Labels:
    """The pixels of the coarser level behind the slices `here`, repeated to their size."""
    selection, inner = [], []
    for part, factor, size in zip(here, factors, source.shape, strict=True):
        start = min(part.start // factor, size - 1)
        selection.append(slice(start, min(-(-part.stop // factor), size)))
        inner.append(slice(part.start - start * factor, part.stop - start * factor))
    repeated = repeat(np.asarray(source[tuple(selection)]), factors)
    return repeated[tuple(inner)]


def _fill(labels: Labels, shape: tuple[int, ...]) -> Labels:
    """Labels of exactly `shape`; what the neighbouring level does not cover repeats its rim."""
    labels = labels[tuple(slice(size) for size in shape)]
    missing = [(0, size - have) for size, have in zip(shape, labels.shape, strict=True)]
    return np.pad(labels, missing, mode="edge") if labels.shape != shape else labels


def _with_provenance(key: str, text: str, provenance: Mapping[str, Any]) -> str:
    document = json.loads(text)
    if key == "zarr.json":
        document["attributes"][PROVENANCE_KEY] = dict(provenance)
    elif key == ".zattrs":
        document[PROVENANCE_KEY] = dict(provenance)
    return json.dumps(document, indent=2)


def read_classes(group: zarr.Group) -> list[LabelProperties]:
    """The classes of a label image, as its "image-label" metadata names or colours them."""
    stated = _image_label(group)
    names = {item["label-value"]: item.get("class") for item in stated.get("properties") or ()}
    colours = {item["label-value"]: item.get("rgba") for item in stated.get("colors") or ()}
    return [
        LabelProperties(
            value,
            str(names.get(value) or f"label {value}"),
            tuple(colours[value][:3]) if colours.get(value) else class_colour(value),
        )
        for value in sorted({**names, **colours})
    ]


def _image_label(group: zarr.Group) -> Mapping[str, Any]:
    """What makes a group a label image; empty if it is none."""
    attributes: Any = dict(group.attrs)
    stated: Mapping[str, Any] = attributes.get("ome", attributes).get("image-label") or {}
    return stated


def published_provenance(directory: Location) -> Mapping[str, Any] | None:
    """How the label image in a directory was made; None if there is none.

    An empty mapping means that there is one, made by something else.
    """
    for key, attributes in (("zarr.json", "attributes"), (".zattrs", None)):
        document = read_document(directory / key)
        if document is not None:
            stored = document.get(attributes, {}) if attributes else document
            return dict(stored.get(PROVENANCE_KEY, {}))
    return None


def refuse_foreign(directory: Location, overwrite: bool) -> None:
    """Refuse a directory that holds anything but a label image or an unfinished run.

    With `overwrite` another program's label image may be replaced, and nothing else.

    Raises:
        OutputError: so that nothing is mixed with or deleted from what is not ours.
    """
    if not directory.exists() or (directory / LEDGER_NAME).is_dir():
        return
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if published_provenance(directory):
        return
    if not _is_label_image(directory):
        raise OutputError(f"{directory} exists and is no label image; choose another place")
    if not overwrite:
        raise OutputError(
            f"{directory} exists and was not made by tilesegment; use another --labels name, or "
            "--overwrite to replace it"
        )


def _is_label_image(directory: Location) -> bool:
    for key in ("zarr.json", ".zattrs"):
        document = read_document(directory / key) or {}
        attributes = document.get("attributes", document)
        if "image-label" in attributes.get("ome", attributes):
            return True
    return False


def list_labels(labels: Location, name: str, version: OMEVersion) -> None:
    """Add `name` to the list of the image's labels; creates the group that holds the list."""
    key = "zarr.json" if version == "0.5" else ".zattrs"
    document = read_document(labels / key) or {}
    if version == "0.5":
        document.setdefault("zarr_format", 3)
        document.setdefault("node_type", "group")
        ome = document.setdefault("attributes", {}).setdefault("ome", {"version": "0.5"})
    else:
        ome = document
        medium_of(labels).write_document(labels / ".zgroup", json.dumps({"zarr_format": 2}))
    names = ome.setdefault("labels", [])
    if name not in names:
        names.append(name)
        medium_of(labels).write_document(labels / key, json.dumps(document, indent=2))


def remove_labels(directory: Path) -> None:
    """Delete a label image: gone at once for every reader, also if the deletion is cut short."""
    if not directory.exists():
        return
    removed = directory.with_name(f".{directory.name}.removed-{uuid.uuid4().hex[:8]}")
    try:
        directory.rename(removed)
    except OSError as error:
        raise write_failed(error, directory) from error
    shutil.rmtree(removed, ignore_errors=True)


def beside_labels(directory: Path) -> Path:
    """Where the labels that are to replace those in `directory` are written."""
    return directory.with_name(f".{directory.name}.new")


def swap_labels(new: Location, old: Location) -> None:
    """Put finished labels in the place of others, which are deleted; on a disk only."""
    if not (isinstance(new, Path) and isinstance(old, Path)):
        raise TypeError(f"{new} cannot be renamed to {old}")
    remove_labels(old)
    try:
        new.rename(old)
        synchronise(old.parent)
    except OSError as error:
        raise write_failed(error, old) from error


def finish_swap(directory: Location) -> bool:
    """Put labels in their place that were finished by a run which was then cut short.

    Returns:
        Whether there were any.
    """
    if isinstance(directory, RemotePath):
        return finish_replacing(directory)
    new = beside_labels(directory)
    if (new / LEDGER_NAME).exists() or not published_provenance(new):
        return False
    swap_labels(new, directory)
    return True


def refresh_consolidated(image: Location) -> None:
    """Renew an image's consolidated metadata, if it has any: readers would miss the labels."""
    document = read_document(image / "zarr.json") or {}
    if not document.get("consolidated_metadata") and not (image / ".zmetadata").exists():
        return
    with warnings.catch_warnings():
        # zarr warns that version 3 does not specify it; whoever wrote the image uses it.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(zarr_store(image, read_only=False))


def class_names(group: zarr.Group) -> dict[int, str]:
    """Names of the classes by label value, from a label image's "image-label" metadata.

    Empty if it states none, as for a label image of objects.
    """
    return {
        int(item["label-value"]): str(item["class"])
        for item in _image_label(group).get("properties") or ()
        if item.get("class")
    }


def is_label_image(image: Image) -> bool:
    """Whether an image is one of labels."""
    return "image-label" in image.group.attrs.get("ome", image.group.attrs)


def open_labels(image: Image, wanted: str | None, option: str) -> Image:
    """One of the label images of an image.

    Args:
        image: the image.
        wanted: name of the label image; None if there is only one.
        option: how a user chooses one, for the message.

    Raises:
        InputError: if it is absent, or there are several to choose from.
    """
    names = image.label_names()
    if not names:
        raise InputError(f"{image.location} has no labels; annotate or segment it first")
    if wanted is None and len(names) == 1:
        wanted = names[0]
    if wanted not in names:
        raise InputError(
            f"{image.location} has the labels {', '.join(names)}; choose one with {option}"
        )
    return open_image(image.label_folder / wanted)


def levels_to_derive(count: int, processed: int) -> Iterator[tuple[int, int]]:
    """Which level to derive from which: outwards from the one that was segmented.

    >>> list(levels_to_derive(4, processed=1))
    [(2, 1), (3, 2), (0, 1)]
    """
    for level in range(processed + 1, count):
        yield level, level - 1
    for level in reversed(range(processed)):
        yield level, level + 1
