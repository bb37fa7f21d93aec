"""Which chunks an image has when a run begins: what is lost later is an error, not background."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import zarr

from tilesegment.errors import InputError
from tilesegment.storage.objects import write_document


@dataclass(frozen=True)
class Inventory:
    """The stored objects of one level."""

    objects: int
    """Chunks that are there; shards, where the level has them."""
    sizes: str
    """SHA-256 over their keys and sizes."""
    times: str
    """SHA-256 over their keys and the times of their last change."""
    absent: tuple[str, ...]
    """Keys of the chunks that are not there: by the Zarr specification they are background."""


def take_inventory(array: zarr.Array, root: Path) -> Inventory:
    """Look at every object of a level; reads no pixels.

    Args:
        array: the level.
        root: of the store.

    Raises:
        InputError: if an object lies outside the store, behind a symbolic link.
    """
    sizes, times = hashlib.sha256(), hashlib.sha256()
    present, absent = 0, []
    inside = _Inside(root)
    for key in object_keys(array):
        try:
            found = inside.status(key)
        except (FileNotFoundError, NotADirectoryError):
            absent.append(key)
            continue
        present += 1
        sizes.update(f"{key} {found.st_size}\n".encode())
        times.update(f"{key} {found.st_mtime_ns}\n".encode())
    return Inventory(present, sizes.hexdigest(), times.hexdigest(), tuple(absent))


def write_absent(folder: Path, inventory: Inventory) -> Path:
    """Write down what may be missing, for a `StrictStore`; returns the file."""
    path = folder / f"absent-{inventory.sizes[:12]}.json"
    write_document(path, json.dumps(inventory.absent))
    return path


def object_keys(array: zarr.Array) -> Iterator[str]:
    """The keys of all objects that an array can have, relative to its store."""
    steps = array.shards or array.chunks
    counts = [-(-size // step) for size, step in zip(array.shape, steps, strict=True)]
    for position in product(*map(range, counts)):
        key = array.metadata.encode_chunk_key(position)
        yield f"{array.path}/{key}" if array.path else key


class _Inside:
    """Files of a store that lie below its root; each directory is looked at once."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._seen: set[str] = set()

    def status(self, key: str) -> os.stat_result:
        path = self._root / key
        folder = str(path.parent)
        if folder not in self._seen:
            self._refuse_outside(path.parent)
            self._seen.add(folder)
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            self._refuse_outside(path)
            return path.stat()
        return found

    def _refuse_outside(self, path: Path) -> None:
        target = path.resolve()
        if not target.is_relative_to(self._root):
            raise InputError(
                f"{path} is a symbolic link to {target}, outside the image; copy it into the image"
            )
