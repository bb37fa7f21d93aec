"""Which chunks an image has when a run begins: what is lost later is an error, not background."""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import zarr

from tilesegment.errors import InputError, StoreError
from tilesegment.storage.media import medium_of
from tilesegment.storage.remote import Location, NoAnswerError, RemotePath


@dataclass(frozen=True)
class Inventory:
    """The stored objects of one level."""

    objects: int
    """Chunks that are there; shards, where the level has them."""
    sizes: str
    """SHA-256 over their keys and sizes."""
    times: str
    """SHA-256 over their keys and the times of their last change; their tags, in object stores."""
    absent: tuple[str, ...]
    """Keys of the chunks that are not there: by the Zarr specification they are background."""


def take_inventory(array: zarr.Array, root: Location) -> Inventory:
    """Look at every object of a level; reads no pixels.

    Args:
        array: the level.
        root: of the store.

    Raises:
        InputError: if an object lies outside the store, behind a symbolic link.
    """
    sizes, times = hashlib.sha256(), hashlib.sha256()
    if isinstance(root, RemotePath) and root.is_web:
        # Nothing is listed there; to ask for each chunk would take longer than to read many.
        sizes.update(json.dumps(array.metadata.to_dict(), default=str).encode())
        return Inventory(0, sizes.hexdigest(), times.hexdigest(), ())
    present, absent = 0, []
    look = _listed(root, array.path) if isinstance(root, RemotePath) else _Inside(root).look
    for key in object_keys(array):
        found = look(key)
        if found is None:
            absent.append(key)
            continue
        size, changed = found
        present += 1
        sizes.update(f"{key} {size}\n".encode())
        times.update(f"{key} {changed}\n".encode())
    return Inventory(present, sizes.hexdigest(), times.hexdigest(), tuple(absent))


def _listed(root: RemotePath, array: str) -> Callable[[str], tuple[int, str] | None]:
    """Size and tag of each object of an array, by key relative to the store.

    Raises:
        InputError: if they may not be listed.
    """
    folder = root / array
    try:
        found = {
            str(item.path.relative_to(root)): (item.size, item.tag) for item in folder.objects()
        }
    except (StoreError, NoAnswerError) as error:
        raise InputError(
            f"the chunks of {folder} cannot be listed, so that a lost one could not be told from "
            f"background: {error}"
        ) from error
    return found.get


def write_absent(folder: Location, inventory: Inventory) -> Location:
    """Write down what may be missing, for a `StrictStore`; returns the file."""
    path = folder / f"absent-{inventory.sizes[:12]}.json"
    medium_of(path).write_document(path, json.dumps(inventory.absent))
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

    def look(self, key: str) -> tuple[int, int] | None:
        """Size and time of change; None if there is no such file."""
        try:
            found = self._status(key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size, found.st_mtime_ns

    def _status(self, key: str) -> os.stat_result:
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
