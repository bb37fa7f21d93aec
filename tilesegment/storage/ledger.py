"""Which tiles are done: what makes a run resumable.

A directory beside the labels holds a manifest, written once, that says whose run it is, and
one line per finished tile. A tile counts as done when its line is on the disk, which is
after its pixels were written. A line torn by a crash is ignored.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from tilesegment.errors import IncompleteError, OutputConflictError, OutputError
from tilesegment.storage.labels import LEDGER_NAME, MANIFEST_NAME, write_failed

Work = Literal["computed", "reused", "masked"]
"""Where a tile's labels come from: the network; an earlier tile of the same single pixel value; or
nowhere, for no pixel is wanted or holds data: all are background."""


@dataclass(frozen=True)
class TileRecord:
    """What is known of a finished tile."""

    number: int
    """Of the tile in its grid."""
    counts: tuple[int, ...]
    """Pixels of each class, in the order of the model's classes."""
    work: Work = "computed"


class Ledger:
    """The record of one run; opened by its driver only.

    Raises:
        OutputConflictError: on opening, if the tiles in the directory belong to another run.
        OutputError: if another run has it open, or it cannot be written.
    """

    def __init__(self, labels_directory: Path, fingerprint: Mapping[str, Any]) -> None:
        self.directory = labels_directory / LEDGER_NAME
        self.done: dict[int, TileRecord] = {}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            self._open(fingerprint, labels_directory)
        except OSError as error:
            raise write_failed(error, labels_directory) from error
        except (ValueError, KeyError) as error:
            raise OutputError(
                f"{self.directory} is damaged ({error}); start anew with --overwrite"
            ) from error

    def _take_lock(self) -> IO[str]:
        """Held as long as the file is open; the system releases it when the process ends."""
        lock = (self.directory / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise OutputError(
                f"another run is writing {self.directory.parent}; wait for it, or use another "
                "--labels name"
            ) from error
        return lock

    def _open(self, fingerprint: Mapping[str, Any], labels_directory: Path) -> None:
        manifest = self.directory / MANIFEST_NAME
        if manifest.exists():
            refuse_other_run(json.loads(manifest.read_text()), fingerprint, labels_directory)
            self.done = {record.number: record for record in self._records()}
        else:
            _write_durably(manifest, json.dumps(dict(fingerprint), indent=2))
        self._mend_tail()
        self._file: IO[str] = self._path.open("a")

    @property
    def _path(self) -> Path:
        return self.directory / "tiles.jsonl"

    def _records(self) -> Iterator[TileRecord]:
        if not self._path.exists():
            return
        for line in self._path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                entry = json.loads(line)
                work = entry.get("work", "computed")
                yield TileRecord(entry["tile"], tuple(entry["counts"]), work)

    def _mend_tail(self) -> None:
        """Cut a last line that a crash left unfinished, so that the next one starts afresh."""
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._path, whole)

    def add(self, record: TileRecord) -> None:
        """Note that a tile is done; durable when this returns."""
        entry = {"tile": record.number, "counts": record.counts, "work": record.work}
        line = json.dumps(entry)
        try:
            self._file.write(line + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise IncompleteError(
                f"cannot write {self._path}: {error.strerror}; free some space and run the same "
                "command again: finished tiles are kept"
            ) from error
        self.done[record.number] = record

    def remove(self) -> None:
        """Forget the run, once its labels are published."""
        self._close()
        shutil.rmtree(self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._file.close()
        self._lock.close()


def is_unfinished_run(labels_directory: Path, fingerprint: Mapping[str, Any]) -> bool:
    """Whether a directory holds the tiles of a run with this fingerprint."""
    manifest = labels_directory / LEDGER_NAME / MANIFEST_NAME
    try:
        refuse_other_run(json.loads(manifest.read_text()), fingerprint, labels_directory)
    except (OSError, ValueError, OutputConflictError):
        return False
    return True


def refuse_other_run(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], labels_directory: Path
) -> None:
    """Compare two fingerprints field by field.

    Raises:
        OutputConflictError: if they differ; the message names each field with both values.
    """
    wanted = json.loads(json.dumps(dict(wanted)))
    differing = [
        f"{key}: {_short(stored.get(key))} there, {_short(wanted.get(key))} now"
        for key in sorted({*stored, *wanted})
        if stored.get(key) != wanted.get(key)
    ]
    if differing:
        raise OutputConflictError(
            f"{labels_directory} belongs to another run ({'; '.join(differing)}); use another "
            "--labels name, or --overwrite to replace it"
        )


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _write_durably(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
