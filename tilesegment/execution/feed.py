"""What the scheduler is given so that tiles are segmented: a map_overlap, or a task per tile.

The graph of a region::

    pixels ──overlap──> haloed tile [──resample──> shown] ──predict──> labels ──write──> record
    ordinary threads                                  its own threads  ordinary threads

`dask.array.overlap.overlap` and the mapped function are map_overlap's two halves; kept apart,
because only the second may be annotated with the thread it runs on (docs/adr/0002).

For many workers the same steps are one task, which reads its halo itself (docs/adr/0019).
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask._task_spec import Task
from dask.array.overlap import overlap
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from tilesegment.execution.one_task import segment_tile
from tilesegment.execution.worker import TileWriter, predict_tile, read_pixels, resample_tile
from tilesegment.mask import Mask
from tilesegment.planning import Plan
from tilesegment.storage.image import MirroredPixels
from tilesegment.tiling import Region, Tile, Window, region_cuts


@dataclass(frozen=True)
class Batch:
    """What is sent to the scheduler at once."""

    graph: HighLevelGraph | dict[Hashable, Any]
    tiles: Mapping[Hashable, int]
    """The keys that are wanted, and the number of the tile that each gives."""
    avoid: str | None = None
    """Address of the worker on which this failed before; others are preferred."""


@dataclass(frozen=True)
class TileFeed:
    """The tasks of a run's tiles."""

    plan: Plan
    pixels: MirroredPixels
    writer: TileWriter
    run: str
    """Name of the run, new for each: dask never returns an older result."""
    plugin: str
    """Name of the model's plugin."""
    mask: Mask | None = None
    """Which pixels are wanted; None for all."""

    def batch(self, region: Region, tiles: Iterable[Tile], attempt: int = 0) -> Batch:
        """The tasks that segment and write tiles of a region.

        Tiles of which the mask wants no pixel are written without being read or computed.
        """
        name = f"{self.run}-{region.plane}-{region.first_row}-{region.first_column}-{attempt}"
        if self.plan.feed == "tile":
            return self._single_tasks(name, tiles)
        return self._map_overlap(name, region, tiles)

    def _single_tasks(self, name: str, tiles: Iterable[Tile]) -> Batch:
        tasks: dict[Hashable, Any] = {}
        wanted: dict[Hashable, int] = {}
        for tile in tiles:
            where, cover, part = self._target(tile)
            kind = "record" if cover == "none" else "tile"
            key = (f"{kind}-{name}", tile.row, tile.column)
            wanted[key] = self.plan.grid.number(tile)
            if cover == "none":
                tasks[key] = (self.writer.write_background, *where)
                continue
            haloed = self.plan.grid.read_window(tile, self.plan.halo)
            what = (self.plugin, self.pixels, haloed, self.writer)
            # As the tasks that read are marked: dask deals out the others all at once.
            tasks[key] = Task(key, segment_tile, *what, *where, *part, _data_producer=True)
        return Batch(tasks, wanted)

    def _map_overlap(self, name: str, region: Region, tiles: Iterable[Tile]) -> Batch:
        haloed = self._haloed_blocks(region, name)
        shown: dict[Hashable, Any] = {}
        labels: dict[Hashable, Any] = {}
        records: dict[Hashable, Any] = {}
        wanted: dict[Hashable, int] = {}
        for tile in tiles:
            row, column = tile.row - region.first_row, tile.column - region.first_column
            # Block 0 of each axis is the region's rim.
            block: Hashable = (haloed.name, 0, row + 1, column + 1)
            record = (f"record-{name}", row, column)
            wanted[record] = self.plan.grid.number(tile)
            where, cover, part = self._target(tile)
            if cover == "none":
                records[record] = (self.writer.write_background, *where)
                continue
            if self.plan.resampling is not None:
                resampled = (f"shown-{name}", row, column)
                shown[resampled] = (resample_tile, block, self.plan.resampling, where[-1])
                block = resampled
            key = (f"labels-{name}", row, column)
            labels[key] = (predict_tile, block, self.plugin)
            records[record] = (self.writer.write, key, *where, *part)
        with dask.annotate(executor=self.plugin, resources={self.plugin: 1}):
            predicted = MaterializedLayer(labels)
        added = {f"shown-{name}": shown, f"labels-{name}": predicted, f"record-{name}": records}
        pixels_layers = set(haloed.__dask_layers__())
        layers = {**haloed.dask.layers, **added}
        dependencies = {
            **haloed.dask.dependencies,
            f"shown-{name}": pixels_layers,
            f"labels-{name}": {f"shown-{name}"} if shown else pixels_layers,
            f"record-{name}": {f"labels-{name}"},
        }
        return Batch(HighLevelGraph(layers, dependencies).cull(set(wanted)), wanted)

    def _target(self, tile: Tile) -> tuple[tuple[int, int, Window], str, tuple[Mask, ...]]:
        """Number, plane and window of what a tile writes; how much of it the mask wants; and the
        mask's part, where it wants some of it.
        """
        window = self.plan.grid.write_window(tile)
        where = (self.plan.grid.number(tile), tile.plane, window)
        if self.mask is None:
            return where, "all", ()
        cover = self.mask.cover(tile.plane, window)
        return where, cover, (self.mask.cut(tile.plane, window),) if cover == "some" else ()

    def _haloed_blocks(self, region: Region, name: str) -> da.Array:
        """The region's tiles with their halos, as the blocks of an array (c, y, x)."""
        plan, pixels = self.plan, self.pixels
        rows = region_cuts(region.first_row, region.rows, plan.tile, plan.halo)
        columns = region_cuts(region.first_column, region.columns, plan.tile, plan.halo)
        channels = plan.source.channels
        shape = (channels, rows[-1] - rows[0], columns[-1] - columns[0])
        blocks = da.from_array(
            _RegionPixels(pixels, region.plane, rows[0], columns[0], shape),
            chunks=((channels,), _steps(rows), _steps(columns)),
            name=f"pixels-{name}",
            asarray=False,
            inline_array=True,
            meta=np.empty((0, 0, 0), pixels.dtype),
        )
        depth = {0: 0, 1: plan.halo, 2: plan.halo}
        return overlap(blocks, depth=depth, boundary="none", allow_rechunk=False)


@dataclass(frozen=True)
class _RegionPixels:
    """The pixels of a region and its rim, as an array that dask can slice: (c, y, x)."""

    pixels: MirroredPixels
    plane: int
    top: int
    left: int
    shape: tuple[int, int, int]

    ndim = 3

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.pixels.dtype

    def __getitem__(self, selection: tuple[slice, slice, slice]) -> npt.NDArray[Any]:
        _, rows, columns = selection
        window = Window(
            self.top + rows.start,
            self.left + columns.start,
            rows.stop - rows.start,
            columns.stop - columns.start,
        )
        return read_pixels(self.pixels, self.plane, window)


def _steps(cuts: list[int]) -> tuple[int, ...]:
    return tuple(after - before for before, after in pairwise(cuts))
