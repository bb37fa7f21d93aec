"""From classes to objects: instances across tiles, numbered and measured."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tilesegment.cleaning import Cleaning
from tilesegment.components import (
    BlockComponents,
    BlockNumbers,
    Faces,
    Numbering,
    describe_faces,
    find_components,
    identify,
)
from tilesegment.config import ClusterOptions
from tilesegment.splitting import Split, join
from tilesegment.storage.exporting.density import Density, check_density, write_density
from tilesegment.storage.exporting.destination import check_free
from tilesegment.storage.exporting.labelled import Labelled
from tilesegment.storage.exporting.tables import check_table, write_table
from tilesegment.storage.labels import LabelVolume
from tilesegment.storage.ledger import TileRecord
from tilesegment.storage.measurements import (
    StoredMeasurements,
    open_measurements,
)
from tilesegment.tiling import Tile, TileGrid, Window
from tilesegment.usecases.clean import clean_blocks
from tilesegment.usecases.measure_objects import measure_objects
from tilesegment.usecases.new_labels import (
    TILE,
    ClassMap,
    NewLabels,
    StoredClasses,
    is_complete,
    label_directory,
    make_layout,
    new_labels,
    open_inside,
    scratch_labels,
    seconds_since,
    state_of,
)
from tilesegment.usecases.workers import Progress


@dataclass(frozen=True)
class ObjectsSummary:
    """What was found."""

    labels: str
    """Path of the label image of identities."""
    objects: int
    classes: Mapping[str, int]
    """Objects of each class by name."""
    border: int
    """Pixels around a block on which its objects were made to depend by splitting."""
    table: str | None
    """Path of the table, if one was asked for."""
    density: str | None
    """Path of the density map, if one was asked for."""
    seconds: float


@dataclass(frozen=True)
class ObjectFiles:
    """Files that are written beside the label image; None for none."""

    table: Path | None = None
    """Parquet or CSV, by its ending."""
    density: Path | None = None
    """How many objects there are where: TIFF or PNG, by its ending."""
    cell: int = 256
    """Pixels per side of a cell of the density map."""

    def check(self, overwrite: bool) -> None:
        """Whether they can be written.

        Raises:
            OptionError, OutputError: if they cannot.
        """
        if self.table is not None:
            check_table(self.table)
            check_free(self.table, overwrite)
        if self.density is not None:
            check_density(self.density, self.cell)
            check_free(self.density, overwrite)


def objects(
    image: str | Path,
    labels: str | None = None,
    *,
    name: str | None = None,
    split: Split = Split(),  # noqa: B008 - frozen
    cleaning: Cleaning = Cleaning(),  # noqa: B008 - frozen
    files: ObjectFiles = ObjectFiles(),
    tile: int = TILE,
    cluster: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
    overwrite: bool = False,
    report: Callable[[Progress], None] | None = None,
) -> ObjectsSummary:
    """Write the objects in a label image of classes as a label image of identities, and measure.

    An object is a 4-connected component of one class, or a part of one if objects that touch
    are split. Identities go from 1 in the order of first pixels. They and all measurements are
    the same for every tile size and number of workers. The same call again resumes what was cut
    short, or finds that it is complete.

    Args:
        image: path of an OME-Zarr image.
        labels: name of a label image of classes in it; not needed if there is only one.
        name: of the label image of objects; by default that of the labels and "-objects".
        split: how objects that touch are told apart.
        cleaning: small regions and holes that are no objects, and no holes in them.
        files: a table and a density map.
        tile: pixels per side of a block.
        cluster: who computes.
        overwrite: replace label image and files, once the new ones are whole.
        report: called after each block.

    Raises:
        InputError: the image or the labels are absent or damaged.
        OptionError: an option cannot work, or a library is not installed.
        OutputError: the output exists, or cannot be written.
    """
    from tilesegment.execution.cluster import open_cluster

    started = time.perf_counter()
    files.check(overwrite)
    labelled, opened = open_inside(image, labels)
    name = name or f"{labelled.name}-objects"
    layout = make_layout(opened, name, "int32", tile, ())
    directory = label_directory(opened, name, labelled.name)
    facts = {
        "objects of": labelled.name,
        "split": asdict(split),
        "cleaning": asdict(cleaning),
        "labels": state_of(labelled.labels),
        "image": state_of(opened),
    }
    if not is_complete(directory, opened, facts, overwrite):
        with (
            open_cluster(cluster) as client,
            new_labels(opened, layout, facts, client, report) as made,
            _cleaned(made, labelled, cleaning) as source,
        ):
            count = _write_identities(made, source, split)
            made.write_coarser_levels()
            measure_objects(made, source, labelled, count)
            made.publish({"fingerprint": facts, "objects": count})
    stored = open_measurements(directory)
    assert stored is not None  # noqa: S101 - for mypy; it was written above
    return replace(
        _write_files(stored, labelled, files),
        labels=str(directory),
        border=split.border,
        seconds=seconds_since(started),
    )


@contextmanager
def _cleaned(made: NewLabels, labelled: Labelled, cleaning: Cleaning) -> Iterator[ClassMap]:
    """The classes, without what is to be cleaned away."""
    source = StoredClasses(labelled.labels.pixels(0))
    if not cleaning:
        yield source
        return
    with scratch_labels(made, str(labelled.dtype)) as scratch:
        clean_blocks(scratch, source, cleaning)
        yield _VolumeClasses(scratch.volume)


@dataclass(frozen=True)
class _VolumeClasses:
    """The finest level of a volume that is not published."""

    volume: LabelVolume

    def read(self, plane: int, window: Window) -> Any:
        return self.volume.read(0, plane, window)


def _write_identities(made: NewLabels, source: ClassMap, split: Split) -> int:
    """Write the finest level; returns the number of objects."""
    finder = _Finder(source, made.grid, split, made.volume)
    numbering = Numbering(made.join_blocks("objects", lambda tile: partial(finder.describe, tile)))

    def task(tile: Tile) -> Callable[[], TileRecord]:
        return partial(finder.write, tile, numbering.of_block(tile))

    made.write_blocks("identities", task)
    return numbering.count


@dataclass(frozen=True)
class _Finder:
    """The tasks of blocks that find objects and give them their identities."""

    source: ClassMap
    grid: TileGrid
    split: Split
    volume: LabelVolume

    def describe(self, tile: Tile) -> Faces:
        """First look: what the driver must know."""
        return describe_faces(self._find(tile), tile, self.grid)

    def write(self, tile: Tile, numbers: BlockNumbers) -> TileRecord:
        """Second look: write the identities."""
        identities = identify(self._find(tile), numbers)
        window = self.grid.write_window(tile)
        written = self.volume.write(0, tile.plane, window, identities)
        return TileRecord(self.grid.number(tile), (), 0, written.objects)

    def _find(self, tile: Tile) -> BlockComponents:
        window = self.grid.write_window(tile)
        around = window.grown(self.split.border).clipped(self.grid.image)
        joins = join(self.source.read(tile.plane, around), self.split)
        return find_components(joins.cut(window.seen_from(around)), window, self.grid)


def _write_files(
    stored: StoredMeasurements, labelled: Labelled, files: ObjectFiles
) -> ObjectsSummary:
    """Write what was asked for, and count."""
    counts: Counter[int] = Counter()
    density = Density(labelled.size, labelled.labels.planes(0), files.cell)
    for piece in stored.pieces():
        counts.update(piece["class"].tolist())
        density.add(piece["plane"], piece["centroid_y"], piece["centroid_x"])
    if files.table is not None:
        write_table(files.table, stored)
    if files.density is not None:
        write_density(files.density, density, labelled.pixel_size_um)
    return ObjectsSummary(
        labels="",
        objects=stored.count,
        classes={stored.class_name(value): counts[value] for value in sorted(counts)},
        border=0,
        table=None if files.table is None else str(files.table),
        density=None if files.density is None else str(files.density),
        seconds=0.0,
    )
