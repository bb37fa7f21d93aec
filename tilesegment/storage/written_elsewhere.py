"""What other programs wrote, shown as the OME-Zarr images that this library reads.

Metadata of OME-Zarr 0.1 to 0.3 is brought to 0.4, plates and collections are lists of images, and
a plain Zarr array becomes an image of one level.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from tilesegment.errors import InputError

_OLDER = ("0.1", "0.2", "0.3")
_AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_AXIS_NAMES = {
    "time": "t", "channel": "c", "channels": "c", "band": "c", "bands": "c", "depth": "z",
    "lat": "y", "latitude": "y", "row": "y", "rows": "y", "height": "y",
    "lon": "x", "longitude": "x", "column": "x", "columns": "x", "width": "x",
}  # fmt: skip
"""As xarray and others call their dimensions."""
_LEVEL = "0"


def is_older(multiscale: Any) -> bool:
    """Whether metadata is that of OME-Zarr 0.1, 0.2 or 0.3."""
    return isinstance(multiscale, dict) and multiscale.get("version") in _OLDER


def brought_to_04(multiscale: Mapping[str, Any], group: zarr.Group) -> dict[str, Any]:
    """Metadata of OME-Zarr 0.1 to 0.3 as that of 0.4.

    Up to 0.2 the axes are t, c, z, y, x; up to 0.3 nothing tells the size of a pixel, and that of
    the levels is the factor between their shapes. See the changes listed in
    https://ngff.openmicroscopy.org/0.4/#history.
    """
    paths = [str(item["path"]) for item in multiscale["datasets"]]
    shapes = [_shape(group, path) for path in paths]
    names = multiscale.get("axes") or list("tczyx"[-len(shapes[0]) :])
    return {
        **multiscale,
        "version": "0.4",
        "axes": [_axis(name) for name in names],
        "datasets": [
            {
                "path": path,
                "coordinateTransformations": [
                    {"type": "scale", "scale": _factors(shapes[0], shape)}
                ],
            }
            for path, shape in zip(paths, shapes, strict=True)
        ],
    }


def _shape(group: zarr.Group, path: str) -> tuple[int, ...]:
    found = group.get(path)
    if not isinstance(found, zarr.Array):
        raise InputError(f"{group.store_path} lacks the array {path!r} that its metadata names")
    return tuple(found.shape)


def _axis(name: Any) -> Any:
    return {"name": name, "type": _AXIS_TYPES.get(name, "space")} if isinstance(name, str) else name


def _factors(finest: Sequence[int], shape: Sequence[int]) -> list[float]:
    """Whole numbers: a level of an odd size is rounded up or down."""
    return [
        float(max(round(full / size), 1)) if size else 1.0
        for full, size in zip(finest, shape, strict=True)
    ]


def images_in(group: zarr.Group) -> list[str]:
    """Paths of the images of a plate, or of a collection that bioformats2raw wrote; or none."""
    ome = _ome(group)
    if "plate" in ome:
        return [path for well in ome["plate"]["wells"] for path in _fields(group, well["path"])]
    if "bioformats2raw.layout" in ome:
        return list(_series(group))
    return []


def _ome(group: zarr.Group) -> Mapping[str, Any]:
    attributes: Any = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def _fields(plate: zarr.Group, well: str) -> Iterator[str]:
    """The images of a well, as it lists them, or else those that are there; perhaps none."""
    group = plate.get(well)
    listed = _ome(group).get("well") if isinstance(group, zarr.Group) else None
    if listed:
        yield from (f"{well}/{image['path']}" for image in listed["images"])
    else:
        yield from _numbered(plate, f"{well}/")


def _series(group: zarr.Group) -> Iterator[str]:
    """As the group OME names them, or else the groups 0, 1, 2, ..."""
    about = group.get("OME")
    named = _ome(about).get("series") if isinstance(about, zarr.Group) else None
    if named:
        yield from map(str, named)
    else:
        yield from _numbered(group, "")


def _numbered(group: zarr.Group, prefix: str) -> Iterator[str]:
    """The groups 0, 1, 2, ... as far as they go."""
    number = 0
    while isinstance(group.get(f"{prefix}{number}"), zarr.Group):
        yield f"{prefix}{number}"
        number += 1


def array_as_image(store: Store, array: zarr.Array, axes: str | None, location: str) -> zarr.Group:
    """A plain array as an image of one level.

    Args:
        store: that holds the array at its root.
        array: what is in it.
        axes: their names in the order of the array, of t, c, z, y, x; None for those that the
            array itself tells, or y and x.
        location: for messages.

    Raises:
        InputError: if nobody tells the axes, or they do not fit.
    """
    names = _axes_of(array, axes, location)
    multiscale = {
        "axes": [_axis(name) for name in names],
        "datasets": [
            {
                "path": _LEVEL,
                "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(names)}],
            }
        ],
    }
    version = array.metadata.zarr_format
    if version == 3:
        ome = {"version": "0.5", "multiscales": [multiscale]}
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        documents: dict[str, Any] = {"zarr.json": group}
    else:
        documents = {
            ".zgroup": {"zarr_format": 2},
            ".zattrs": {"multiscales": [{"version": "0.4", **multiscale}]},
        }
    around = ArrayStore(store, {key: json.dumps(text) for key, text in documents.items()})
    return zarr.open_group(around, mode="r", zarr_format=version, use_consolidated=False)


def _axes_of(array: zarr.Array, axes: str | None, location: str) -> str:
    told = axes if axes is not None else _told_axes(array)
    if told is None and array.ndim == 2:
        return "yx"
    if told is None:
        raise InputError(
            f"{location} is a plain Zarr array of shape {array.shape} that does not say what its "
            "axes are; name them in this order, as --axes cyx"
        )
    in_order = "".join(name for name in "tczyx" if name in told)
    if len(told) != array.ndim or told != in_order or not told.endswith("yx"):
        raise InputError(
            f"{location} is a plain Zarr array of shape {array.shape}, which the axes {told} do "
            "not fit; needed is one for each size, any of t, c, z and then y, x, as --axes cyx"
        )
    return told


def _told_axes(array: zarr.Array) -> str | None:
    """The names of Zarr 3, or those that xarray writes; None if one of them is not known."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not names or not all(isinstance(name, str) for name in names):
        return None
    letters = [_AXIS_NAMES.get(name.lower(), name.lower()) for name in names]
    return "".join(letters) if all(letter in _AXIS_TYPES for letter in letters) else None


class ArrayStore(WrapperStore[Store]):  # type: ignore[misc]
    """A store with an array at its root, shown as a group around it.

    Args:
        store: with the array.
        documents: metadata of the group, JSON texts by key.
    """

    def __init__(self, store: Store, documents: Mapping[str, str]) -> None:
        super().__init__(store)
        self._documents = dict(documents)

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._documents)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """As of any store."""
        if key in self._documents:
            return prototype.buffer.from_bytes(self._documents[key].encode())
        level, separator, rest = key.partition("/")
        if level != _LEVEL or not separator:
            return None
        return await self._store.get(rest, prototype, byte_range)
