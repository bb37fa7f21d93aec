"""The one seam between the two kinds of storage that labels can lie in."""

from collections.abc import Callable
from typing import Any, Protocol

from tilesegment.errors import IncompleteError, OutputError
from tilesegment.storage import buckets, lease, locks, objects
from tilesegment.storage.objects import Publishing, StoredObject
from tilesegment.storage.remote import Location, RemotePath


class Journal(Protocol):
    """Where a driver's records become durable."""

    patience_seconds: float
    """So long records may wait for others, so that they become durable together."""

    @property
    def is_newest(self) -> bool:
        """Whether no other driver has taken the run over, or ended it."""

    @property
    def closed(self) -> bool: ...

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
    def open_journal(self, directory: Any) -> Journal: ...
    def living_driver(self, directory: Any) -> str | None: ...


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
    open_journal = staticmethod(locks.LockedJournal)
    living_driver = staticmethod(locks.living_driver)


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
    open_journal = staticmethod(lease.LeasedJournal)
    living_driver = staticmethod(lease.living_driver)


_DISK: Medium = _Disk()
_BUCKET: Medium = _Bucket()


def medium_of(location: Location) -> Medium:
    """What writes at a place."""
    return _BUCKET if isinstance(location, RemotePath) else _DISK
