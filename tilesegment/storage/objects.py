"""Objects on a disk: made once, whole or not at all, and durable when the call returns.

A worker may be frozen, be given up, and wake when another has done its tile. So an object is
created exclusively: whoever comes second finds it there and leaves it as it is. The bytes
go to a file aside first, which is synchronised and then linked to the object's name. Files
aside lie in the run's ledger; once that is gone, nobody can write any more.
"""

import errno
import hashlib
import json
import os
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from tilesegment.errors import IncompleteError, OutputError
from tilesegment.retry import Backoff, is_transient, retried
from tilesegment.storage.remote import Location

Result = TypeVar("Result")

LEDGER_NAME = ".tilesegment"
"""Of the directory in a label image that records an unfinished run."""
PROVENANCE_KEY = "tilesegment"
"""Of the attribute of a label image that says how it was made."""
ASIDE_NAME = "aside"
"""Of the directory in it where files lie until they get their name."""

Publishing = Literal["link", "driver", "replace"]
"""How an object gets its name.

link: by its worker, exclusively. driver: by the run's driver alone, where the file system
has no hard links. replace: by its worker, in place of a damaged one (`run --repair`).
"""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What was stored under a key."""

    key: str
    """Relative to the label image, with slashes."""
    size: int
    """Bytes, as stored."""
    sha256: str
    """Of the bytes, in hexadecimal."""
    aside: str | None = None
    """Name of the file aside, while the object waits for the driver to give it its name."""


def describe(key: str, content: bytes) -> StoredObject:
    """What `content` is when it is stored under `key`."""
    return StoredObject(key, len(content), hashlib.sha256(content).hexdigest())


def create(root: Path, key: str, content: bytes, publishing: Publishing) -> StoredObject:
    """Store an object, unless there is one under this key already.

    Args:
        root: the label image.
        key: relative to it.
        content: the object's bytes.
        publishing: how it gets its name.

    Returns:
        What is stored now: with "link" and "driver" what came first, whoever wrote it.

    Raises:
        OSError: if it cannot be written.
    """
    path = root / key
    if publishing != "replace" and path.exists():
        return describe(key, path.read_bytes())
    stored = describe(key, content)
    aside = root / LEDGER_NAME / ASIDE_NAME / uuid.uuid4().hex
    _write_aside(aside, content)
    if publishing == "driver":
        return replace(stored, aside=aside.name)
    if _name(aside, path, exclusively=publishing == "link"):
        return stored
    return describe(key, path.read_bytes())


def settle(root: Path, stored: StoredObject) -> StoredObject:
    """Give an object its name, if its worker could not; only the driver may call this."""
    if stored.aside is None:
        return stored
    path, aside = root / stored.key, root / LEDGER_NAME / ASIDE_NAME / stored.aside
    if path.exists():
        aside.unlink(missing_ok=True)
        return describe(stored.key, path.read_bytes())
    _name(aside, path, exclusively=False)
    return replace(stored, aside=None)


def _name(aside: Path, path: Path, *, exclusively: bool) -> bool:
    """Give a file aside its final name; False if that is taken, and what is there stays."""
    _make_directories(path.parent)
    try:
        if exclusively:
            os.link(aside, path)
        else:
            aside.replace(path)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    synchronise(path.parent)
    return True


def _write_aside(aside: Path, content: bytes) -> None:
    try:
        with aside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def patiently(
    action: Callable[[], Result], worth: Callable[[BaseException], bool] = is_transient
) -> Result:
    """The result of reading or writing, tried again when a disk or network hiccups."""
    return retried(action, Backoff(), time.sleep, random.random, worth)


def can_link(root: Path) -> bool:
    """Whether the file system creates names exclusively; tried, not guessed.

    Raises:
        OSError: if nothing can be written at all.
    """
    aside = root / LEDGER_NAME / ASIDE_NAME
    first, second = aside / f"probe-{uuid.uuid4().hex}", aside / f"probe-{uuid.uuid4().hex}"
    first.write_bytes(b"")
    try:
        os.link(first, second)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    else:
        return _is_refused(first, second)
    finally:
        first.unlink()
        second.unlink(missing_ok=True)


def _is_refused(source: Path, taken: Path) -> bool:
    try:
        os.link(source, taken)
    except FileExistsError:
        return True
    return False


def choose_publishing(root: Path) -> Publishing:
    """Workers name their objects themselves, where the file system can do so exclusively.

    Raises:
        OSError: if nothing can be written at all.
    """
    return "link" if can_link(root) else "driver"


def make_aside(root: Path) -> None:
    """The directory for files aside, empty: what a dead worker left there is of no use."""
    directory = root / LEDGER_NAME / ASIDE_NAME
    directory.mkdir(parents=True, exist_ok=True)


def write_document(path: Path, text: str) -> None:
    """As `write_whole`."""
    write_whole(path, text.encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file durably, so that it is either absent or whole; replaces it.

    Raises:
        OutputError, IncompleteError: if it cannot be written.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        _make_directories(path.parent)
        _write_aside(partial, content)
        partial.replace(path)
        synchronise(path.parent)
    except OSError as error:
        raise write_failed(error, path.parent, len(content)) from error


def write_once(path: Path, text: str) -> None:
    """Write a small file, unless there is one; of several writers one succeeds."""
    if path.exists():
        return
    aside = path.with_name(f"{uuid.uuid4().hex}.{path.suffix[1:]}.aside")
    write_document(aside, text)
    try:
        os.link(aside, path)
    except FileExistsError:
        return
    except OSError:
        # No hard links here.
        aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)
    synchronise(path.parent)


def unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def sizes(directory: Path) -> Callable[[str], int | None]:
    """Bytes of each file below a directory, by its relative path."""

    def size(key: str) -> int | None:
        try:
            return (directory / key).stat().st_size
        except FileNotFoundError:
            return None

    return size


def changed(directory: Path) -> float:
    """When a file right in a directory was last written; seconds since the epoch."""
    return max(path.stat().st_mtime for path in directory.iterdir() if path.is_file())


def read_document(path: Location) -> dict[str, Any] | None:
    """A JSON object; None if there is no such file.

    Raises:
        OutputError: if it cannot be read, or is damaged.
    """
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{path} is damaged ({error}); mend or remove it") from error
    if not isinstance(document, dict):
        raise OutputError(f"{path} is damaged (not a JSON object); mend or remove it")
    return document


def _make_directories(directory: Path) -> None:
    """As mkdir -p, and durable."""
    if directory.is_dir():
        return
    _make_directories(directory.parent)
    directory.mkdir(exist_ok=True)
    synchronise(directory.parent)


def synchronise(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_failed(error: OSError, directory: Path, needed: int = 0) -> OutputError | IncompleteError:
    """The error that a failed write becomes: what it means, and what to do.

    Args:
        error: of the system.
        directory: where something was to be written.
        needed: bytes that were to be written.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return IncompleteError(
            f"no space left for {directory} ({error.strerror}): {_shortage(directory, needed)}; "
            "free some and run the same command again: finished tiles are kept"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(
            f"no permission to write {directory}; choose another place with --output"
        )
    return OutputError(f"cannot write {directory}: {error}")


def _shortage(directory: Path, needed: int) -> str:
    """Which file system is full, and by how many bytes at least."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    system = next(path for path in (existing, *existing.parents) if path.is_mount())
    usage = os.statvfs(existing)
    free = usage.f_bavail * usage.f_frsize
    missing = max(needed - free, 0)
    if not missing:
        return f"{system} has {free} bytes free, but a quota or limit forbids {needed} more"
    return f"{system} has {free} bytes free, the next object needs {missing} more"
