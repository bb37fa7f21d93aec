"""Files that appear whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tilesegment.errors import OutputError


def check_free(path: Path, overwrite: bool) -> None:
    """Whether a file can go there, before any work is done.

    Raises:
        OutputError: if there is no such folder, or something is there already.
    """
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder, which is not replaced; name another output")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(
            f"{path}: exists already; name another output, or use --overwrite to replace it"
        )


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """A place to write a file of the same name, which goes to `path` if all goes well.

    Libraries may leave files beside it; those are removed.

    Raises:
        OutputError: if the disk refuses.
    """
    folder = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        folder.mkdir()
        yield folder / path.name
        (folder / path.name).replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}; nothing was left there, so "
            "free the disk or choose another place and start again"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
