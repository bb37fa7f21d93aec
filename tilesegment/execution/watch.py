"""The workers of a run: they come and go, without any it waits, and what hangs is ended.

dask ends a worker that does not answer; one that answers, while its tile waits for ever for a disk
or a GPU, is only ended here.
"""

import asyncio
import logging
import os
import pickle
import time
from collections.abc import Hashable
from contextlib import suppress

from distributed import Client, Scheduler

from tilesegment.accounting import Accounts
from tilesegment.errors import ClusterError, IncompleteError, UnexpectedError
from tilesegment.execution.worker import WorkerFault
from tilesegment.retry import Patience, TileLimit

_logger = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_HUNG = 87
"""Exit code of a worker on which a tile hangs; its nanny starts it again."""
_ANSWER_SECONDS = 10.0
"""That a worker gets to end itself; dask ends what does not answer."""

_Place = tuple[Hashable, str]
"""Key of a task, and address of the worker that executes it."""
_Gpu = tuple[int | None, int | None]
"""Per cent of its time in use, and bytes in use; None where there is none to be seen."""


def wait_for_first_worker(client: Client, seconds: float, told: str) -> None:
    """Return once there is a worker.

    Raises:
        ClusterError: with what is told, if there is none within the seconds.
    """
    if not client.nthreads():
        _logger.warning("no worker yet; waiting up to %.0f s", seconds)
    try:
        # dask takes 0 for a wait without end.
        client.wait_for_workers(1, timeout=max(seconds, 0.1))
    except TimeoutError as error:
        raise ClusterError(told) from error


class WorkerWatch:
    """Counts the workers of a run, says when there are none, and ends those that hang.

    Args:
        client: of the workers.
        run: name of the run, which the keys of its tasks hold.
        plugin: of the model, which workers that can compute have as a resource; empty: all can.
        wait_seconds: how long to wait without any worker.
        limit: of the time that a tile takes.
        accounts: of the workers, which are told of their GPUs.
    """

    def __init__(
        self,
        client: Client,
        run: str,
        plugin: str,
        wait_seconds: float,
        limit: TileLimit,
        accounts: Accounts,
    ) -> None:
        self._client = client
        self._accounts = accounts
        self._run, self._plugin = run, plugin
        self.limit = limit
        self._patience = Patience(wait_seconds)
        self._looked = 0.0
        self._alone = False
        self.count = 0
        """Workers at the last look."""

    def look(self) -> None:
        """Count the workers, look at their GPUs and end those that hang, at most once a second.

        Raises:
            IncompleteError: if there was none for too long.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        limit_seconds = self.limit.seconds
        gpus, overdue, ready = self._client.run_on_scheduler(
            _look, run=self._run, plugin=self._plugin, limit_seconds=limit_seconds
        )
        self.count = len(gpus)
        for address, (utilization, memory) in gpus.items():
            self._accounts.note_gpu(address, utilization, memory)
        for place in self.limit.hung(overdue, now):
            self._client.run_on_scheduler(_give_up, place=place, limit_seconds=limit_seconds)
        alone = self._patience.alone(ready, now)
        limit = self._patience.limit_seconds
        if alone is not None and self._patience.is_over(alone):
            raise IncompleteError(
                f"no worker came back within {limit:.0f} s; run the same command again to go on: "
                "finished tiles are kept (--wait decides how long it waits)"
            )
        if alone is not None and not self._alone:
            _logger.warning("all workers are gone; waiting up to %.0f s for others", limit)
        if alone is None and self._alone:
            _logger.warning("there are workers again: %d", self.count)
        self._alone = alone is not None


def _look(
    run: str, plugin: str, limit_seconds: float, dask_scheduler: Scheduler
) -> tuple[dict[str, _Gpu], list[_Place], int]:
    """The GPU of each worker, the tasks of the run that workers execute for too long, and how many
    workers can compute: one that dies while it loads the model comes and goes for ever.
    """
    _wake(dask_scheduler)
    workers = dask_scheduler.workers.values()
    overdue = [
        (task.key, worker.address)
        for worker in workers
        for task, seconds in worker.executing.items()
        if 0 < limit_seconds < seconds and task.processing_on is worker and run in str(task.key)
    ]
    # The names are those of `distributed.system_monitor`; they are there where the driver is.
    gpus = {
        worker.address: (
            worker.metrics.get("gpu_utilization"), worker.metrics.get("gpu_memory_used"),
        )
        for worker in workers
    }  # fmt: skip
    ready = len(dask_scheduler.resources.get(plugin, ()) if plugin else workers)
    return gpus, overdue, ready


async def _give_up(place: _Place, limit_seconds: float, dask_scheduler: Scheduler) -> None:
    """Let a task fail that hangs, and end its worker: no thread can be stopped otherwise."""
    key, address = place
    task = dask_scheduler.tasks.get(key)
    if task is None or task.processing_on is None or task.processing_on.address != address:
        return
    told = f"the tile hung: it took more than {limit_seconds:.0f} s (--tile-timeout)"
    dask_scheduler.handle_task_erred(
        key=key,
        stimulus_id="tilesegment-hung",
        worker=address,
        run_id=task.run_id,
        exception=pickle.dumps(WorkerFault(address, UnexpectedError(told))),
        exception_text=told,
    )
    end = {"op": "run", "function": pickle.dumps(os._exit), "args": pickle.dumps((_HUNG,))}
    with suppress(TimeoutError):
        await asyncio.wait_for(
            dask_scheduler.broadcast(msg=end, workers=[address], on_error="return"),
            _ANSWER_SECONDS,
        )


def _wake(dask_scheduler: Scheduler) -> None:
    """Let tasks that found no worker that could take them look again.

    A worker has the resource that the network's tasks need only some time after it has joined,
    with the model loaded, and dask looks for such tasks only when a worker joins. After the
    last worker was lost they would wait for ever.
    """
    for worker in list(dask_scheduler.workers.values()) if dask_scheduler.unrunnable else ():
        found = dask_scheduler.bulk_schedule_unrunnable_after_adding_worker(worker)
        dask_scheduler.transitions(found, stimulus_id="tilesegment-wake")
