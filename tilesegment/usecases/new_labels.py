"""Label images that are made of others: written beside their place, seen once they are whole.

What each block has given is kept in the ledger until then::

    .NAME.new/.tilesegment/tiles-0001.jsonl   blocks whose labels are stored, as in a run
    .NAME.new/.tilesegment/PHASE/NUMBER.npz   what a look at a block has found
    .NAME.new/.tilesegment/scratch/           labels that are needed on the way, with their ledger

So the same command goes on where one was cut short, if labels and image are still the same.
"""

import hashlib
import io
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from zipfile import BadZipFile

import numpy as np

from tilesegment.components import Classes, Faces, Joining, OpenComponents
from tilesegment.errors import InputError, OptionError, OutputError
from tilesegment.storage.checksums import checksums_folder
from tilesegment.storage.exporting.labelled import Labelled, open_labelled
from tilesegment.storage.image import Image, MirroredPixels
from tilesegment.storage.labels import (
    LabelLayout,
    LabelVolume,
    beside_labels,
    finish_swap,
    layout_volume,
    published_provenance,
    refuse_foreign,
    remove_labels,
    swap_labels,
)
from tilesegment.storage.ledger import (
    Ledger,
    TileRecord,
    is_unfinished_run,
    refuse_living_driver,
)
from tilesegment.storage.objects import LEDGER_NAME, write_whole
from tilesegment.storage.remote import absolute, locate, on_disk
from tilesegment.tiling import Tile, TileGrid, Window, chunk_of
from tilesegment.usecases.labelling import (
    announce_labels,
    choose_publishing,
    derive_all_levels,
    publish_volume,
)
from tilesegment.usecases.workers import Phase, Progress, Run, report_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from distributed import Client

TILE = 1024
"""Pixels per side of a block, if nobody says; the result does not depend on it."""
_LARGEST_TILE = 4096

Found = TypeVar("Found")


class ClassMap(Protocol):
    """Where classes come from."""

    def read(self, plane: int, window: Window) -> Classes:
        """The classes in a window inside the plane, (y, x)."""


@dataclass(frozen=True)
class StoredClasses:
    """Those of a label image."""

    pixels: MirroredPixels

    def read(self, plane: int, window: Window) -> Classes:
        bottom, right = window.y + window.height, window.x + window.width
        classes: Classes = self.pixels.stored(plane, window.y, bottom, window.x, right)[0]
        return classes


@dataclass(frozen=True)
class NewLabels:
    """A label image that is being written."""

    image: Image
    volume: LabelVolume
    ledger: Ledger
    tile: int
    run: Run

    @property
    def grid(self) -> TileGrid:
        """The blocks of the finest level."""
        return self.volume.grid(0, self.tile)

    def write_blocks(
        self, phase: Phase, task: "Callable[[Tile], Callable[[], TileRecord]]"
    ) -> None:
        """Write the finest level by the tasks of the blocks, on the workers."""
        for _, record in self._each_block(phase, task, self.ledger.finished(0)):
            self.ledger.add(record)
            self.ledger.rest()
        self.ledger.flush()

    def look(
        self, phase: Phase, task: "Callable[[Tile], Callable[[], Found]]", kind: type[Found]
    ) -> Iterator[tuple[Tile, Found]]:
        """What the tasks of all blocks find, on the workers, as they come.

        Args:
            phase: names the look.
            task: of a block.
            kind: of what is found: a dataclass of arrays and numbers.
        """
        folder = on_disk(self.ledger.directory, "what was found") / phase
        done = set()
        for tile in self.grid.tiles():
            number = self.grid.number(tile)
            earlier = _read_found(_found_file(folder, number), kind)
            if earlier is not None:
                done.add(number)
                yield tile, earlier
        for tile, found in self._each_block(phase, task, done):
            buffer = io.BytesIO()
            np.savez(buffer, **vars(found))
            write_whole(_found_file(folder, self.grid.number(tile)), buffer.getvalue())
            yield tile, found

    def _each_block(
        self, phase: Phase, task: "Callable[[Tile], Callable[[], Any]]", done: "Collection[int]"
    ) -> Iterator[tuple[Tile, Any]]:
        """What the tasks of all blocks that are not done give."""
        from tilesegment.execution.engine import map_blocks

        grid, pixels = self.grid, 0
        report_progress(self.run, phase, len(done), len(grid), 0)
        results = map_blocks(self.run.client, grid, task, f"{phase}-{self.run.name}", done)
        for finished, (tile, result) in enumerate(results, start=len(done) + 1):
            window = grid.write_window(tile)
            pixels += window.height * window.width
            yield tile, result
            report_progress(self.run, phase, finished, len(grid), pixels)

    def join_blocks(
        self, phase: Phase, task: "Callable[[Tile], Callable[[], Faces]]"
    ) -> OpenComponents:
        """What the blocks tell of their open components, joined."""
        joining = Joining(self.grid)
        for tile, faces in self.look(phase, task, Faces):
            joining.add(tile, faces)
        return joining.finish()

    def write_coarser_levels(self) -> None:
        """Write all levels but the finest, which is stored."""
        derive_all_levels(self.run, self.volume, self.ledger, self.tile, 0)

    def publish(self, provenance: Mapping[str, Any]) -> None:
        """Let it appear at the end."""
        folder = checksums_folder(self.volume.directory, self.image.levels[0].path)
        plan = {"level": 0, "tile": self.tile}
        common = {"version": version("tilesegment"), "plan": plan}
        publish_volume(folder, self.volume, self.ledger, {**common, **provenance})


def _found_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.npz"


def _read_found(path: Path, kind: type[Found]) -> Found | None:
    """What a look has found; None if it is not there, or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return kind(**{name: values[()] for name, values in stored.items()})
    except (OSError, ValueError, TypeError, BadZipFile):
        return None


@contextmanager
def new_labels(
    image: Image,
    layout: LabelLayout,
    facts: Mapping[str, Any],
    client: "Client",
    report: "Callable[[Progress], None] | None",
) -> Iterator[NewLabels]:
    """A label image of this name, in the image's store once the block has ended well.

    What an earlier block has left that was cut short is there, if it had the same facts.

    Raises:
        OutputError: if it cannot be written.
    """
    directory = _directory(image, layout.name)
    beside = beside_labels(directory)
    refuse_living_driver(beside)
    fingerprint = {**facts, "tile": layout.tile, "version": version("tilesegment")}
    if not is_unfinished_run(beside, fingerprint):
        remove_labels(beside)
    try:
        with Ledger(beside, fingerprint) as ledger:
            volume = choose_publishing(layout_volume(image, layout, beside))
            run = Run(client, uuid.uuid4().hex[:12], "", report)
            yield NewLabels(image, volume, ledger, layout.tile, run)
            ledger.remove()
    except InputError:
        # What is damaged would not be whole the next time.
        remove_labels(beside)
        with suppress(OSError):
            directory.parent.rmdir()
        raise
    swap_labels(beside, directory)
    announce_labels(directory, image.version)


@contextmanager
def scratch_labels(labels: NewLabels, dtype: str) -> Iterator[NewLabels]:
    """Labels of one level that are needed on the way; they go with the ledger of the others."""
    directory = labels.ledger.directory / "scratch"
    layout = make_layout(labels.image, "scratch", dtype, labels.tile, ())
    with Ledger(directory, {}) as ledger:
        volume = layout_volume(labels.image, layout, directory)
        volume = replace(volume, publishing=labels.volume.publishing)
        yield replace(labels, volume=volume, ledger=ledger)


def state_of(image: Image) -> dict[str, str]:
    """What is another once an image, or its pixels of the finest level, were written anew."""
    inventory = image.inventory(0)
    metadata = json.dumps(dict(image.group.attrs), sort_keys=True, default=str)
    return {
        "metadata": hashlib.sha256(metadata.encode()).hexdigest(),
        "sizes": inventory.sizes,
        "times": inventory.times,
    }


def make_layout(
    image: Image, name: str, dtype: str, tile: int, properties: tuple[Any, ...]
) -> LabelLayout:
    """The layout of a label image in the image's store.

    Raises:
        OptionError: if the tile cannot be one.
    """
    if not 1 <= tile <= _LARGEST_TILE:
        raise OptionError(f"--tile {tile} is not a number of pixels, 1 to {_LARGEST_TILE}")
    source = "../../" if image.holds_labels else None
    return LabelLayout(name, image.version, dtype, tile, chunk_of(tile), tuple(properties), source)


def label_directory(image: Image, name: str, made_of: str) -> Path:
    """Where a label image of this name lies.

    Args:
        image: that it belongs to.
        name: of it.
        made_of: name of the label image that it is made of.

    Raises:
        OutputError: if it can be no name, or is the same.
    """
    if not name or "/" in name or name.startswith("."):
        raise OutputError(f"{name!r} cannot name a label image; use letters, digits, - and _")
    if name == made_of:
        raise OutputError(f"{name!r} is what the new labels are made of; choose another --name")
    return _directory(image, name)


def _directory(image: Image, name: str) -> Path:
    return on_disk(image.label_folder, "making labels of labels").resolve() / name


def is_complete(directory: Path, image: Image, facts: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether the labels of these facts are there already.

    Raises:
        OutputError: if something else is, unless it is a label image and to be replaced.
    """
    swapped = finish_swap(directory)
    refuse_foreign(directory, overwrite)
    refuse_living_driver(directory)
    made = published_provenance(directory)
    is_same = made is not None and made.get("fingerprint") == json.loads(json.dumps(facts))
    if is_same and (swapped or not overwrite):
        announce_labels(directory, image.version)
        return True
    if (made is not None or (directory / LEDGER_NAME).is_dir()) and not overwrite:
        raise OutputError(f"{directory} exists already; choose another name, or use --overwrite")
    return False


def open_inside(image: str | Path, labels: str | None) -> tuple[Labelled, Image]:
    """The labels of this name, or the only ones, and the image that they are in.

    Raises:
        InputError: if they are absent, or have a store of their own.
    """
    labelled = open_labelled(absolute(locate(image)), labels)
    if labelled.image is None:
        raise InputError(
            f"{image} holds labels without their image; give the image that has them in labels/"
        )
    return labelled, labelled.image


def seconds_since(started: float) -> float:
    """To be told to people."""
    return round(time.perf_counter() - started, 3)
