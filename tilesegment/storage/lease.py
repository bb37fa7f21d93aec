"""In an object store: that a driver is alive, and where its records go.

There is no lock that ends with its process, and nothing can be appended to. So::

    drivers/0001              made exclusively; its driver writes it again every 15 s
    tiles-0001-000001.jsonl   records that became durable together; written once

A driver that has not written for a minute, by the store's own clock, counts as dead; at once, if
it ran on this machine and its process is gone.
"""

import json
import os
import threading
import uuid
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tilesegment.errors import StoreError
from tilesegment.storage.buckets import delete, put, put_new, write_failed
from tilesegment.storage.remote import NoAnswerError, RemotePath

BEAT_SECONDS = 15.0
LEASE = timedelta(seconds=60)


class Lease:
    """A driver's object, which it writes again and again until it ends.

    Args:
        folder: of the drivers.
        text: what the object says first; then what tells whether the process is there.
    """

    def __init__(self, folder: RemotePath, text: str) -> None:
        self._folder, self._text = folder, f"{text}, alive less than {LEASE.seconds} s ago"
        self._facts = {"process": os.getpid(), "machine": _machine(), "token": uuid.uuid4().hex}
        self._place: RemotePath | None = None
        self._stop = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def take(self, number: int) -> bool:
        """Make the object of this number; False if there is one."""
        place, content = self._folder / f"{number:04}", self._content()
        if not put_new(place, content) and place.read_bytes() != content:
            return False
        self._place = place
        self._beating.start()
        return True

    def _content(self, **more: Any) -> bytes:
        return f"{self._text}\n{json.dumps({**self._facts, **more})}".encode()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with suppress(NoAnswerError, StoreError):
                self._write()

    def _write(self, **more: Any) -> None:
        """Unless the run was ended meanwhile: nothing of it may come back."""
        if self._place is not None and self._place.is_file():
            put(self._place, self._content(**more))

    @property
    def closed(self) -> bool:
        return self._stop.is_set()

    def close(self) -> None:
        """Let the next driver begin at once."""
        if self.closed:
            return
        self._stop.set()
        if self._place is not None:
            self._beating.join()
            with suppress(NoAnswerError, StoreError):
                self._write(ended=True)


class BatchJournal:
    """The records of one driver.

    Args:
        directory: the ledger.
        number: of the driver.
    """

    patience_seconds = 2.0
    """So long records may wait for others: each batch is an object."""

    def __init__(self, directory: RemotePath, number: int) -> None:
        self._directory, self._number = directory, number
        self._batches = 0

    def append(self, text: str) -> None:
        """Make records durable.

        Raises:
            IncompleteError: if the store does not answer.
        """
        self._batches += 1
        path = self._directory / f"tiles-{self._number:04}-{self._batches:06}.jsonl"
        try:
            put(path, text.encode())
        except OSError as error:
            raise write_failed(error, self._directory) from error

    def close(self) -> None:
        """There is nothing to close."""


def is_alive(path: RemotePath) -> bool:
    """Whether the driver of an object is at work."""
    try:
        facts: dict[str, Any] = json.loads(path.read_text().partition("\n")[2])
    except FileNotFoundError:
        # The run was ended meanwhile.
        return False
    if facts.get("ended") or _is_gone(facts):
        return False
    changed = _changed(path)
    return changed is not None and _now(path.parent.parent) - changed <= LEASE


def _changed(path: RemotePath) -> datetime | None:
    """When an object was last written, by the store's clock; None if it is gone."""
    return next((item.changed for item in path.parent.objects() if item.path == path), None)


def _now(directory: RemotePath) -> datetime:
    """The time by the store's clock."""
    path = directory / f"clock-{uuid.uuid4().hex}"
    put(path, b"")
    try:
        return next(item.changed for item in directory.objects() if item.path == path)
    finally:
        delete([path])


def _is_gone(facts: dict[str, Any]) -> bool:
    if facts["machine"] != _machine():
        return False
    try:
        os.kill(facts["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _machine() -> str:
    """What differs between machines, their starts, and containers with processes of their own."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return uuid.uuid4().hex
