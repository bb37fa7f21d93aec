"""From a plan to written tiles: one dask graph per region, each a map_overlap with the halo.

The graph of a region::

    pixels ──overlap──> haloed tile ──predict──> labels ──write──> record
    ordinary threads                 one thread   ordinary threads

`dask.array.overlap.overlap` and the mapped function are map_overlap's two halves; kept apart,
because only the second may be annotated with the thread it runs on (docs/adr/0002).
"""

import time
from collections.abc import Hashable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.array.overlap import overlap
from dask.highlevelgraph import HighLevelGraph
from distributed import Client, Future, KilledWorker, Worker, as_completed

from tilesegment.errors import IncompleteError
from tilesegment.execution.memory import yield_to_inference
from tilesegment.execution.verification import WindowCheck, WindowChecker
from tilesegment.execution.worker import TileWriter, predict_tile
from tilesegment.mask import Mask
from tilesegment.planning import Plan
from tilesegment.storage.image import MirroredPixels
from tilesegment.storage.labels import LabelVolume
from tilesegment.storage.ledger import TileRecord
from tilesegment.tiling import Region, Tile, Window, region_cuts

_DRAIN_SECONDS = 20
_TILES_AHEAD = 64
"""Tiles that the scheduler has at least: the next region is there before the last runs dry."""


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
        yield_to_inference()
        _, rows, columns = selection
        window = Window(
            self.top + rows.start,
            self.left + columns.start,
            rows.stop - rows.start,
            columns.stop - columns.start,
        )
        return self.pixels.read(self.plane, window)


def segment_tiles(
    client: Client,
    plan: Plan,
    pixels: MirroredPixels,
    writer: TileWriter,
    plugin: str,
    done: Mapping[int, TileRecord],
    mask: Mask | None = None,
) -> Iterator[TileRecord]:
    """Segment and write every tile that is not done; yield each record as it comes.

    Tiles of which the mask wants no pixel are written without being read or computed.

    Raises:
        TilesegmentError: the first that a tile raised; later tiles are not begun.
    """
    grid = plan.grid
    batches = (
        _region_graph(plan, region, tiles, pixels, writer, plugin, mask)
        for region in plan.region_list()
        if (tiles := [tile for tile in region.tiles() if grid.number(tile) not in done])
    )
    yield from _compute(client, batches, _TILES_AHEAD)


def derive_levels(
    client: Client, volume: LabelVolume, level: int, neighbour: int, tile: int, run: str
) -> Iterator[Window]:
    """Write one pyramid level from the next one that is stored; yield each window when done."""
    grid = volume.grid(level, tile)
    batches = (
        _derive_graph(volume, level, neighbour, tile_, grid.write_window(tile_), run)
        for tile_ in grid.tiles()
    )
    yield from _compute(client, batches, _TILES_AHEAD)


def check_windows(
    client: Client, checker: WindowChecker, windows: Iterable[tuple[int, Window]], plugin: str
) -> Iterator[WindowCheck]:
    """Compute windows, each a plane and a rectangle, again; yield each finding as it comes."""
    batches = (
        _check_graph(checker, plane, window, plugin, f"check-{plugin}-{number}")
        for number, (plane, window) in enumerate(windows)
    )
    yield from _compute(client, batches, _TILES_AHEAD)


Batch = tuple[HighLevelGraph | dict[Hashable, Any], list[Hashable]]
"""A graph and the keys that are wanted of it."""


def _region_graph(
    plan: Plan,
    region: Region,
    tiles: Iterable[Tile],
    pixels: MirroredPixels,
    writer: TileWriter,
    plugin: str,
    mask: Mask | None = None,
) -> Batch:
    """Names carry the plugin's, which is new for each run: dask never returns an older result."""
    name = f"{plugin}-{region.plane}-{region.first_row}-{region.first_column}"
    haloed = _haloed_blocks(plan, region, pixels, name)
    grid = plan.grid
    labels, records = {}, {}
    for tile in tiles:
        row, column = tile.row - region.first_row, tile.column - region.first_column
        # Block 0 of each axis is the region's rim.
        block = (haloed.name, 0, row + 1, column + 1)
        key = (f"labels-{name}", row, column)
        window = grid.write_window(tile)
        cover = "all" if mask is None else mask.cover(tile.plane, window)
        where = (grid.number(tile), tile.plane, window)
        if cover == "none":
            records[f"record-{name}", row, column] = (writer.write_background, *where)
            continue
        labels[key] = (predict_tile, block, plugin)
        part = () if mask is None or cover == "all" else (mask.cut(tile.plane, window),)
        records[f"record-{name}", row, column] = (writer.write, key, *where, *part)
    with dask.annotate(executor=plugin, resources={plugin: 1}):
        graph = HighLevelGraph.from_collections(f"labels-{name}", labels, dependencies=[haloed])
    layers = {**graph.layers, f"record-{name}": records}
    dependencies = {**graph.dependencies, f"record-{name}": {f"labels-{name}"}}
    keys: list[Hashable] = list(records)
    return HighLevelGraph(layers, dependencies).cull(set(keys)), keys


def _haloed_blocks(plan: Plan, region: Region, pixels: MirroredPixels, name: str) -> da.Array:
    """The region's tiles with their halos, as the blocks of an array (c, y, x)."""
    rows = region_cuts(region.first_row, region.rows, plan.tile, plan.halo)
    columns = region_cuts(region.first_column, region.columns, plan.tile, plan.halo)
    channels = plan.source.channels
    shape = (channels, rows[-1] - rows[0], columns[-1] - columns[0])
    here = pixels.around(Window(rows[0], columns[0], *shape[1:]))
    blocks = da.from_array(
        _RegionPixels(here, region.plane, rows[0], columns[0], shape),
        chunks=((channels,), _steps(rows), _steps(columns)),
        name=f"pixels-{name}",
        asarray=False,
        inline_array=True,
        meta=np.empty((0, 0, 0), pixels.dtype),
    )
    depth = {0: 0, 1: plan.halo, 2: plan.halo}
    return overlap(blocks, depth=depth, boundary="none", allow_rechunk=False)


def _steps(cuts: list[int]) -> tuple[int, ...]:
    return tuple(after - before for before, after in pairwise(cuts))


def _check_graph(
    checker: WindowChecker, plane: int, window: Window, plugin: str, name: str
) -> Batch:
    with dask.annotate(executor=plugin, resources={plugin: 1}):
        tasks = {name: (checker.check, plane, window, plugin)}
        return HighLevelGraph.from_collections(name, tasks), [name]


def _derive_graph(
    volume: LabelVolume, level: int, neighbour: int, tile: Tile, window: Window, run: str
) -> Batch:
    key = f"level-{run}-{level}-{tile.plane}-{tile.row}-{tile.column}"
    return {key: (_derive, volume, level, neighbour, tile.plane, window)}, [key]


def _derive(volume: LabelVolume, level: int, neighbour: int, plane: int, window: Window) -> Window:
    volume.derive(level, neighbour, plane, window)
    return window


def _compute(client: Client, batches: Iterable[Batch], ahead: int) -> Iterator[Any]:
    """Compute the keys of all batches; a new batch is sent while fewer than `ahead` are awaited.

    Each result is fetched and released at once: a result that stayed on a worker would be
    computed again if that worker died.
    """
    waiting = iter(batches)
    completed = as_completed(loop=client.loop)
    try:
        while True:
            while completed.count() < ahead and (batch := next(waiting, None)):
                graph, keys = batch
                completed.update(client.get(graph, keys, sync=False))
            if completed.is_empty():
                return
            yield _fetch(next(completed))
    except BaseException:
        client.cancel(list(completed.futures))
        _wait_until_idle(client)
        raise


def _wait_until_idle(client: Client) -> None:
    """Let tiles in flight end: a cancelled task that has begun still writes."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    with suppress(OSError, CancelledError):
        while any(client.run(_executing).values()) and time.monotonic() < deadline:
            time.sleep(0.05)


def _executing(dask_worker: Worker) -> int:
    return int(dask_worker.state.executing_count)


def _fetch(future: Future) -> Any:
    try:
        result = future.result()
    except KilledWorker as error:
        raise IncompleteError(
            "workers died several times at one tile, most likely for lack of memory; use a "
            "smaller --tile or fewer --workers and run the same command again: finished tiles "
            "are kept"
        ) from error
    except CancelledError as error:
        raise IncompleteError(
            "the scheduler was lost; run the same command again: finished tiles are kept"
        ) from error
    future.release()
    return result
