"""Settings for processes that are yet to start, elsewhere."""

from collections.abc import Mapping
from typing import Any


def worker_threads(task_threads: int, on_gpu: bool = False) -> int:
    """Threads of a worker: some read and write, one is the network's; a GPU's network has two."""
    return task_threads + (2 if on_gpu else 1)


def dask_variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Dask's settings as variables of a process.

    >>> dask_variables({"distributed.scheduler.work-stealing": False})
    {'DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING': 'False'}
    """
    return {
        "DASK_" + key.upper().replace(".", "__").replace("-", "_"): str(value)
        for key, value in settings.items()
    }
