"""Label images that are made of others: written beside their place, seen once they are whole."""

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tilesegment.components import Classes, Faces, Joining, OpenComponents
from tilesegment.errors import InputError, OptionError, OutputError
from tilesegment.storage.checksums import checksums_folder
from tilesegment.storage.exporting.labelled import Labelled, open_labelled
from tilesegment.storage.image import Image, MirroredPixels
from tilesegment.storage.labels import (
    LabelLayout,
    LabelVolume,
    beside_labels,
    layout_volume,
    published_provenance,
    refuse_foreign,
    remove_labels,
    swap_labels,
)
from tilesegment.storage.ledger import Ledger, refuse_living_driver
from tilesegment.storage.media import medium_of
from tilesegment.storage.objects import LEDGER_NAME
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
    from collections.abc import Callable

    from distributed import Client

TILE = 1024
"""Pixels per side of a block, if nobody says; the result does not depend on it."""
_LARGEST_TILE = 4096


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

    def each_block(
        self, phase: Phase, task: "Callable[[Tile], Callable[[], Any]]"
    ) -> Iterator[tuple[Tile, Any]]:
        """What the tasks of all blocks give, on the workers, as they come."""
        from tilesegment.execution.engine import map_blocks

        grid, pixels = self.grid, 0
        report_progress(self.run, phase, 0, len(grid), 0)
        found = map_blocks(self.run.client, grid, task, f"{phase}-{self.run.name}")
        for done, (tile, result) in enumerate(found, start=1):
            window = grid.write_window(tile)
            pixels += window.height * window.width
            yield tile, result
            report_progress(self.run, phase, done, len(grid), pixels)

    def join_blocks(
        self, phase: Phase, task: "Callable[[Tile], Callable[[], Faces]]"
    ) -> OpenComponents:
        """What the blocks tell of their open components, joined."""
        joining = Joining(self.grid)
        for tile, faces in self.each_block(phase, task):
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


@contextmanager
def new_labels(
    image: Image,
    layout: LabelLayout,
    fingerprint: Mapping[str, Any],
    client: "Client",
    overwrite: bool,
    report: "Callable[[Progress], None] | None",
) -> Iterator[NewLabels]:
    """A label image of this name, in the image's store once the block has ended well.

    Raises:
        OutputError: if there is one already, or it cannot be written.
    """
    directory = _directory(image, layout.name)
    beside = beside_labels(directory)
    refuse_taken(directory, overwrite)
    refuse_living_driver(beside)
    remove_labels(beside)
    try:
        with Ledger(beside, fingerprint) as ledger:
            volume = choose_publishing(layout_volume(image, layout, beside))
            run = Run(client, uuid.uuid4().hex[:12], "", report)
            yield NewLabels(image, volume, ledger, layout.tile, run)
            ledger.remove()
        swap_labels(beside, directory)
        announce_labels(directory, image.version)
    except BaseException:
        remove_labels(beside)
        with suppress(OSError):
            directory.parent.rmdir()
        raise


def scratch_volume(labels: NewLabels, dtype: str) -> LabelVolume:
    """A volume for what is needed on the way; it goes with the ledger."""
    directory = labels.ledger.directory / f"scratch-{uuid.uuid4().hex[:8]}"
    layout = make_layout(labels.image, "scratch", dtype, labels.tile, ())
    medium_of(directory).prepare(directory)
    volume = layout_volume(labels.image, layout, directory)
    return replace(volume, publishing=labels.volume.publishing)


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


def refuse_taken(directory: Path, overwrite: bool) -> None:
    """Refuse a name under which there is something.

    Raises:
        OutputError: unless it is a label image and to be replaced.
    """
    refuse_foreign(directory, overwrite)
    refuse_living_driver(directory)
    is_there = published_provenance(directory) is not None or (directory / LEDGER_NAME).is_dir()
    if is_there and not overwrite:
        raise OutputError(f"{directory} exists already; choose another name, or use --overwrite")


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
