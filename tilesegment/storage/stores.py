"""Opening zarr groups by path, with an answer for everything else that a path may be."""

import json
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self
from zipfile import ZipFile, is_zipfile

import zarr
from zarr.abc.store import Store
from zarr.errors import ContainsArrayError, GroupNotFoundError
from zarr.storage import LocalStore, WrapperStore, ZipStore

from tilesegment.errors import InputError, StoreError
from tilesegment.storage.importing.original import open_original
from tilesegment.storage.limits import check_document, check_document_size
from tilesegment.storage.remote import (
    Location,
    NoAnswerError,
    RemotePath,
    locate,
    size_of,
    zarr_store,
)
from tilesegment.storage.written_elsewhere import array_as_image

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_DOCUMENTS = ("zarr.json", ".zattrs", ".zgroup", ".zarray", ".zmetadata")


def open_group(location: str | Location, axes: str | None = None) -> zarr.Group:
    """The zarr group at a path or URL, or what stands for it; read-only.

    A zip file is the store in it, a slide, TIFF or picture the image that its import would give,
    and a plain array an image of one level.

    Args:
        location: a path or URL.
        axes: of a plain array, if it does not tell them.

    Raises:
        InputError: if there is none; the message says what is there instead.
    """
    path = locate(location) if isinstance(location, str) else location
    if isinstance(path, RemotePath):
        return _open_remote(path)
    if not path.exists():
        raise InputError(f"there is no image at {path}; give the path of an OME-Zarr image")
    if path.is_file():
        return _open_zip(path) if is_zipfile(path) else open_original(path)
    for name in ("zarr.json", ".zattrs", ".zgroup", ".zmetadata"):
        check_document(path / name)
    if _is_array(path):
        return _open_array(path, axes)
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
        found = None if path.is_web else next(path.iterdir(), None)
    except (NoAnswerError, StoreError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except (ContainsArrayError, GroupNotFoundError, FileNotFoundError) as error:
        raise InputError(
            f"{path} is no Zarr group; give the URL of an OME-Zarr image (a plain array is read "
            "from a disk only)"
        ) from error
    # zarr raises whatever its parser stumbles over.
    except Exception as error:
        raise InputError(f"{path} has damaged Zarr metadata ({_first_line(error)})") from error
    if found is None:
        raise InputError(f"there is no image at {path}; give the URL of an OME-Zarr image")
    raise InputError(_about_directory(path))


def label_folder(location: Location) -> Location:
    """Where the label images of an image are: in its store, or beside a file, which has no room."""
    if isinstance(location, Path) and (location.is_file() or _is_array(location)):
        return location.with_name(f"{location.name}.labels.zarr")
    return location / "labels"


def _is_array(path: Path) -> bool:
    document = path / "zarr.json"
    if not document.is_file():
        return (path / ".zarray").exists()
    check_document(document)
    # Damaged metadata is told by who opens it.
    with suppress(ValueError, AttributeError, RecursionError):
        return bool(json.loads(document.read_text()).get("node_type") == "array")
    return False


def _open_array(path: Path, axes: str | None) -> zarr.Group:
    """A plain array as an image."""
    store = LocalStore(path, read_only=True)
    try:
        version = 3 if (path / "zarr.json").exists() else 2
        with warnings.catch_warnings():
            # Of codecs that no specification has; they are refused later.
            warnings.simplefilter("ignore")
            array = zarr.open_array(store, mode="r", zarr_format=version)
    # zarr raises whatever its parser stumbles over.
    except Exception as error:
        raise InputError(
            f"{path} cannot be read: its Zarr metadata is damaged, or names a codec that is not "
            f"installed ({_first_line(error)})"
        ) from error
    return array_as_image(store, array, axes, str(path))


def _open_zip(path: Path) -> zarr.Group:
    """The group in a zip file: at its root, or in the only folder that is there."""
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
            for item in archive.infolist():
                if item.filename.rpartition("/")[2] in _DOCUMENTS:
                    check_document_size(f"{path}: {item.filename}", item.file_size)
        folder = _common_folder(names)
        return zarr.open_group(
            ZipStore(path, mode="r"), path=folder, mode="r", use_consolidated=False
        )
    except InputError:
        raise
    except ContainsArrayError as error:
        raise InputError(
            f"{path} holds a plain Zarr array; unpack it, and give its axes: --axes cyx"
        ) from error
    # zipfile and zarr raise whatever their parsers stumble over.
    except Exception as error:
        raise InputError(
            f"{path} is a zip file, but holds no Zarr group that can be read ({_first_line(error)})"
        ) from error


def _common_folder(names: Sequence[str]) -> str:
    """The folder that all files of an archive are in; empty if they have none in common.

    >>> _common_folder(["i.zarr/zarr.json", "i.zarr/0/zarr.json"])
    'i.zarr'
    >>> _common_folder(["zarr.json", "0/zarr.json"])
    ''
    """
    first = {name.partition("/")[0] for name in names}
    return first.pop() if len(first) == 1 and all("/" in name for name in names) else ""


def _about_directory(path: Location) -> str:
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
