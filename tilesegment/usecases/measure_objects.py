"""The measurements of numbered objects: block by block, then by ranges of identities."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilesegment.components import Classes, Identities
from tilesegment.measuring import (
    BORDER,
    COLUMNS,
    Channel,
    Intensities,
    Rows,
    combine,
    measure_block,
)
from tilesegment.storage.exporting.labelled import Labelled
from tilesegment.storage.image import Image, MirroredPixels
from tilesegment.storage.labels import LabelVolume
from tilesegment.storage.measurements import ROWS, MeasurementWriter
from tilesegment.storage.objects import write_whole
from tilesegment.storage.probabilities import (
    LARGEST_VALUE,
    PROBABILITIES_NAME,
    open_probabilities,
)
from tilesegment.storage.remote import on_disk
from tilesegment.tiling import Tile, TileGrid, Window
from tilesegment.usecases.new_labels import ClassMap, NewLabels
from tilesegment.view.channels import channel_names


def measure_objects(made: NewLabels, source: ClassMap, labelled: Labelled, count: int) -> None:
    """Measure all objects, and store it with the labels."""
    folder = on_disk(made.ledger.directory, "objects") / "rows"
    folder.mkdir(exist_ok=True)
    meter = _make_meter(made, source, labelled, folder)
    spans = dict(made.look("measurements", lambda tile: partial(meter.measure, tile), _Span))
    size = labelled.pixel_size_um
    area = None if size is None else size[0] * size[1]
    names = {value: item.name for value, item in labelled.classes.items()}
    writer, directory = None, on_disk(made.volume.directory, "objects")
    for low in range(1, max(count, 1) + 1, ROWS):
        found = combine(meter.rows(spans, low, low + ROWS), meter.channels, area).columns
        writer = writer or MeasurementWriter(directory, made.image.version, found, count, names)
        writer.write(low - 1, found)


def _make_meter(made: NewLabels, source: ClassMap, labelled: Labelled, folder: Path) -> "_Meter":
    """What measures the channels of the image, and the probabilities if there are any."""
    intensities = _intensities(made)
    channels = [Channel(f"mean_{name}", intensities) for name in _channel_names(made.image)]
    probabilities, positions = None, {}
    if PROBABILITIES_NAME in labelled.labels.group:
        opened = open_probabilities(labelled.labels)
        probabilities = opened.pixels(0)
        named = {name: position for position, name in enumerate(channel_names(opened))}
        positions = {
            value: named[item.name]
            for value, item in labelled.classes.items()
            if item.name in named
        }
        channels.append(Channel("mean_probability", divisor=LARGEST_VALUE))
    return _Meter(
        source, made.volume, made.image.pixels(0), probabilities, positions, tuple(channels),
        made.grid, folder,
    )  # fmt: skip


def _channel_names(image: Image) -> list[str]:
    """Names of the channels as the viewer has them, as words of a column; unique."""
    names = [re.sub(r"\W+", "_", name).strip("_").lower() for name in channel_names(image)]
    if len(set(names)) < len(names) or not all(names) or "probability" in names:
        return [f"{name or 'channel'}_{number}" for number, name in enumerate(names)]
    return names


def _intensities(made: NewLabels) -> Intensities:
    """How pixel values are added up; floats ask for their largest magnitude first."""
    pixels = made.image.pixels(0)
    kept = Intensities.of(pixels.dtype, 0.0)
    if kept == Intensities():
        return kept
    grid = made.grid
    found = made.look("range", lambda tile: partial(_largest, pixels, grid, tile), _Largest)
    return Intensities.of(pixels.dtype, max(each.magnitude for _, each in found))


@dataclass(frozen=True)
class _Largest:
    """What is known of the pixels of a block."""

    magnitude: float


def _largest(pixels: MirroredPixels, grid: TileGrid, tile: Tile) -> _Largest:
    block = pixels.read(tile.plane, grid.write_window(tile))
    return _Largest(float(np.abs(block.astype(np.float64)).max()))


@dataclass(frozen=True)
class _Span:
    """Which identities are in a block; 0 if none."""

    lowest: int
    highest: int


@dataclass(frozen=True)
class _Meter:
    """The tasks of blocks that measure; their rows wait in files, sorted by identity."""

    source: ClassMap
    volume: LabelVolume
    pixels: MirroredPixels
    probabilities: MirroredPixels | None
    positions: Mapping[int, int]
    """By class: its channel among the probabilities."""
    channels: tuple[Channel, ...]
    grid: TileGrid
    folder: Path

    def measure(self, tile: Tile) -> _Span:
        """Measure one block."""
        window = self.grid.write_window(tile)
        identities = self._identities(tile, window)
        if not identities[BORDER:-BORDER, BORDER:-BORDER].any():
            return _Span(0, 0)
        classes = self.source.read(tile.plane, window)
        values = [*self.pixels.read(tile.plane, window)]
        if self.probabilities is not None:
            values.append(self._probability(self.probabilities, classes, tile.plane, window))
        rows = measure_block(identities, classes, values, self.channels, tile.plane, window)
        buffer = io.BytesIO()
        np.save(buffer, rows)
        write_whole(self._file(tile), buffer.getvalue())
        return _Span(int(rows[0, 0]), int(rows[-1, 0]))

    def rows(self, spans: Mapping[Tile, _Span], low: int, high: int) -> Rows:
        """The rows of objects with identities from `low` to below `high`, of all blocks."""
        found = [np.zeros((0, len(COLUMNS) + len(self.channels)), np.int64)]
        for tile, span in spans.items():
            if span.lowest and span.lowest < high and span.highest >= low:
                rows = np.load(self._file(tile), mmap_mode="r")
                start, stop = np.searchsorted(rows[:, 0], (low, high))
                found.append(np.array(rows[start:stop]))
        return np.concatenate(found)

    def _probability(
        self, stored: MirroredPixels, classes: Classes, plane: int, window: Window
    ) -> npt.NDArray[np.uint8]:
        """That of the class that each pixel has, (y, x); 0 for classes without one."""
        found = np.zeros(classes.shape, np.uint8)
        values = stored.read(plane, window)
        for value, position in self.positions.items():
            np.copyto(found, values[position], where=classes == value)
        return found

    def _file(self, tile: Tile) -> Path:
        return self.folder / f"{self.grid.number(tile)}.npy"

    def _identities(self, tile: Tile, window: Window) -> Identities:
        """Those of a block and its border; 0 beyond the image."""
        wanted = window.grown(BORDER)
        there = wanted.clipped(self.grid.image)
        framed = np.zeros((wanted.height, wanted.width), np.int32)
        framed[there.seen_from(wanted).slices] = self.volume.read(0, tile.plane, there)
        return framed
