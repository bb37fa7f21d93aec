"""Every stored object of a label image against the checksum that was recorded of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tilesegment.storage.checksums import (
    COPIES_NAME,
    OBJECTS_NAME,
    Checksums,
    Damage,
    damaged_documents,
    damaged_objects,
    find_checksums,
    read_checksums,
)
from tilesegment.storage.objects import PROVENANCE_KEY
from tilesegment.storage.remote import Location


@dataclass(frozen=True)
class DeepCheck:
    """What a look at every object has found."""

    labels: str
    """Path of the label image."""
    objects: int
    """Stored objects and metadata documents that were looked at."""
    damaged: tuple[Damage, ...]


def check_objects(directory: Location) -> DeepCheck:
    """Read every object of a published label image, and compare it with its checksum.

    Args:
        directory: the label image.

    Raises:
        OutputError: if there are no checksums.
    """
    folder = find_checksums(directory)
    inside = f"{folder.parent.name}/{folder.name}"
    checksums = read_checksums(folder)
    provenance = copied_provenance(checksums)
    found = [*damaged_documents(directory, checksums.documents)]
    if not checksums.whole_copies or not provenance:
        found.append(Damage(f"{inside}/{COPIES_NAME}", "damaged"))
        provenance = _published(directory)
    if checksums.sha256 != provenance.get("checksums"):
        found.append(Damage(f"{inside}/{OBJECTS_NAME}", "damaged"))
    found.extend(damaged_objects(directory, checksums.records))
    objects = sum(len(record.objects) for record in checksums.records)
    return DeepCheck(str(directory), objects + len(checksums.documents), tuple(found))


def copied_provenance(checksums: Checksums) -> Mapping[str, Any]:
    """How the labels were made, by the copy of the metadata; empty if that is damaged."""
    for key in ("zarr.json", ".zattrs"):
        if key in checksums.documents:
            return _provenance(json.loads(checksums.documents[key]))
    return {}


def _published(directory: Location) -> Mapping[str, Any]:
    """How the labels were made, by the metadata itself; empty if that is damaged too."""
    for key in ("zarr.json", ".zattrs"):
        try:
            return _provenance(json.loads((directory / key).read_bytes()))
        except (OSError, ValueError):
            continue
    return {}


def _provenance(document: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = document.get("attributes", document).get(PROVENANCE_KEY, {})
    return found
