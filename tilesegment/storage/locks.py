"""On a disk: that a driver is alive, and where its records go.

drivers/0001       made exclusively; its driver holds a lock on it, which ends with its process
tiles-0001.jsonl   the driver's records, appended in batches
"""

import fcntl
import os
import shutil
import uuid
from pathlib import Path
from typing import IO

from tilesegment.storage.objects import LEDGER_NAME, synchronise, write_failed


class Lock:
    """A driver's file, which it holds locked until it ends.

    Args:
        folder: of the drivers.
        text: what the file says.
    """

    def __init__(self, folder: Path, text: str) -> None:
        folder.mkdir(exist_ok=True)
        self._aside = folder / f"{uuid.uuid4().hex}.partial"
        # Locked before it has its name: nobody can take this driver for a dead one.
        self._lock = self._aside.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._lock.write(text)
        self._lock.flush()

    def take(self, number: int) -> bool:
        """Name the file by a number; False if that is taken."""
        try:
            _name_exclusively(self._aside, self._aside.with_name(f"{number:04}"))
        except FileExistsError:
            return False
        self._aside.unlink(missing_ok=True)
        synchronise(self._aside.parent)
        return True

    @property
    def closed(self) -> bool:
        return self._lock.closed

    def close(self) -> None:
        self._aside.unlink(missing_ok=True)
        self._lock.close()


class FileJournal:
    """The records of one driver.

    Args:
        directory: the ledger.
        number: of the driver.
    """

    patience_seconds = 0.0

    def __init__(self, directory: Path, number: int) -> None:
        self._path = directory / f"tiles-{number:04}.jsonl"
        self._file: IO[str] = self._path.open("a")

    def append(self, text: str) -> None:
        """Make records durable.

        Raises:
            OutputError, IncompleteError: if they cannot be written.
        """
        try:
            self._file.write(text)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise write_failed(error, self._path, len(text)) from error

    def close(self) -> None:
        self._file.close()


def is_alive(path: Path) -> bool:
    """Whether the driver of a file is at work."""
    try:
        file = path.open()
    except FileNotFoundError:
        # The run was ended meanwhile.
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def end_ledger(directory: Path, keep_as: Path | None) -> None:
    """Remove the ledger of a run, or keep it elsewhere."""
    if keep_as is not None:
        shutil.rmtree(keep_as, ignore_errors=True)
        directory.rename(keep_as)
        shutil.rmtree(keep_as / "aside", ignore_errors=True)
        return
    # At once out of the way of a worker that wakes late.
    gone = directory.with_name(f"{LEDGER_NAME}-{uuid.uuid4().hex[:8]}")
    directory.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _name_exclusively(aside: Path, path: Path) -> None:
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here: a directory of the name is exclusive as well.
        path.with_suffix(".taken").mkdir()
        aside.rename(path)
