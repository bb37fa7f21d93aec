"""Which pieces of an image are stored: what is absent need not be asked for."""

import operator
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.sync import sync

from tilesegment.geometry import YX

_INDICES = re.compile(r"(?:c[./])?(\d+(?:[./]\d+)*)")
"""Of a chunk in its key: "c/0/3/1" in Zarr 3, "0.3.1" or "0/3/1" in Zarr 2."""


@dataclass(frozen=True)
class Inventory:
    """The stored objects of one level: shards, or chunks where the array is not sharded."""

    present: npt.NDArray[np.bool_]
    """(plane, row, column) of the objects, from `first` on; present if any channel is."""
    size: YX
    """Pixels per object."""
    first: YX = YX(0, 0)  # noqa: RUF009 - immutable
    """Row and column of the first object that is listed here."""

    def is_absent(self, plane: int, rows: slice, columns: slice) -> bool:
        """Whether nothing is stored of a rectangle of pixels inside the image."""
        down, right = self._objects(rows, columns)
        return not self.present[plane, down, right].any()

    def cut(self, rows: slice, columns: slice) -> "Inventory":
        """What is known of a rectangle of pixels, small enough to travel with a task."""
        down, right = self._objects(rows, columns)
        first = YX(self.first.y + down.start, self.first.x + right.start)
        return Inventory(self.present[:, down, right].copy(), self.size, first)

    def _objects(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """Where the objects that hold some of the pixels stand in `present`."""
        first, size = self.first, self.size
        return (
            slice(rows.start // size.y - first.y, -(-rows.stop // size.y) - first.y),
            slice(columns.start // size.x - first.x, -(-columns.stop // size.x) - first.x),
        )


def take_inventory(
    array: zarr.Array, channel_axis: int | None, leading: tuple[int, ...]
) -> Inventory | None:
    """List an array's stored objects, in one go.

    Args:
        array: one level.
        channel_axis: of the array; None if it has none.
        leading: its axes that are flattened into planes.

    Returns:
        None if none is absent, as with most images.
    """
    sizes = array.shards or array.chunks
    counts = tuple(-(-length // size) for length, size in zip(array.shape, sizes, strict=True))
    present = np.zeros(counts, bool)
    for indices in _listed(array):
        # A store may hold more than the array: what was cut off by making it smaller.
        if len(indices) == len(counts) and all(map(operator.lt, indices, counts)):
            present[indices] = True
    if present.all():
        return None
    if channel_axis is not None:
        present = np.logical_or.reduce(present, axis=channel_axis, keepdims=True)
    by_plane: npt.NDArray[np.bool_] = present
    for axis in leading:
        by_plane = by_plane.repeat(sizes[axis], axis).take(range(array.shape[axis]), axis)
    planes = prod(array.shape[axis] for axis in leading)
    return Inventory(by_plane.reshape(planes, *counts[-2:]), YX(*sizes[-2:]))


def _listed(array: zarr.Array) -> list[tuple[int, ...]]:
    """Indices of the objects in an array's store."""
    prefix = f"{array.path}/" if array.path else ""
    keys = sync(_collect(array.store.list_prefix(prefix)))
    found = (_INDICES.fullmatch(key.removeprefix(prefix)) for key in keys)
    return [tuple(map(int, re.split("[./]", match[1]))) for match in found if match]


async def _collect(keys: AsyncIterator[str]) -> list[str]:
    return [key async for key in keys]
