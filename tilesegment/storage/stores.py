"""Opening zarr groups by path, with an answer for everything else that a path may be."""

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

import zarr
from zarr.abc.store import Store
from zarr.errors import ContainsArrayError, GroupNotFoundError
from zarr.storage import WrapperStore

from tilesegment.errors import InputError, StoreError
from tilesegment.storage.importing.original import open_original
from tilesegment.storage.limits import check_document
from tilesegment.storage.remote import (
    Location,
    NoAnswerError,
    RemotePath,
    locate,
    size_of,
    zarr_store,
)

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


def open_group(location: str | Location) -> zarr.Group:
    """The zarr group at a path or URL, or the one that the import of an image file would give.

    It is read-only.

    Raises:
        InputError: if there is none; the message says what is there instead.
    """
    path = locate(location) if isinstance(location, str) else location
    if isinstance(path, RemotePath):
        return _open_remote(path)
    if not path.exists():
        raise InputError(f"there is no image at {path}; give the path of an OME-Zarr image")
    if path.is_file():
        return open_original(path)
    for name in ("zarr.json", ".zattrs", ".zgroup", ".zmetadata"):
        check_document(path / name)
    try:
        return zarr.open_group(path, mode="r", use_consolidated=False)
    except (ContainsArrayError, GroupNotFoundError, FileNotFoundError) as error:
        raise InputError(_about_directory(path)) from error
    except PermissionError as error:
        raise InputError(f"no permission to read {path}") from error
    # zarr raises whatever its parser stumbles over.
    except Exception as error:
        raise InputError(f"{path} has damaged Zarr metadata ({_first_line(error)})") from error


def _open_remote(path: RemotePath) -> zarr.Group:
    """The zarr group under a key.

    Without the right to list a bucket, S3 refuses to tell that a key is not there; so no more is
    asked for than must be.
    """
    try:
        for name, version in (("zarr.json", 3), (".zgroup", 2), (".zattrs", 2)):
            if size_of(path / name) is not None:
                check_document(path / name)
                return zarr.open_group(
                    zarr_store(path), mode="r", zarr_format=version, use_consolidated=False
                )
        found = next(path.iterdir(), None)
    except (NoAnswerError, StoreError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except (ContainsArrayError, GroupNotFoundError, FileNotFoundError) as error:
        raise InputError(_about_directory(path)) from error
    # zarr raises whatever its parser stumbles over.
    except Exception as error:
        raise InputError(f"{path} has damaged Zarr metadata ({_first_line(error)})") from error
    if found is None:
        raise InputError(f"there is no image at {path}; give the URL of an OME-Zarr image")
    raise InputError(_about_directory(path))


def label_folder(location: Location) -> Location:
    """Where the label images of an image are: in its store, or beside a file, which has no room."""
    if isinstance(location, Path) and location.is_file():
        return location.with_name(f"{location.name}.labels.zarr")
    return location / "labels"


def _about_directory(path: Location) -> str:
    if (path / "zarr.json").exists() or (path / ".zarray").exists():
        return (
            f"{path} is a plain Zarr array without OME-Zarr metadata; give the OME-Zarr group "
            "around it (multiscales), or convert it"
        )
    return f"{path} is a directory, but neither Zarr nor OME-Zarr; give an OME-Zarr image"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class LostObjectError(Exception):
    """A chunk is not there although it was, or must be."""


class StrictStore(WrapperStore[Store]):  # type: ignore[misc]
    """A store in which a missing chunk is an error; elsewhere zarr reads it as background.

    Args:
        store: what is read.
        absent: file with the keys of the chunks that are known to be missing, a JSON list; None
            if none may be. They are not asked for.
    """

    def __init__(self, store: Store, absent: Location | None = None) -> None:
        super().__init__(store)
        self._absent = absent

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._absent)

    async def get(
        self,
        key: str,
        prototype: "BufferPrototype",
        byte_range: "ByteRequest | None" = None,
    ) -> "Buffer | None":
        """As of any store.

        Raises:
            LostObjectError: if there is nothing under the key, and must be.
        """
        if self._absent is not None and key in _keys(self._absent):
            return None
        value = await self._store.get(key, prototype, byte_range)
        if value is None:
            raise LostObjectError(f"{key} is missing")
        return value


@lru_cache(maxsize=4)
def _keys(path: Location) -> frozenset[str]:
    return frozenset(json.loads(path.read_text()))
