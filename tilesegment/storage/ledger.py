"""Which tiles are done: what makes a run resumable.

A directory in the unfinished label image holds::

    manifest.json      whose run it is; written once
    drivers/0001       one file per driver that worked on the run, see `locks` and `lease`
    tiles-0001*.jsonl  the tiles that this driver's workers have finished, one line each
    absent.json        chunks that the image lacked when the run began
    aside/             files that do not have their name yet

A tile counts as done when its line is on the disk, which is after its objects were. Each line
starts with a checksum of the rest: a line torn by a crash, or damaged since, is no line.

Only the driver of the highest number is the run's driver. `--take-over` makes a new one; the
older finds out when it next writes, and stops. Until then both may work: an object is written
once, whoever writes it, so that their records cannot contradict each other.
"""

import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tilesegment.errors import OutputConflictError, OutputError, TilesegmentError
from tilesegment.storage.media import medium_of
from tilesegment.storage.objects import LEDGER_NAME, StoredObject
from tilesegment.storage.remote import Location

MANIFEST_NAME = "manifest.json"
_MOST_WAITING = 256
"""Records that are written with one synchronisation, at most."""
_READERS = 16
"""Files of records that are read at once."""

Work = Literal["computed", "reused", "masked"]
"""Where a tile's labels come from: the network; an earlier tile of the same single pixel value; or
nowhere, for no pixel is wanted or holds data: all are background."""


@dataclass(frozen=True)
class TileRecord:
    """What is known of a finished tile."""

    number: int
    """Of the tile in its grid."""
    counts: tuple[int, ...]
    """Pixels of each class, in the order of the model's classes; empty for derived levels."""
    level: int = 0
    """Of the label image's pyramid."""
    objects: tuple[StoredObject, ...] = ()
    """What the tile became in the store; also where all is background."""
    worker: str | None = None
    """Address of the worker that wrote it; not stored."""
    work: Work = "computed"


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

    Raises:
        OutputConflictError: on opening, if the tiles in the directory belong to another run.
        OutputError: if another run has it open, or it cannot be written.
    """

    def __init__(
        self,
        labels_directory: Location,
        fingerprint: Mapping[str, Any],
        *,
        take_over: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.labels = labels_directory
        self.directory = labels_directory / LEDGER_NAME
        self.done: dict[tuple[int, int], TileRecord] = {}
        self._waiting: list[TileRecord] = []
        self._medium = medium_of(labels_directory)
        self._clock, self._flushed = clock, clock()
        try:
            self._medium.prepare(labels_directory)
            self._open_manifest(fingerprint)
            if not take_over:
                refuse_living_driver(labels_directory)
            self._journal = self._medium.open_journal(self.directory)
            self._read()
        except OSError as error:
            raise self._medium.write_failed(error, labels_directory) from error

    def _open_manifest(self, fingerprint: Mapping[str, Any]) -> None:
        text = json.dumps(dict(fingerprint), indent=2)
        self._medium.write_once(self.directory / MANIFEST_NAME, text)
        refuse_other_run(_read_manifest(self.labels), fingerprint, self.labels)

    def _read(self) -> None:
        """Believe each record whose objects are there, and remove the objects of the others."""
        for record in _all_records(self.directory):
            self.done[record.level, record.number] = record
        size = self._medium.sizes(self.labels) if self.done else None
        for place, record in list(self.done.items()):
            damaged = [item for item in record.objects if size and size(item.key) != item.size]
            if damaged:
                del self.done[place]
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
        record = replace(record, objects=settled, worker=None)
        self._waiting.append(record)
        self.done[record.level, record.number] = record
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
        """Whether this is still the run's driver."""
        return self._journal.is_newest

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
        if self._journal.closed:
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


def refuse_living_driver(labels_directory: Location) -> None:
    """Refuse labels that another run is writing.

    Raises:
        OutputError: if there is a driver at work.
    """
    driver = medium_of(labels_directory).living_driver(labels_directory / LEDGER_NAME)
    if driver is not None:
        raise OutputError(
            f"another run is writing {labels_directory} ({driver}); wait for it, use another "
            "--labels name, or stop it with --take-over"
        )


def clear_finished(labels_directory: Location) -> None:
    """Remove the ledger of published labels, if its driver died before it could."""
    medium, directory = medium_of(labels_directory), labels_directory / LEDGER_NAME
    if not medium.can_rename:
        # What is there is of a run that is to replace the labels; see `replacing`.
        return
    if directory.is_dir() and medium.living_driver(directory) is None:
        medium.end_ledger(directory, None)


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
    journals = sorted(directory.glob("tiles-*.jsonl"))
    with ThreadPoolExecutor(_READERS) as executor:
        for records in executor.map(lambda journal: list(read_records(journal)), journals):
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


def read_unfinished(labels_directory: Path) -> UnfinishedRun | None:
    """Look at a run without taking part in it; None if there is none, or it cannot be read."""
    directory = labels_directory / LEDGER_NAME
    journals = sorted(directory.glob("tiles-*.jsonl"))
    try:
        fingerprint = _read_manifest(labels_directory)
        records = [record for journal in journals for record in read_records(journal)]
        files = [directory / MANIFEST_NAME, *journals]
        return UnfinishedRun(
            fingerprint=fingerprint,
            done=frozenset(item.number for item in records if item.level == fingerprint["level"]),
            updated=max(file.stat().st_mtime for file in files),
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
