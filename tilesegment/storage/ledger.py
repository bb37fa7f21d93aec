"""Which tiles are done: what makes a run resumable.

A directory in the unfinished label image holds::

    manifest.json      whose run it is; written once
    drivers/0001       one file per driver that worked on the run: what it does of it, and where
                       it runs; see `locks` and `lease`
    tiles-0001*.jsonl  the tiles that this driver's workers have finished, one line each
    absent.json        chunks that the image lacked when the run began
    aside/             files that do not have their name yet

A tile counts as done when its line is on the disk, which is after its objects were. Each line
starts with a checksum of the rest: a line torn by a crash, or damaged since, is no line.

A driver does the whole run, or one partition of it (`--partition`); partitions of one division
work side by side, all others exclude each other. Of drivers that do, only the one of the highest
number is the run's. `--take-over` makes a new one; the older finds out when it next writes, and
stops. Until then both may work: an object is written once, whoever writes it, so that their
records cannot contradict each other.
"""

import json
import os
import re
import socket
import time
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self

from tilesegment.errors import (
    OutputBusyError,
    OutputConflictError,
    OutputError,
    TilesegmentError,
)
from tilesegment.partition import WHOLE, Partition
from tilesegment.storage.media import Claim, medium_of
from tilesegment.storage.objects import LEDGER_NAME, StoredObject
from tilesegment.storage.remote import Location, locate

_DRIVER = re.compile(r"(\d{4,})(\.taken)?")
"""Names in the folder of drivers; .taken where the file system has no hard links."""
MANIFEST_NAME = "manifest.json"
_MOST_WAITING = 256
"""Records that are written with one synchronisation, at most."""
_READERS = 16
"""Files of records that are read at once."""

Work = Literal["computed", "reused", "masked"]
"""Where a tile's labels come from: the network; an earlier tile of the same single pixel value; or
nowhere, for no pixel is wanted or holds data: all are background."""


@dataclass(frozen=True, slots=True)
class TileRecord:
    """What is known of a finished tile."""

    number: int
    """Of the tile in its grid."""
    counts: tuple[int, ...]
    """Pixels of each class, in the order of the model's classes; of a cleaned tile those that
    changed; otherwise empty."""
    level: int = 0
    """Of the label image's pyramid."""
    objects: tuple[StoredObject, ...] = ()
    """What the tile became in the store; also where all is background."""
    worker: str | None = None
    """Address of the worker that wrote it; not stored."""
    work: Work = "computed"
    seconds: float = 0.0
    """That the network took; not stored."""


@dataclass(frozen=True)
class UnfinishedRun:
    """A run whose labels are not published, as its ledger shows it to an onlooker."""

    fingerprint: Mapping[str, Any]
    done: frozenset[int]
    """Numbers of the finished tiles."""
    updated: float
    """When a tile was last finished, or else the run begun; seconds since the epoch."""


class Ledger:
    """The record of one run; opened by its driver only.

    Args:
        labels_directory: the label image.
        fingerprint: whose run it is; JSON.
        take_over: go on although another driver is at work; that one will stop.
        partition: what this driver does of the run; the one that publishes opens a ledger that
            is there already.
        tiles: numbers of the partition's tiles, of the level that is segmented; None: all tiles
            of all levels.
        clock: in seconds; tells how long records have waited.

    Raises:
        OutputConflictError: on opening, if the tiles in the directory belong to another run.
        OutputBusyError: if another run has it open.
        OutputError: if it cannot be written.
    """

    def __init__(
        self,
        labels_directory: Location,
        fingerprint: Mapping[str, Any],
        *,
        take_over: bool = False,
        partition: Partition = WHOLE,
        tiles: Container[int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.labels = labels_directory
        self.directory = labels_directory / LEDGER_NAME
        self.partition = partition
        self.done: dict[tuple[int, int], TileRecord] = {}
        self.added: set[tuple[int, int]] = set()
        """Level and number of the tiles that this driver has noted."""
        self._waiting: list[TileRecord] = []
        self._peers: set[int] = set()
        """Numbers of drivers that do not end this one."""
        self._medium = medium_of(labels_directory)
        self._clock, self._flushed = clock, clock()
        try:
            if not partition.publishes:
                self._medium.prepare(labels_directory)
                text = json.dumps(dict(fingerprint), indent=2)
                self._medium.write_once(self.directory / MANIFEST_NAME, text)
            refuse_other_run(_read_manifest(labels_directory), fingerprint, labels_directory)
            self._driver, self._claim = _become_driver(labels_directory, partition, take_over)
            self._read(None if tiles is None else (fingerprint["level"], tiles))
            self._journal = self._medium.open_journal(self.directory, self._driver)
        except OSError as error:
            raise self._medium.write_failed(error, labels_directory) from error

    def _read(self, own: tuple[int, Container[int]] | None) -> None:
        """Believe each record whose objects are there, and remove the objects of the others.

        Args:
            own: level and numbers of the tiles that this driver may touch; None for all.
        """
        for record in _all_records(self.directory):
            self.done[record.level, record.number] = record
        size = self._medium.sizes(self.labels) if self.done else None
        for place, record in list(self.done.items()):
            damaged = [item for item in record.objects if size and size(item.key) != item.size]
            if not damaged:
                continue
            del self.done[place]
            if own is None or (record.level == own[0] and record.number in own[1]):
                for item in damaged:
                    self._medium.unlink(self.labels / item.key)

    def believe(self, records: Iterable[TileRecord]) -> None:
        """Take tiles for done that a published label image has; they are not written down."""
        for record in records:
            self.done.setdefault((record.level, record.number), record)

    def finished(self, level: int) -> dict[int, TileRecord]:
        """The tiles of a level that are done, by number."""
        return {number: record for (at, number), record in self.done.items() if at == level}

    def add(self, record: TileRecord) -> None:
        """Note that a tile is done; durable after the next `flush`."""
        try:
            settled = tuple(self._medium.settle(self.labels, item) for item in record.objects)
        except OSError as error:
            raise self._medium.write_failed(error, self.labels) from error
        record = replace(record, objects=settled, worker=None, seconds=0.0)
        self._waiting.append(record)
        self.done[record.level, record.number] = record
        self.added.add((record.level, record.number))
        if len(self._waiting) >= _MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Make all records durable.

        Raises:
            OutputError: if another driver has taken the run over.
            IncompleteError: if the disk is full.
        """
        self._flushed = self._clock()
        self.refuse_successor()
        if not self._waiting:
            return
        self._journal.append("".join(record_line(record) for record in self._waiting))
        self._waiting.clear()

    def rest(self) -> None:
        """Called when no more records are ready for now: makes those that wait durable.

        Where that is costly it is not done more often than every few seconds.
        """
        if self._clock() - self._flushed >= self._journal.patience_seconds:
            self.flush()

    @property
    def is_newest(self) -> bool:
        """Whether no later driver excludes this one."""
        numbers = _driver_numbers(self.labels)
        for number in numbers - self._peers:
            driver = _read_driver(self.labels, number) if number > self._driver else None
            if driver is None:
                continue
            if driver.partition.excludes(self.partition):
                return False
            self._peers.add(number)
        return self._driver in numbers

    def refuse_successor(self) -> None:
        """Stop, if this is no longer the run's driver.

        Raises:
            OutputError: if another driver has taken the run over, or ended it.
        """
        if self.is_newest:
            return
        if self.directory.exists():
            raise OutputError(f"another driver has taken over {self.labels}; this one stops")
        raise OutputError(f"another run has finished or removed {self.labels}; this one stops")

    def remove(self, keep_as: Location | None = None) -> None:
        """End the run, once its labels are published.

        Args:
            keep_as: where to keep the ledger; None deletes it.
        """
        self.close()
        self._medium.end_ledger(self.directory, keep_as)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._claim.closed:
            return
        try:
            self.flush()
        except (TilesegmentError, OSError):
            if error is None:
                raise
        finally:
            self.close()

    def close(self) -> None:
        self._journal.close()
        self._claim.close()


@dataclass(frozen=True)
class _Driver:
    """A driver that worked on a run, or still does."""

    number: int
    partition: Partition
    where: str
    """Process and host, for people."""
    path: Location


def _folder_of_drivers(labels_directory: Location) -> Location:
    return labels_directory / LEDGER_NAME / "drivers"


def _driver_numbers(labels_directory: Location) -> set[int]:
    """Numbers of all drivers that a run had, and of those that died before they had a file."""
    try:
        names = [path.name for path in _folder_of_drivers(labels_directory).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {int(found[1]) for name in names if (found := _DRIVER.fullmatch(name))}


def _read_driver(labels_directory: Location, number: int) -> _Driver | None:
    """A driver; None if it died before it had a file, or the run was ended meanwhile."""
    path = _folder_of_drivers(labels_directory) / f"{number:04}"
    try:
        partition, _, where = path.read_text().partition("\n")[0].partition(" ")
    except FileNotFoundError:
        return None
    return _Driver(number, Partition(*map(int, partition.split("/"))), where, path)


def _drivers(labels_directory: Location) -> list[_Driver]:
    """All drivers that a run had, the oldest first."""
    numbers = sorted(_driver_numbers(labels_directory))
    found = (_read_driver(labels_directory, number) for number in numbers)
    return [driver for driver in found if driver is not None]


def _become_driver(
    labels_directory: Location, partition: Partition, take_over: bool
) -> tuple[int, Claim]:
    """The number of a new driver, and what shows that it is alive.

    Whoever has a number has seen all lower ones.

    Raises:
        OutputBusyError: if another driver is at work that this one excludes.
    """
    where = f"{partition} process {os.getpid()} on {socket.gethostname()}"
    claim = medium_of(labels_directory).open_claim(_folder_of_drivers(labels_directory), where)
    try:
        while True:
            number = 1 + max(_driver_numbers(labels_directory), default=0)
            if not take_over:
                refuse_living_driver(labels_directory, partition)
            if claim.take(number):
                return number, claim
    except BaseException:
        claim.close()
        raise


def _living_driver(labels_directory: Location, partition: Partition) -> _Driver | None:
    """A driver at work that excludes `partition`, and was not taken over."""
    drivers, is_alive = _drivers(labels_directory), medium_of(labels_directory).is_alive
    for position, driver in enumerate(drivers):
        later = drivers[position + 1 :]
        current = not any(other.partition.excludes(driver.partition) for other in later)
        if current and driver.partition.excludes(partition) and is_alive(driver.path):
            return driver
    return None


def has_living_driver(labels_directory: Location) -> bool:
    """Whether anybody is at work on a run."""
    return _living_driver(labels_directory, WHOLE) is not None


def refuse_living_driver(labels_directory: Location, partition: Partition = WHOLE) -> None:
    """Refuse labels that another run is writing.

    Raises:
        OutputBusyError: if there is a driver at work that excludes `partition`.
    """
    living = _living_driver(labels_directory, partition)
    if living is not None:
        part = "" if living.partition == WHOLE else f"partition {living.partition}, "
        raise OutputBusyError(
            f"another run is writing {labels_directory} ({part}{living.where}); wait for it, use "
            "another --labels name, or stop it with --take-over"
        )


def clear_finished(labels_directory: Location) -> None:
    """Remove the ledger of published labels, if its driver died before it could."""
    medium = medium_of(labels_directory)
    if not medium.can_rename:
        # What is there is of a run that is to replace the labels; see `replacing`.
        return
    if _drivers(labels_directory) and _living_driver(labels_directory, WHOLE) is None:
        medium.end_ledger(labels_directory / LEDGER_NAME, None)


def record_line(record: TileRecord) -> str:
    """A record as a line: a checksum of the rest, and JSON."""
    entry = {
        "level": record.level,
        "tile": record.number,
        "counts": record.counts,
        "objects": [[item.key, item.size, item.sha256] for item in record.objects],
        "work": record.work,
    }
    text = json.dumps(entry)
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def _all_records(directory: Location) -> Iterator[TileRecord]:
    """The records of all drivers, the oldest first."""
    journals = sorted(map(str, directory.glob("tiles-*.jsonl")))
    with ThreadPoolExecutor(_READERS) as executor:
        for records in executor.map(lambda path: list(read_records(locate(path))), journals):
            yield from records


def read_records(path: Location) -> Iterator[TileRecord]:
    """The records in a file whose lines are whole; what was torn or damaged is passed over."""
    for line in path.read_bytes().splitlines(keepends=True):
        checksum, _, text = line.partition(b" ")
        if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
            continue
        entry = json.loads(text)
        yield TileRecord(
            entry["tile"],
            tuple(entry["counts"]),
            entry["level"],
            tuple(StoredObject(*item) for item in entry["objects"]),
            work=entry.get("work", "computed"),
        )


def read_unfinished(labels_directory: Location) -> UnfinishedRun | None:
    """Look at a run without taking part in it; None if there is none, or it cannot be read."""
    directory = labels_directory / LEDGER_NAME
    try:
        fingerprint = _read_manifest(labels_directory)
        records = list(_all_records(directory))
        return UnfinishedRun(
            fingerprint=fingerprint,
            done=frozenset(item.number for item in records if item.level == fingerprint["level"]),
            updated=medium_of(directory).changed(directory),
        )
    except (OSError, OutputError, ValueError, KeyError):
        return None


def is_unfinished_run(labels_directory: Location, fingerprint: Mapping[str, Any]) -> bool:
    """Whether a directory holds the tiles of a run with this fingerprint."""
    try:
        refuse_other_run(_read_manifest(labels_directory), fingerprint, labels_directory)
    except (OSError, OutputError):
        return False
    return True


def _read_manifest(labels_directory: Location) -> dict[str, Any]:
    path = labels_directory / LEDGER_NAME / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise OutputError(f"{path} is damaged ({error}); start anew with --overwrite") from error
    if not isinstance(manifest, dict):
        raise OutputError(f"{path} is damaged; start anew with --overwrite")
    return manifest


def unfinished_fingerprint(labels_directory: Location) -> dict[str, Any] | None:
    """The fingerprint of the run whose tiles a directory holds; None if there is none."""
    try:
        return _read_manifest(labels_directory)
    except (OSError, OutputError):
        return None


def refuse_other_run(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], labels_directory: Location
) -> None:
    """Compare two fingerprints field by field.

    Raises:
        OutputConflictError: if they differ; the message names each field with both values.
    """
    there = dict(_fields(stored))
    now = dict(_fields(json.loads(json.dumps(dict(wanted)))))
    differing = [
        f"{key}: {_short(there.get(key))} there, {_short(now.get(key))} now"
        for key in sorted({*there, *now})
        if there.get(key) != now.get(key)
    ]
    if differing:
        raise OutputConflictError(
            f"{labels_directory} belongs to another run ({'; '.join(differing)}); use another "
            "--labels name, or --overwrite to replace it"
        )


def _fields(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The innermost fields of nested mappings, by their dotted names."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _fields(item, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
