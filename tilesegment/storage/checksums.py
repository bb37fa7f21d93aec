"""The checksums of a published label image: what `verify --deep` compares, object by object.

They lie in the folder of the finest level, where no Zarr reader looks for members::

    LABELS/0/.tilesegment/objects.jsonl      a line per tile, as in the ledger
    LABELS/0/.tilesegment/zarr.json.copies   a line per metadata document, with its text

The root metadata holds the SHA-256 of the first; each line of both starts with its own.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tilesegment.errors import OutputError
from tilesegment.storage.ledger import TileRecord, read_records, record_line
from tilesegment.storage.media import medium_of
from tilesegment.storage.objects import LEDGER_NAME, StoredObject, describe
from tilesegment.storage.remote import Location, locate

OBJECTS_NAME = "objects.jsonl"
COPIES_NAME = "zarr.json.copies"
_READERS = 8
"""Objects that are read at once."""


@dataclass(frozen=True)
class Checksums:
    """What a label image was when it was published."""

    records: tuple[TileRecord, ...]
    """By level and number."""
    documents: Mapping[str, str]
    """Metadata by key, without those whose copy is damaged."""
    whole_copies: bool
    """Whether no copy is damaged."""
    sha256: str | None
    """Of the records as stored; None if there are none."""


@dataclass(frozen=True)
class Damage:
    """One object that is not as it was published."""

    key: str
    """Relative to the label image."""
    problem: str
    """missing, or damaged."""
    level: int | None = None
    number: int | None = None
    """Of the tile that wrote it; both None for metadata."""


def checksums_folder(directory: Location, finest: str) -> Location:
    """Where the checksums of a label image lie; `finest` is the path of its finest level."""
    return directory / finest / LEDGER_NAME


def write_objects(folder: Location, records: Iterable[TileRecord]) -> str:
    """Write the checksums of all tiles; returns the SHA-256 of the file."""
    ordered = sorted(records, key=lambda record: (record.level, record.number))
    text = "".join(record_line(record) for record in ordered)
    medium_of(folder).write_document(folder / OBJECTS_NAME, text)
    return hashlib.sha256(text.encode()).hexdigest()


def write_copies(folder: Location, documents: Mapping[str, str]) -> None:
    """Write a copy of the metadata."""
    lines = (json.dumps([key, text]) for key, text in documents.items())
    text = "".join(f"{zlib.crc32(line.encode()):08x} {line}\n" for line in lines)
    medium_of(folder).write_document(folder / COPIES_NAME, text)


def find_checksums(directory: Location) -> Location:
    """The folder of a label image's checksums; needs no metadata, which may be damaged.

    Raises:
        OutputError: if there is none.
    """
    for folder in sorted(map(str, directory.glob(f"*/{LEDGER_NAME}"))):
        return locate(folder)
    raise OutputError(
        f"{directory} has no checksums: it is no finished label image of tilesegment 0.2 or later"
    )


def read_checksums(folder: Location) -> Checksums:
    """What is left of the checksums; lines that are damaged are passed over."""
    objects = folder / OBJECTS_NAME
    documents, whole = _read_copies(folder / COPIES_NAME)
    if not objects.exists():
        return Checksums((), documents, whole, None)
    sha256 = hashlib.sha256(objects.read_bytes()).hexdigest()
    return Checksums(tuple(read_records(objects)), documents, whole, sha256)


def _read_copies(path: Location) -> tuple[dict[str, str], bool]:
    documents: dict[str, str] = {}
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for line in lines:
        checksum, _, text = line.partition(b" ")
        if checksum == b"%08x" % zlib.crc32(text):
            key, document = json.loads(text)
            documents[key] = document
    return documents, 0 < len(lines) == len(documents)


def damaged_documents(directory: Location, documents: Mapping[str, str]) -> list[Damage]:
    """The metadata that is not as it was published."""
    found = (
        (key, _problem(directory, describe(key, text.encode()))) for key, text in documents.items()
    )
    return [Damage(key, problem) for key, problem in found if problem]


def damaged_objects(directory: Location, records: Iterable[TileRecord]) -> list[Damage]:
    """The objects of these tiles that are missing, or hold other bytes than were recorded."""
    items = [(record, item) for record in records for item in record.objects]
    with ThreadPoolExecutor(_READERS) as executor:
        problems = executor.map(lambda pair: _problem(directory, pair[1]), items)
        return [
            Damage(item.key, problem, record.level, record.number)
            for (record, item), problem in zip(items, problems, strict=True)
            if problem
        ]


def _problem(directory: Location, stored: StoredObject) -> str | None:
    try:
        content = (directory / stored.key).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return "missing"
    except OSError as error:
        return f"unreadable ({error.strerror or error})"
    return None if describe(stored.key, content) == stored else "damaged"
