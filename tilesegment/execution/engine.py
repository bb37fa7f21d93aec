"""From a plan to written tiles: one dask graph per region, each a map_overlap with the halo.

The graph of a region::

    pixels ──overlap──> haloed tile [──resample──> shown] ──predict──> labels ──write──> record
    ordinary threads                                      one thread   ordinary threads

`dask.array.overlap.overlap` and the mapped function are map_overlap's two halves; kept apart,
because only the second may be annotated with the thread it runs on (docs/adr/0002).
"""

import time
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.array.overlap import overlap
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed import Client, Future, KilledWorker, Worker, as_completed

from tilesegment.errors import IncompleteError, InputError, UnexpectedError
from tilesegment.execution.memory import yield_to_inference
from tilesegment.execution.verification import WindowCheck, WindowChecker
from tilesegment.execution.worker import (
    TileWriter,
    WorkerFault,
    derive_tile,
    predict_tile,
    resample_tile,
    told_by_worker,
)
from tilesegment.mask import Mask
from tilesegment.planning import Plan
from tilesegment.retry import Failure, Trouble
from tilesegment.storage.image import MirroredPixels
from tilesegment.storage.labels import LabelVolume
from tilesegment.storage.ledger import TileRecord
from tilesegment.tiling import Region, Tile, TileGrid, Window, region_cuts

_DRAIN_SECONDS = 20
_SUMMARISED_BLOCK = 1024
"""Pixels per side that are read at once for statistics of the image."""
_IDLE_SECONDS = 0.5
"""After which `idle` is called again while no record comes."""
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
        with told_by_worker():
            return self._read(*selection[1:])

    def _read(self, rows: slice, columns: slice) -> npt.NDArray[Any]:
        window = Window(
            self.top + rows.start,
            self.left + columns.start,
            rows.stop - rows.start,
            columns.stop - columns.start,
        )
        return self.pixels.read(self.plane, window)


@dataclass(frozen=True)
class Batch:
    """What is sent to the scheduler at once."""

    graph: HighLevelGraph | dict[Hashable, Any]
    tiles: Mapping[Hashable, int]
    """The keys that are wanted, and the number of the tile that each gives."""
    avoid: str | None = None
    """Address of the worker on which this failed before; others are preferred."""


def segment_tiles(
    client: Client,
    plan: Plan,
    pixels: MirroredPixels,
    writer: TileWriter,
    run: str,
    plugin: str,
    wanted: Container[int],
    trouble: Trouble,
    idle: Callable[[], None],
    mask: Mask | None = None,
) -> Iterator[TileRecord]:
    """Segment and write every tile that is wanted; yield each record as it comes.

    Tiles of which the mask wants no pixel are written without being read or computed.

    Args:
        client: of the workers, which hold the model.
        plan: what is to be done.
        pixels: of the image.
        writer: of the labels.
        run: name of the run.
        plugin: name of the model's plugin.
        wanted: numbers of the tiles that are to be done.
        trouble: takes note of what fails; tells afterwards which tiles are quarantined.
        idle: called when no more records are ready for now, and again while none comes.
        mask: which pixels are wanted; None for all.

    Raises:
        TilesegmentError: if something failed that another try cannot mend.
    """
    grid = plan.grid
    regions = (
        _region_graph(plan, region, tiles, pixels, writer, run, plugin, mask)
        for region in plan.region_list()
        if (tiles := [tile for tile in region.tiles() if grid.number(tile) in wanted])
    )

    def alone(number: int, attempt: int) -> Batch:
        tile = grid.tile_at(number)
        region = Region(tile.plane, tile.row, tile.column, 1, 1)
        return _region_graph(plan, region, [tile], pixels, writer, run, plugin, mask, attempt)

    yield from _settle(client, regions, alone, trouble, idle)


def derive_levels(
    client: Client,
    volume: LabelVolume,
    level: int,
    neighbour: int,
    tile: int,
    run: str,
    done: Container[int],
    trouble: Trouble,
    idle: Callable[[], None],
) -> Iterator[TileRecord]:
    """Write one pyramid level from the next one that is stored; yield each record as it comes."""
    grid = volume.grid(level, tile)

    def alone(number: int, attempt: int) -> Batch:
        place = grid.tile_at(number)
        key = f"level-{run}-{level}-{number}-{attempt}"
        window = grid.write_window(place)
        task = (derive_tile, volume, level, neighbour, number, place.plane, window)
        return Batch({key: task}, {key: number})

    batches = (alone(number, 0) for number in range(len(grid)) if number not in done)
    yield from _settle(client, batches, alone, trouble, idle)


def check_windows(
    client: Client,
    checker: WindowChecker,
    windows: Iterable[tuple[int, Window]],
    run: str,
    plugin: str,
) -> Iterator[WindowCheck]:
    """Compute windows, each a plane and a rectangle, again; yield each finding as it comes.

    Raises:
        TilesegmentError: if one cannot be computed.
    """
    batches = (
        _check_graph(checker, number, plane, window, run, plugin)
        for number, (plane, window) in enumerate(windows)
    )
    for number, outcome in _compute(client, batches, _TILES_AHEAD, idle=lambda: None):
        if isinstance(outcome, BaseException):
            raise _failure(number, outcome).error
        yield outcome


def _settle(
    client: Client,
    batches: Iterable[Batch],
    alone: Callable[[int, int], Batch],
    trouble: Trouble,
    idle: Callable[[], None],
) -> Iterator[TileRecord]:
    """Compute all batches, and what failed again, until each tile is done or quarantined.

    A worker that dies takes innocent tiles with it, so that those are tried one at a time.

    Args:
        client: of the workers.
        batches: of tiles, in the order of computing.
        alone: a batch of one tile, by its number and the number of the attempt.
        trouble: decides what is tried again.
        idle: called when no more records are ready for now, and again while none comes.
    """
    yield from _round(client, batches, _TILES_AHEAD, trouble, idle)
    attempt = 0
    while again := trouble.again():
        attempt += 1
        failed_on = {number: trouble.last(number).worker for number in again}
        suspects = [number for number in again if failed_on[number] is None]
        others = [number for number in again if failed_on[number] is not None]
        for numbers, ahead in ((others, _TILES_AHEAD), (suspects, 1)):
            singles = (
                replace(alone(number, attempt), avoid=failed_on[number]) for number in numbers
            )
            yield from _round(client, singles, ahead, trouble, idle)


def _round(
    client: Client,
    batches: Iterable[Batch],
    ahead: int,
    trouble: Trouble,
    idle: Callable[[], None],
) -> Iterator[TileRecord]:
    for number, outcome in _compute(client, batches, ahead, idle):
        if isinstance(outcome, BaseException):
            _note(client, trouble, number, outcome)
        else:
            trouble.succeeded(number, outcome.worker)
            yield outcome


def _note(client: Client, trouble: Trouble, number: int, error: BaseException) -> None:
    """Take note of a failure, and retire the worker if it is to blame.

    Raises:
        TilesegmentError: if another try cannot mend it, or nothing works at all.
    """
    failure = _failure(number, error)
    broken = trouble.failed(failure)
    if broken is not None:
        client.retire_workers([broken])
    if trouble.hopeless or (broken and not client.nthreads()):
        raise failure.error


def _failure(number: int, error: BaseException) -> Failure:
    """What a failed tile tells.

    Raises:
        TilesegmentError: if the run cannot go on after it.
    """
    if isinstance(error, KilledWorker):
        died = IncompleteError(
            "workers died several times at one tile, most likely for lack of memory; use a "
            "smaller --tile or fewer --workers and run the same command again: finished tiles "
            "are kept"
        )
        return Failure(number, None, died, of_tile=True)
    if isinstance(error, CancelledError):
        raise IncompleteError(
            "the scheduler was lost; run the same command again: finished tiles are kept"
        ) from error
    if isinstance(error, WorkerFault):
        if isinstance(error.error, InputError):
            return Failure(number, error.worker, error.error, of_tile=True)
        if isinstance(error.error, UnexpectedError):
            return Failure(number, error.worker, error.error, of_tile=False)
        raise error.error from error
    told = UnexpectedError(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    return Failure(number, None, told, of_tile=False)


def summarise_image(
    client: Client,
    pixels: MirroredPixels,
    planes: int,
    summarise: Callable[[npt.NDArray[Any]], Any],
    run: str,
) -> Iterator[Any]:
    """What `summarise` makes of each block (c, y, x) of a level; together they are the level."""
    grid = summary_blocks(pixels, planes)

    def task(tile: Tile) -> Callable[[], Any]:
        window = grid.write_window(tile)
        return partial(_summarise, pixels, tile.plane, window, summarise)

    for _, outcome in map_blocks(client, grid, task, f"summary-{run}"):
        yield outcome


def map_blocks(
    client: Client,
    grid: TileGrid,
    task: Callable[[Tile], Callable[[], Any]],
    name: str,
    done: Container[int] = (),
) -> Iterator[tuple[Tile, Any]]:
    """What the tasks of all blocks give, as they come.

    Args:
        client: of the workers.
        grid: the blocks.
        task: what is to be called on a worker for a block; made when its turn is near.
        name: of the tasks; new each time, so that dask never returns an older result.
        done: numbers of blocks that are left out.

    Raises:
        TilesegmentError: if one fails.
    """

    def batches() -> Iterator[Batch]:
        for tile in grid.tiles():
            if grid.number(tile) in done:
                continue
            key = f"{name}-{grid.number(tile)}"
            yield Batch({key: (_call, task(tile))}, {key: grid.number(tile)})

    for number, outcome in _compute(client, batches(), _TILES_AHEAD, lambda: None):
        if isinstance(outcome, BaseException):
            raise _failure(number, outcome).error
        yield grid.tile_at(number), outcome


def _call(task: Callable[[], Any]) -> Any:
    with told_by_worker():
        return task()


def summary_blocks(pixels: MirroredPixels, planes: int) -> TileGrid:
    """The blocks of `summarise_image`."""
    return TileGrid(pixels.plane_shape, planes, _SUMMARISED_BLOCK)


def _summarise(
    pixels: MirroredPixels,
    plane: int,
    window: Window,
    summarise: Callable[[npt.NDArray[Any]], Any],
) -> Any:
    return summarise(pixels.read(plane, window))


def _region_graph(
    plan: Plan,
    region: Region,
    tiles: Iterable[Tile],
    pixels: MirroredPixels,
    writer: TileWriter,
    run: str,
    plugin: str,
    mask: Mask | None,
    attempt: int = 0,
) -> Batch:
    """Names carry the run's, which is new for each: dask never returns an older result."""
    name = f"{run}-{region.plane}-{region.first_row}-{region.first_column}-{attempt}"
    haloed = _haloed_blocks(plan, region, pixels, name)
    grid = plan.grid
    shown, labels, records = {}, {}, {}
    wanted: dict[Hashable, int] = {}
    for tile in tiles:
        row, column = tile.row - region.first_row, tile.column - region.first_column
        # Block 0 of each axis is the region's rim.
        block: Hashable = (haloed.name, 0, row + 1, column + 1)
        window = grid.write_window(tile)
        where = (grid.number(tile), tile.plane, window)
        record = (f"record-{name}", row, column)
        wanted[record] = grid.number(tile)
        cover = "all" if mask is None else mask.cover(tile.plane, window)
        if cover == "none":
            records[record] = (writer.write_background, *where)
            continue
        if plan.resampling is not None:
            resampled = (f"shown-{name}", row, column)
            shown[resampled] = (resample_tile, block, plan.resampling, window)
            block = resampled
        key = (f"labels-{name}", row, column)
        labels[key] = (predict_tile, block, plugin)
        part = () if mask is None or cover == "all" else (mask.cut(tile.plane, window),)
        records[record] = (writer.write, key, *where, *part)
    with dask.annotate(executor=plugin, resources={plugin: 1}):
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


def _haloed_blocks(plan: Plan, region: Region, pixels: MirroredPixels, name: str) -> da.Array:
    """The region's tiles with their halos, as the blocks of an array (c, y, x)."""
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


def _steps(cuts: list[int]) -> tuple[int, ...]:
    return tuple(after - before for before, after in pairwise(cuts))


def _check_graph(
    checker: WindowChecker, number: int, plane: int, window: Window, run: str, plugin: str
) -> Batch:
    name = f"check-{run}-{number}"
    with dask.annotate(executor=plugin, resources={plugin: 1}):
        tasks = {name: (checker.check, plane, window, plugin)}
        return Batch(HighLevelGraph.from_collections(name, tasks), {name: number})


def _compute(
    client: Client, batches: Iterable[Batch], ahead: int, idle: Callable[[], None]
) -> Iterator[tuple[int, Any]]:
    """Compute the keys of all batches; a new batch is sent while fewer than `ahead` are awaited.

    Each result is fetched and released at once: a result that stayed on a worker would be
    computed again if that worker died.

    Returns:
        The number of each tile, and its result or the error that it met.
    """
    waiting = iter(batches)
    completed = as_completed(loop=client.loop)
    numbers: dict[Hashable, int] = {}
    try:
        while True:
            while completed.count() < ahead and (batch := next(waiting, None)):
                numbers.update(batch.tiles)
                completed.update(_send(client, batch))
            while not completed.has_ready():
                idle()
                if completed.is_empty():
                    return
                with completed.thread_condition:
                    completed.thread_condition.wait(_IDLE_SECONDS)
            future = next(completed)
            yield numbers.pop(future.key), _outcome(future)
    except BaseException:
        client.cancel(list(completed.futures))
        _wait_until_idle(client)
        raise


def _send(client: Client, batch: Batch) -> list[Future]:
    preference: dict[str, Any] = {}
    if batch.avoid is not None:
        others = [address for address in client.nthreads() if address != batch.avoid]
        preference = {"workers": others, "allow_other_workers": True} if others else {}
    # Without a timeout graphs sent within a minute are mixed: an old region would wait, half done,
    # with all that it has read, while a new one is computed.
    futures: list[Future] = client.get(
        batch.graph, list(batch.tiles), sync=False, fifo_timeout=0, **preference
    )
    return futures


def _wait_until_idle(client: Client) -> None:
    """Let tiles in flight end: a cancelled task that has begun still writes."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    with suppress(OSError, CancelledError):
        while any(client.run(_executing).values()) and time.monotonic() < deadline:
            time.sleep(0.05)


def _executing(dask_worker: Worker) -> int:
    return int(dask_worker.state.executing_count)


def _outcome(future: Future) -> Any:
    """The result, or the error: an interruption of the driver itself is raised as ever."""
    try:
        result = future.result()
    except (Exception, CancelledError) as error:
        return error
    future.release()
    return result
