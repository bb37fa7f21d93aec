"""From a plan to written tiles: the tasks of a region after the other, and what failed again."""

import time
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import dask
import numpy.typing as npt
from dask.highlevelgraph import HighLevelGraph
from distributed import Client, Future, KilledWorker, Worker

from tilesegment.errors import IncompleteError, InputError, UnexpectedError
from tilesegment.execution.feed import Batch, TileFeed
from tilesegment.execution.memory import forget_keys
from tilesegment.execution.verification import WindowCheck, WindowChecker
from tilesegment.execution.worker import (
    WorkerFault,
    derive_tile,
    told_by_worker,
)
from tilesegment.retry import Failure, Trouble
from tilesegment.storage.image import MirroredPixels
from tilesegment.storage.labels import LabelVolume
from tilesegment.storage.ledger import TileRecord
from tilesegment.tiling import Region, Tile, TileGrid, Window

_DRAIN_SECONDS = 20
_SUMMARISED_BLOCK = 1024
"""Pixels per side that are read at once for statistics of the image."""
_IDLE_SECONDS = 0.5
"""After which `idle` is called again while no record comes."""
_TILES_AHEAD, _TILES_AHEAD_OF_A_WORKER = 64, 8
"""Tiles that the scheduler has at least: the next region is there before the last runs dry."""
_COUNT_SECONDS = 5.0
"""After which workers are counted again."""


def segment_tiles(
    client: Client,
    feed: TileFeed,
    wanted: Container[int],
    trouble: Trouble,
    idle: Callable[[], None],
) -> Iterator[TileRecord]:
    """Segment and write every tile that is wanted; yield each record as it comes.

    Args:
        client: of the workers, which hold the model.
        feed: makes the tiles' tasks.
        wanted: numbers of the tiles that are to be done.
        trouble: takes note of what fails; tells afterwards which tiles are quarantined.
        idle: called when no more records are ready for now, and again while none comes.

    Raises:
        TilesegmentError: if something failed that another try cannot mend.
    """
    grid = feed.plan.grid
    regions = (
        feed.batch(region, tiles)
        for region in feed.plan.region_list()
        if (tiles := [tile for tile in region.tiles() if grid.number(tile) in wanted])
    )

    def alone(number: int, attempt: int) -> Batch:
        tile = grid.tile_at(number)
        return feed.batch(Region(tile.plane, tile.row, tile.column, 1, 1), [tile], attempt)

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
    for number, outcome in _compute(client, batches, idle=lambda: None):
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
    yield from _round(client, batches, trouble, idle)
    attempt = 0
    while again := trouble.again():
        attempt += 1
        failed_on = {number: trouble.last(number).worker for number in again}
        suspects = [number for number in again if failed_on[number] is None]
        others = [number for number in again if failed_on[number] is not None]
        for numbers, most in ((others, None), (suspects, 1)):
            singles = (
                replace(alone(number, attempt), avoid=failed_on[number]) for number in numbers
            )
            yield from _round(client, singles, trouble, idle, most)


def _round(
    client: Client,
    batches: Iterable[Batch],
    trouble: Trouble,
    idle: Callable[[], None],
    most: int | None = None,
) -> Iterator[TileRecord]:
    for number, outcome in _compute(client, batches, idle, most):
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
    if trouble.hopeless or (broken and trouble.retired.issuperset(client.nthreads())):
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

    for number, outcome in _compute(client, batches(), lambda: None):
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


def _check_graph(
    checker: WindowChecker, number: int, plane: int, window: Window, run: str, plugin: str
) -> Batch:
    name = f"check-{run}-{number}"
    with dask.annotate(executor=plugin, resources={plugin: 1}):
        tasks = {name: (checker.check, plane, window, plugin)}
        return Batch(HighLevelGraph.from_collections(name, tasks), {name: number})


def _compute(
    client: Client, batches: Iterable[Batch], idle: Callable[[], None], most: int | None = None
) -> Iterator[tuple[int, Any]]:
    """Compute the keys of all batches, of which enough are sent to keep all workers busy.

    A result that stayed on a worker would be computed again if that worker died.

    Args:
        client: of the workers.
        batches: in the order of computing.
        idle: called when no more results are ready for now, and again while none comes.
        most: results that are awaited when another batch is sent; None: by the workers.

    Returns:
        The number of each tile, and its result or the error that it met.
    """
    waiting = iter(batches)
    fetched: SimpleQueue[tuple[Future, Any]] = SimpleQueue()
    numbers: dict[Future, int] = {}
    enough = _tiles_ahead(client, _TILES_AHEAD)
    try:
        while True:
            while len(numbers) < (most or enough()) and (batch := next(waiting, None)):
                for future in _send(client, batch):
                    numbers[future] = batch.tiles[future.key]
                    client.loop.add_callback(_fetch, future, fetched)
            if fetched.empty():
                idle()
                if not numbers:
                    return
            try:
                future, outcome = fetched.get(timeout=_IDLE_SECONDS)
            except Empty:
                continue
            yield numbers.pop(future), outcome
    except BaseException:
        client.cancel(list(numbers))
        _wait_until_idle(client)
        raise


def _tiles_ahead(client: Client, least: int) -> Callable[[], int]:
    """How many tiles keep the workers busy that are there when it is called."""
    counted, workers = float("-inf"), 0

    def ahead() -> int:
        nonlocal counted, workers
        now = time.monotonic()
        if now - counted > _COUNT_SECONDS:
            counted = now
            with suppress(OSError, CancelledError):
                workers = len(client.nthreads())
        return max(least, _TILES_AHEAD_OF_A_WORKER * workers)

    return ahead


def _send(client: Client, batch: Batch) -> list[Future]:
    preference: dict[str, Any] = {}
    if batch.avoid is not None:
        others = [address for address in client.nthreads() if address != batch.avoid]
        preference = {"workers": others, "allow_other_workers": True} if others else {}
    # Without a timeout graphs sent within a minute are mixed: an old region would wait, half done,
    # with all that it has read, while a new one is computed.
    # A graph that is a dict would be hashed, with all that its tasks hold.
    graph = batch.graph
    if isinstance(graph, dict):
        graph = HighLevelGraph.from_collections(str(next(iter(graph))), graph)
    forget_keys()
    futures: list[Future] = client.get(
        graph, list(batch.tiles), sync=False, fifo_timeout=0, **preference
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


async def _fetch(future: Future, fetched: SimpleQueue[tuple[Future, Any]]) -> None:
    """Fetch a result, or the error, as soon as it is there, and release it on its worker.

    Runs on the client's event loop, so that nothing stays on workers while the driver is busy.
    """
    try:
        outcome = await future
    except (Exception, CancelledError) as error:
        outcome = error
    future.release()
    fetched.put((future, outcome))
