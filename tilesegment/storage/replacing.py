"""Replacing labels in an object store, where nothing can be renamed.

Each run's levels have paths of their own, with a suffix of that run (`0-3fa9c1d2`). The
metadata of the label image, one document, names the levels: the moment it is written, all
readers see the new labels and none of the old. A worker of an earlier run that wakes late
writes among the levels of that run, which nobody reads. What is not named any more is deleted.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tilesegment.storage.buckets import remove
from tilesegment.storage.ledger import has_living_driver, unfinished_fingerprint
from tilesegment.storage.objects import LEDGER_NAME, PROVENANCE_KEY, read_document
from tilesegment.storage.probabilities import PROBABILITIES_NAME
from tilesegment.storage.remote import RemotePath

SUFFIX = "suffix of the levels"
"""In the fingerprint of an unfinished run."""

_DOCUMENTS = ("zarr.json", ".zattrs", ".zgroup")


def new_suffix(directory: RemotePath, fingerprint: Mapping[str, Any]) -> str:
    """One that the labels now published have not; partitions of one run find the same.

    Args:
        directory: the label image.
        fingerprint: of the run; JSON.
    """
    told = json.dumps([fingerprint, _published_keys(directory)], sort_keys=True)
    return f"-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def unfinished_suffix(directory: RemotePath) -> str | None:
    """Of the run whose ledger is there; None if there is none."""
    suffix: str | None = (unfinished_fingerprint(directory) or {}).get(SUFFIX)
    return suffix


def remove_unpublished_levels(directory: RemotePath, *, ledger: bool) -> None:
    """Delete all that the metadata of a label image does not name.

    Args:
        directory: the label image.
        ledger: whether the ledger goes too.
    """
    published = _published_keys(directory)

    def keep(key: str) -> bool:
        if key.startswith(f"{LEDGER_NAME}/"):
            return not ledger
        return key.startswith(published)

    remove(directory, keep)


def finish_replacing(directory: RemotePath) -> bool:
    """End a run that was cut short after its labels were published.

    Returns:
        Whether there was one.
    """
    suffix, published = unfinished_suffix(directory), _published_keys(directory)
    if suffix is None or not any(key.endswith(f"{suffix}/") for key in published):
        return False
    if not has_living_driver(directory):
        remove_unpublished_levels(directory, ledger=True)
    return True


def _published_keys(directory: RemotePath) -> tuple[str, ...]:
    """What the keys of all that readers see begin with."""
    for name in ("zarr.json", ".zattrs"):
        document: Mapping[str, Any] = read_document(directory / name) or {}
        attributes = document.get("attributes", document)
        options = attributes.get(PROVENANCE_KEY, {}).get("options", {})
        folders = ["", f"{PROBABILITIES_NAME}/"] if options.get("probabilities") else [""]
        for multiscale in attributes.get("ome", attributes).get("multiscales") or ():
            names = [*_DOCUMENTS, *(f"{dataset['path']}/" for dataset in multiscale["datasets"])]
            return tuple(folder + name for folder in folders for name in names)
    return ()
