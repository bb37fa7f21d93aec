"""Label images without small regions and small holes."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tilesegment.cleaning import (
    BORDER,
    Cleaning,
    classes_above,
    fill_holes,
    find_holes,
    find_regions,
    remove_small,
)
from tilesegment.components import (
    Classes,
    Faces,
    Identities,
    Numbers,
    OpenComponents,
    describe_faces,
)
from tilesegment.config import ClusterOptions
from tilesegment.errors import OptionError
from tilesegment.storage.labels import LabelVolume, published_provenance
from tilesegment.storage.ledger import TileRecord
from tilesegment.tiling import Tile, TileGrid
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
    seconds_since,
    state_of,
)
from tilesegment.usecases.workers import Progress


@dataclass(frozen=True)
class CleanSummary:
    """What a cleaning did."""

    labels: str
    """Path of the new label image."""
    pixels: int
    """Of the image, in all planes."""
    changed: int
    """Pixels whose class is another one now."""
    seconds: float


def clean(
    image: str | Path,
    labels: str | None = None,
    *,
    cleaning: Cleaning,
    name: str | None = None,
    tile: int = TILE,
    cluster: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
    overwrite: bool = False,
    report: Callable[[Progress], None] | None = None,
) -> CleanSummary:
    """Write a label image without small regions and holes; the same for every tile size.

    The same call again resumes what was cut short, or finds that it is complete.

    Args:
        image: path of an OME-Zarr image.
        labels: name of a label image of classes in it; not needed if there is only one.
        cleaning: what is cleaned away.
        name: of the new label image; by default that of the labels and "-clean".
        tile: pixels per side of a block.
        cluster: who computes.
        overwrite: replace a label image of that name, once the new one is whole.
        report: called after each block.

    Raises:
        InputError: the image or the labels are absent or damaged.
        OptionError: there is nothing to clean, or an option cannot work.
        OutputError: the new labels exist, or cannot be written.
    """
    from tilesegment.execution.cluster import open_cluster

    if not cleaning:
        raise OptionError("there is nothing to clean: give --min-area or --fill-holes")
    started = time.perf_counter()
    labelled, opened = open_inside(image, labels)
    name = name or f"{labelled.name}-clean"
    classes = tuple(labelled.classes.values())
    layout = make_layout(opened, name, str(labelled.dtype), tile, classes)
    directory = label_directory(opened, name, labelled.name)
    facts = {"cleaned": labelled.name, **asdict(cleaning), "labels": state_of(labelled.labels)}
    if not is_complete(directory, opened, facts, overwrite):
        with (
            open_cluster(cluster) as client,
            new_labels(opened, layout, facts, client, report) as made,
        ):
            clean_blocks(made, StoredClasses(labelled.labels.pixels(0)), cleaning)
            changed = sum(record.counts[0] for record in made.ledger.finished(0).values())
            made.write_coarser_levels()
            made.publish({"fingerprint": facts, "changed": changed})
    changed = (published_provenance(directory) or {})["changed"]
    pixels = labelled.labels.planes(0) * labelled.size.y * labelled.size.x
    return CleanSummary(str(directory), pixels, changed, seconds_since(started))


def clean_blocks(made: NewLabels, source: ClassMap, cleaning: Cleaning) -> None:
    """Write the finest level: the classes of the source, cleaned."""
    cleaner = _Cleaner(source, made.grid, cleaning, made.volume)
    regions = holes = None
    if cleaning.min_area:
        regions = made.join_blocks("regions", lambda tile: partial(cleaner.describe_regions, tile))
    if cleaning.fill_holes:
        holes = made.join_blocks(
            "holes",
            lambda tile: partial(cleaner.describe_holes, tile, cleaner.small(regions, tile)),
        )

    def task(tile: Tile) -> Callable[[], TileRecord]:
        return partial(
            cleaner.write, tile, cleaner.small(regions, tile), *cleaner.fillings(holes, tile)
        )

    made.write_blocks("cleaning", task)


_NONE = np.zeros(0, np.int32)


@dataclass(frozen=True)
class _Cleaner:
    """The tasks of blocks, and what the driver tells them of their open components."""

    source: ClassMap
    grid: TileGrid
    cleaning: Cleaning
    volume: LabelVolume

    def small(self, regions: OpenComponents | None, tile: Tile) -> Identities:
        """Labels of the open regions that are small."""
        if regions is None:
            return _NONE
        return regions.labels_where(self.grid.number(tile), regions.areas < self.cleaning.min_area)

    def fillings(self, holes: OpenComponents | None, tile: Tile) -> tuple[Identities, Numbers]:
        """Labels of the open holes that are small, and the classes that they get."""
        if holes is None:
            return _NONE, np.zeros(0, np.int64)
        number = self.grid.number(tile)
        wanted = (holes.areas < self.cleaning.fill_holes) & ~holes.rim
        whole = holes.whole[holes.places[number]]
        return holes.labels_where(number, wanted), holes.marks[whole[wanted[whole]]]

    def describe_regions(self, tile: Tile) -> Faces:
        """First look, for small regions."""
        window = self.grid.write_window(tile)
        around = window.grown(BORDER).clipped(self.grid.image)
        classes = self.source.read(tile.plane, around)
        return describe_faces(find_regions(classes, around, window, self.grid), tile, self.grid)

    def describe_holes(self, tile: Tile, small: Identities) -> Faces:
        """Second look, for small holes among what is left."""
        _, classes, above = self._without_small(tile, small)
        holes = find_holes(classes, self.grid.write_window(tile), self.grid)
        return describe_faces(holes, tile, self.grid, classes_above(classes, above, holes))

    def write(
        self, tile: Tile, small: Identities, filled: Identities, fillings: Numbers
    ) -> TileRecord:
        """Third look: clean and write."""
        window = self.grid.write_window(tile)
        before, classes, above = self._without_small(tile, small)
        if self.cleaning.fill_holes:
            holes = find_holes(classes, window, self.grid)
            marks = classes_above(classes, above, holes)
            most = self.cleaning.fill_holes
            classes = fill_holes(classes, holes, marks, most, self.grid, filled, fillings)
        written = self.volume.write(0, tile.plane, window, classes)
        changed = int((before != classes).sum())
        return TileRecord(self.grid.number(tile), (changed,), 0, written.objects)

    def _without_small(self, tile: Tile, small: Identities) -> tuple[Classes, Classes, Classes]:
        """The classes of a block as they are, and without small regions; and the row above it."""
        window = self.grid.write_window(tile)
        around = window.grown(BORDER).clipped(self.grid.image)
        classes = self.source.read(tile.plane, around)
        inner = window.seen_from(around)
        block = classes[inner.slices]
        above = np.zeros(window.width, classes.dtype)
        if inner.y:
            above = classes[0, inner.x : inner.x + inner.width]
        if not self.cleaning.min_area:
            return block, block, above
        regions = find_regions(classes, around, window, self.grid)
        return block, remove_small(block, regions, self.cleaning.min_area, small), above
