"""How many workers a run has: they come and go, and without any it waits, but not for ever."""

import logging
import time

from distributed import Client, Scheduler

from tilesegment.accounting import Accounts
from tilesegment.errors import IncompleteError
from tilesegment.retry import Patience

_logger = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0


class WorkerWatch:
    """Counts the workers of a run, and says when there are none.

    Args:
        client: of the workers.
        wait_seconds: how long to wait without any.
        accounts: of the workers, which are told of their GPUs.
    """

    def __init__(self, client: Client, wait_seconds: float, accounts: Accounts) -> None:
        self._client = client
        self._accounts = accounts
        self._patience = Patience(wait_seconds)
        self._looked = 0.0
        self._alone = False
        self.count = 0
        """Workers at the last look."""

    def look(self) -> None:
        """Count the workers, and note how busy their GPUs are, at most once a second.

        Raises:
            IncompleteError: if there was none for too long.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        workers = self._client.run_on_scheduler(_look_and_wake)
        self.count = len(workers)
        for address, (utilization, memory) in workers.items():
            self._accounts.note_gpu(address, utilization, memory)
        alone = self._patience.alone(self.count, now)
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


def _look_and_wake(dask_scheduler: Scheduler) -> dict[str, tuple[int | None, int | None]]:
    """The GPU of each worker: per cent of its time in use, bytes in use; waiting tasks look again.

    A worker has the resource that the network's tasks need only some time after it has joined,
    with the model loaded, and dask looks for such tasks only when a worker joins. After the
    last worker was lost they would wait for ever.
    """
    for worker in list(dask_scheduler.workers.values()) if dask_scheduler.unrunnable else ():
        found = dask_scheduler.bulk_schedule_unrunnable_after_adding_worker(worker)
        dask_scheduler.transitions(found, stimulus_id="tilesegment-wake")
    # The names are those of `distributed.system_monitor`; they are there where the driver is.
    return {
        address: (worker.metrics.get("gpu_utilization"), worker.metrics.get("gpu_memory_used"))
        for address, worker in dask_scheduler.workers.items()
    }
