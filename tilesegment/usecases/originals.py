"""What is different where the image's store cannot hold its labels: slides, TIFF, pictures, zip."""

import logging
import os
from pathlib import Path

from tilesegment.errors import OutputError
from tilesegment.planning import Plan
from tilesegment.storage.image import Image
from tilesegment.storage.remote import RemotePath

_logger = logging.getLogger(__name__)

_MOST_OFTEN = 2.0
"""Times that each pixel may be decoded without a word."""
_NOT_WORTH_A_WORD = 10**9
"""Pixels that are decoded in a few minutes, however often each of them is."""


def refuse_unwritable(image: Image) -> None:
    """Refuse before any work what would fail at the first label.

    Raises:
        OutputError: if its labels would go beside it, in a folder that is read-only.
    """
    folder = image.label_folder
    if isinstance(folder, RemotePath) and folder.is_web:
        raise OutputError(
            f"nothing can be written to {image.location}; name a place for the labels: "
            "--output STORE"
        )
    there = folder if folder.exists() else folder.parent
    if not image.holds_labels and isinstance(there, Path) and not os.access(there, os.W_OK):
        raise OutputError(
            f"the labels of {image.location} would go to {folder}, where nothing can be written; "
            "name another place with --output STORE"
        )


def advise_import(image: Image, plan: Plan, *, reads_all: bool) -> None:
    """Say when an original would be decoded so often that an import is worth its time.

    Args:
        image: any.
        plan: of its run.
        reads_all: whether the whole image is read once before the first tile.
    """
    times = decoded_times(image, plan, reads_all=reads_all)
    if image.is_original and times >= _MOST_OFTEN and times * plan.pixels > _NOT_WORTH_A_WORD:
        _logger.warning(
            "each pixel of %s is decoded about %.1f times; if that takes longer than the network, "
            "import it first: tilesegment import %s %s",
            image.location, times, image.location, Path(image.location).with_suffix(".zarr").name,
        )  # fmt: skip


def decoded_times(image: Image, plan: Plan, *, reads_all: bool) -> float:
    """How often a run decodes each pixel of an image, about."""
    times = plan.read_amplification + plan.network.statistics + reads_all
    if image.decodes_whole_rows:
        # Each worker keeps the rows that it decoded, but decodes those of its own tiles.
        times *= min(plan.grid.columns, os.cpu_count() or 1)
    return times
