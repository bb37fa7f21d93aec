"""Objects in an object store: made once, whole or not at all; what `objects` is for a disk.

A PUT is whole and durable when it is answered. Exclusively made means `If-None-Match: *`: of two
workers one is refused (412). Where the reply to a PUT is lost, the second try is refused by the
first one's success: so whoever is refused reads what is there, and equal content is its own.

Stores that do not know conditional PUT are found out by a trial at the start of a run. There,
workers store their objects aside, and the driver alone copies them to their keys. What is lost:
two drivers that are begun in the same second are not told apart.
"""

import logging
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

from tilesegment.errors import IncompleteError, OutputError
from tilesegment.storage.objects import (
    ASIDE_NAME,
    LEDGER_NAME,
    Publishing,
    StoredObject,
    describe,
)
from tilesegment.storage.remote import (
    NoAnswerError,
    RemotePath,
    UnsupportedError,
    answered,
    store_of,
)

_logger = logging.getLogger(__name__)

_DELETED_AT_ONCE = 1000
_ROOT_DOCUMENTS = ("zarr.json", ".zattrs", ".zgroup", ".zmetadata")


def create(root: RemotePath, key: str, content: bytes, publishing: Publishing) -> StoredObject:
    """Store an object, unless there is one under this key already; as `objects.create`."""
    path, stored = root / key, describe(key, content)
    if publishing == "replace":
        put(path, content)
        return stored
    if publishing == "link":
        return stored if put_new(path, content) else describe(key, path.read_bytes())
    if path.size() is not None:
        return describe(key, path.read_bytes())
    aside = uuid.uuid4().hex
    put(root / LEDGER_NAME / ASIDE_NAME / aside, content)
    return replace(stored, aside=aside)


def settle(root: RemotePath, stored: StoredObject) -> StoredObject:
    """Give an object its key, if its worker could not; only the driver may call this."""
    if stored.aside is None:
        return stored
    path, aside = root / stored.key, root / LEDGER_NAME / ASIDE_NAME / stored.aside
    if path.size() is not None:
        delete([aside])
        return describe(stored.key, path.read_bytes())
    copy(aside, path)
    delete([aside])
    return replace(stored, aside=None)


def choose_publishing(root: RemotePath) -> Publishing:
    """Whether workers can make objects exclusively; tried, not guessed."""
    path = root / LEDGER_NAME / f"probe-{uuid.uuid4().hex}"
    try:
        put_new(path, b"")
        knows = not put_new(path, b"")
    except UnsupportedError:
        knows = False
    finally:
        delete([path])
    if knows:
        return "link"
    _logger.warning(
        "%s://%s does not know conditional PUT: the driver copies each object to its place, "
        "and two runs begun in the same second are not told apart",
        root.scheme, root.bucket,
    )  # fmt: skip
    return "driver"


def prepare(root: RemotePath) -> None:
    """There are no directories to make."""


def write_document(path: RemotePath, text: str) -> None:
    """Write a small object, in place of any that is there.

    Raises:
        IncompleteError: if the store does not answer.
        StoreError: if it refuses.
    """
    try:
        put(path, text.encode())
    except OSError as error:
        raise write_failed(error, path.parent) from error


def write_once(path: RemotePath, text: str) -> None:
    """Write a small object, unless there is one."""
    try:
        put_new(path, text.encode())
    except UnsupportedError:
        if path.size() is None:
            put(path, text.encode())


def write_failed(
    error: OSError, directory: RemotePath, needed: int = 0
) -> OutputError | IncompleteError:
    """The error that a failed write becomes: what it means, and what to do."""
    if isinstance(error, NoAnswerError):
        return IncompleteError(
            f"{error}; run the same command again once it does: finished tiles are kept"
        )
    return OutputError(f"cannot write {directory}: {error}")


def sizes(directory: RemotePath) -> Callable[[str], int | None]:
    """Bytes of each object below a prefix, by key relative to it; listed once."""
    found = {str(item.path.relative_to(directory)): item.size for item in directory.objects()}
    return found.get


def changed(directory: RemotePath) -> float:
    """When an object below a prefix was last written; seconds since the epoch."""
    return max(item.changed for item in directory.objects()).timestamp()


def unlink(path: RemotePath) -> None:
    delete([path])


def remove(directory: RemotePath, keep: Callable[[str], bool] = lambda key: False) -> None:
    """Delete all objects below a prefix, the root's metadata first, but those to keep.

    Args:
        directory: the prefix.
        keep: which, by key relative to it.
    """
    documents = [directory / name for name in _ROOT_DOCUMENTS if not keep(name)]
    delete(documents)
    waiting: list[RemotePath] = []
    for item in directory.objects():
        if not keep(str(item.path.relative_to(directory))):
            waiting.append(item.path)
        if len(waiting) == _DELETED_AT_ONCE:
            delete(waiting)
            waiting = []
    delete(waiting)


def end_ledger(directory: RemotePath, keep_as: RemotePath | None) -> None:
    """Remove the ledger of a run, or keep it elsewhere."""
    if keep_as is not None:
        for item in list(directory.objects()):
            inner = str(item.path.relative_to(directory))
            if not inner.startswith((f"{ASIDE_NAME}/", "drivers/")):
                copy(item.path, keep_as / inner)
    remove(directory)


def put(path: RemotePath, content: bytes) -> None:
    _put(path, content, "overwrite")


def put_new(path: RemotePath, content: bytes) -> bool:
    """Store an object where there is none; False if there is one."""
    try:
        _put(path, content, "create")
    except FileExistsError:
        return False
    return True


def _put(path: RemotePath, content: bytes, mode: Any) -> None:
    import obstore

    # In one request: an upload in parts has no condition.
    answered(
        path,
        lambda: obstore.put(store_of(path), path.key, content, mode=mode, use_multipart=False),
    )


def copy(source: RemotePath, target: RemotePath) -> None:
    import obstore

    answered(source, lambda: obstore.copy(store_of(source), source.key, target.key))


def delete(paths: Collection[RemotePath]) -> None:
    """Delete objects; those that are not there are passed over."""
    import obstore

    keys = [path.key for path in paths]
    for first in list(paths)[:1]:
        answered(first, partial(obstore.delete, store_of(first), keys))
