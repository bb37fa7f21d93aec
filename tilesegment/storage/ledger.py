"""Which tiles are done: what makes a run resumable.

A directory beside the labels holds a manifest, written once, that says whose run it is, and
one line per finished tile. A tile counts as done when its line is on the disk, which is
after its pixels were written. A line torn by a crash is ignored.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tilesegment.errors import IncompleteError, OutputConflictError
from tilesegment.storage.labels import LEDGER_NAME


@dataclass(frozen=True)
class TileRecord:
    """What is known of a finished tile."""

    number: int
    """Of the tile in its grid."""
    counts: tuple[int, ...]
    """Pixels of each class, in the order of the model's classes."""


class Ledger:
    """The record of one run; opened by its driver only.

    Raises:
        OutputConflictError: on opening, if the tiles in the directory belong to another run.
    """

    def __init__(self, labels_directory: Path, fingerprint: Mapping[str, Any]) -> None:
        self.directory = labels_directory / LEDGER_NAME
        self.done: dict[int, TileRecord] = {}
        manifest = self.directory / "manifest.json"
        if manifest.exists():
            refuse_other_run(json.loads(manifest.read_text()), fingerprint, labels_directory)
            self.done = {record.number: record for record in self._records()}
        else:
            self.directory.mkdir(parents=True, exist_ok=True)
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
                yield TileRecord(entry["tile"], tuple(entry["counts"]))

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
        line = json.dumps({"tile": record.number, "counts": record.counts})
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
        self._file.close()
        shutil.rmtree(self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


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
