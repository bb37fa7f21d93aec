"""Who drives a run whose ledger is in an object store, and where its records go.

There is no lock that ends with its process, and nothing can be appended to. So::

    drivers/0001              made exclusively; its driver writes it again every 15 s
    tiles-0001-000001.jsonl   records that became durable together; written once

A driver that has not written for a minute, by the store's own clock, counts as dead; at once, if
it ran on this machine and its process is gone.
"""

import json
import os
import socket
import threading
import uuid
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from tilesegment.errors import OutputError, StoreError
from tilesegment.storage.buckets import delete, put, put_new, write_failed
from tilesegment.storage.objects import newest_number
from tilesegment.storage.remote import NoAnswerError, RemotePath

BEAT_SECONDS = 15.0
LEASE = timedelta(seconds=60)


class LeasedJournal:
    """The records of one driver, which it alone writes as long as it is the newest.

    Args:
        directory: the ledger.

    Raises:
        OutputError: if another driver begins at the same time.
    """

    patience_seconds = 2.0
    """So long records may wait for others: each batch is an object."""

    def __init__(self, directory: RemotePath) -> None:
        self._directory = directory
        self._drivers = directory / "drivers"
        self._number = newest_number(self._drivers) + 1
        self._claim = {"process": os.getpid(), "host": socket.gethostname(), "machine": _machine()}
        self._place = self._drivers / f"{self._number:04}"
        self._begin()
        self._batches = 0
        self._stop = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    def _begin(self) -> None:
        claim = json.dumps({**self._claim, "token": uuid.uuid4().hex}).encode()
        if not put_new(self._place, claim) and self._place.read_bytes() != claim:
            raise OutputError(
                f"another run has just begun to write {self._directory.parent}; wait for it"
            )

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with suppress(NoAnswerError, StoreError):
                if not self.is_newest:
                    return
                put(self._place, json.dumps(self._claim).encode())

    @property
    def is_newest(self) -> bool:
        """Whether no other driver has taken the run over, or ended it."""
        return newest_number(self._drivers) == self._number

    @property
    def closed(self) -> bool:
        return self._stop.is_set()

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
        """Let the next driver begin at once."""
        if self.closed:
            return
        self._stop.set()
        self._beating.join()
        with suppress(NoAnswerError, StoreError):
            if self.is_newest:
                put(self._place, json.dumps({**self._claim, "ended": True}).encode())


def living_driver(directory: RemotePath) -> str | None:
    """What is known of the driver that is at work on the run of a ledger; None if none is."""
    drivers = directory / "drivers"
    number = newest_number(drivers)
    if not number:
        return None
    place = drivers / f"{number:04}"
    try:
        claim: dict[str, Any] = json.loads(place.read_bytes())
    except FileNotFoundError:
        return None
    if claim.get("ended") or _is_gone(claim):
        return None
    silent = _now(directory) - next(
        item.changed for item in drivers.objects() if item.path == place
    )
    if silent > LEASE:
        return None
    return (
        f"process {claim['process']} on {claim['host']}, last heard of {silent.seconds} s ago; "
        f"it counts as dead after {LEASE.seconds} s"
    )


def _now(directory: RemotePath) -> Any:
    """The time by the store's clock."""
    path = directory / f"clock-{uuid.uuid4().hex}"
    put(path, b"")
    try:
        return next(item.changed for item in directory.objects() if item.path == path)
    finally:
        delete([path])


def _is_gone(claim: dict[str, Any]) -> bool:
    if claim["machine"] != _machine():
        return False
    try:
        os.kill(claim["process"], 0)
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
