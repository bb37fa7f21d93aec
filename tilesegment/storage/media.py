"""The one seam between the two kinds of storage that labels can lie in."""

from collections.abc import Callable
from typing import Any, Protocol

from tilesegment.errors import IncompleteError, OutputError
from tilesegment.storage import buckets, lease, locks, objects
from tilesegment.storage.objects import Publishing, StoredObject
from tilesegment.storage.remote import Location, RemotePath


class Claim(Protocol):
    """What shows that a driver is alive, until it is closed or the process ends."""

    @property
    def closed(self) -> bool: ...

    def take(self, number: int) -> bool:
        """Become the driver of this number; False if there is one."""

    def close(self) -> None: ...


class Journal(Protocol):
    """Where a driver's records become durable."""

    patience_seconds: float
    """So long records may wait for others, so that they become durable together."""

    def append(self, text: str) -> None:
        """Make records durable; raises OutputError or IncompleteError."""

    def close(self) -> None: ...


class Medium(Protocol):
    """How objects are made on one kind of storage; documented in `objects` and `buckets`."""

    can_rename: bool
    """Whether a finished label image can be put in the place of another at once."""

    def create(
        self, root: Any, key: str, content: bytes, publishing: Publishing
    ) -> StoredObject: ...
    def settle(self, root: Any, stored: StoredObject) -> StoredObject: ...
    def choose_publishing(self, root: Any) -> Publishing: ...
    def prepare(self, root: Any) -> None: ...
    def write_document(self, path: Any, text: str) -> None: ...
    def write_once(self, path: Any, text: str) -> None: ...
    def write_failed(
        self, error: OSError, directory: Any, needed: int = 0
    ) -> OutputError | IncompleteError: ...
    def sizes(self, directory: Any) -> Callable[[str], int | None]: ...
    def unlink(self, path: Any) -> None: ...
    def end_ledger(self, directory: Any, keep_as: Any) -> None: ...
    def open_claim(self, folder: Any, text: str) -> Claim: ...
    def open_journal(self, directory: Any, number: int) -> Journal: ...
    def is_alive(self, path: Any) -> bool: ...
    def changed(self, directory: Any) -> float: ...


class _Disk:
    can_rename = True
    create = staticmethod(objects.create)
    settle = staticmethod(objects.settle)
    choose_publishing = staticmethod(objects.choose_publishing)
    prepare = staticmethod(objects.make_aside)
    write_document = staticmethod(objects.write_document)
    write_once = staticmethod(objects.write_once)
    write_failed = staticmethod(objects.write_failed)
    sizes = staticmethod(objects.sizes)
    unlink = staticmethod(objects.unlink)
    end_ledger = staticmethod(locks.end_ledger)
    open_claim = staticmethod(locks.Lock)
    open_journal = staticmethod(locks.FileJournal)
    is_alive = staticmethod(locks.is_alive)
    changed = staticmethod(objects.changed)


class _Bucket:
    can_rename = False
    create = staticmethod(buckets.create)
    settle = staticmethod(buckets.settle)
    choose_publishing = staticmethod(buckets.choose_publishing)
    prepare = staticmethod(buckets.prepare)
    write_document = staticmethod(buckets.write_document)
    write_once = staticmethod(buckets.write_once)
    write_failed = staticmethod(buckets.write_failed)
    sizes = staticmethod(buckets.sizes)
    unlink = staticmethod(buckets.unlink)
    end_ledger = staticmethod(buckets.end_ledger)
    open_claim = staticmethod(lease.Lease)
    open_journal = staticmethod(lease.BatchJournal)
    is_alive = staticmethod(lease.is_alive)
    changed = staticmethod(buckets.changed)


_DISK: Medium = _Disk()
_BUCKET: Medium = _Bucket()


def medium_of(location: Location) -> Medium:
    """What writes at a place."""
    return _BUCKET if isinstance(location, RemotePath) else _DISK
