"""Who drives a run whose ledger is on a disk, and where its records go.

drivers/0001       made exclusively; its driver holds a lock on it, which ends with its process
tiles-0001.jsonl   the driver's records, appended in batches
"""

import fcntl
import os
import shutil
import socket
import uuid
from pathlib import Path
from typing import IO

from tilesegment.errors import OutputError
from tilesegment.storage.objects import LEDGER_NAME, newest_number, synchronise, write_failed


class LockedJournal:
    """The records of one driver, which it alone writes as long as it is the newest.

    Args:
        directory: the ledger.

    Raises:
        OutputError: if another driver begins at the same time.
    """

    patience_seconds = 0.0

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number, self._lock = _become_driver(directory / "drivers")
        self._path = directory / f"tiles-{self._number:04}.jsonl"
        self._file: IO[str] = self._path.open("a")

    @property
    def is_newest(self) -> bool:
        """Whether no other driver has taken the run over, or ended it."""
        return newest_number(self._directory / "drivers") == self._number

    @property
    def closed(self) -> bool:
        return self._file.closed

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
        self._lock.close()


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


def living_driver(directory: Path) -> str | None:
    """What is known of the driver that is at work on the run of a ledger; None if none is."""
    newest = directory / "drivers" / f"{newest_number(directory / 'drivers'):04}"
    return newest.read_text() if newest.exists() and _is_locked(newest) else None


def _become_driver(drivers: Path) -> tuple[int, IO[str]]:
    """The number of a new driver, and the file that it holds locked until it ends."""
    drivers.mkdir(exist_ok=True)
    number = newest_number(drivers) + 1
    aside = drivers / f"{uuid.uuid4().hex}.partial"
    # Locked before it has its name: nobody can take this driver for a dead one.
    lock = aside.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}")
    lock.flush()
    try:
        _name_exclusively(aside, drivers / f"{number:04}")
    except FileExistsError as error:
        lock.close()
        raise OutputError(
            f"another run has just begun to write {drivers.parent.parent}; wait for it"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    synchronise(drivers)
    return number, lock


def _name_exclusively(aside: Path, path: Path) -> None:
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here: a directory of the name is exclusive as well.
        path.with_suffix(".taken").mkdir()
        aside.rename(path)


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
