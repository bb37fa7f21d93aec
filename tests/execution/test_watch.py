"""Workers that come late: what waits for them is found again."""

import time
from collections import deque

import pytest
from distributed import Client, Scheduler, Worker

from tilesegment.accounting import Accounts
from tilesegment.errors import IncompleteError
from tilesegment.execution.watch import WorkerWatch
from tilesegment.retry import TileLimit


def watch(client: Client, accounts: Accounts) -> WorkerWatch:
    return WorkerWatch(client, "run", "", 60, TileLimit(0), accounts)


def _waiting(dask_scheduler: Scheduler) -> int:
    return len(dask_scheduler.unrunnable)


async def _see_a_gpu(dask_worker: Worker) -> None:
    """As dask's monitor does where NVIDIA's driver is."""
    for name, value in {"gpu_utilization": 75, "gpu_memory_used": 3_000_000_000}.items():
        dask_worker.monitor.quantities[name] = deque([value])
    await dask_worker.heartbeat()


async def _equip(dask_worker: Worker) -> None:
    await dask_worker.set_resources(late=1)


def test_a_task_that_found_no_worker_is_given_to_one_that_is_equipped_later(
    one_worker: str,
) -> None:
    """As a worker that has joined is, once it holds the model: dask itself does not look again."""
    with Client(one_worker, set_as_default=False) as client:
        waiting = client.submit(abs, -3, resources={"late": 1}, pure=False)
        while not client.run_on_scheduler(_waiting):
            time.sleep(0.01)
        client.run(_equip)
        time.sleep(0.2)
        assert client.run_on_scheduler(_waiting) == 1
        looking = watch(client, Accounts())
        looking.look()
        assert waiting.result(timeout=20) == 3
        assert looking.count == 1


def test_a_worker_without_the_model_is_none(one_worker: str) -> None:
    """It may die whenever it loads the model, come again, and never compute anything."""
    with Client(one_worker, set_as_default=False) as client:
        looking = WorkerWatch(client, "run", "the model", 0, TileLimit(0), Accounts())
        looking.look()
        time.sleep(1.1)
        with pytest.raises(IncompleteError, match="no worker came back within 0 s"):
            looking.look()
        assert looking.count == 1


def test_gpus_that_dask_measures_are_accounted_for(one_worker: str) -> None:
    accounts = Accounts()
    with Client(one_worker, set_as_default=False) as client:
        (address,) = client.nthreads()
        accounts.note(address, 1_000_000, seconds=1.0, now=1.0)
        for gpus in ({}, {"gpu_share": 0.75, "gpu_memory_bytes": 3_000_000_000}):
            watch(client, accounts).look()
            accounts.note(address, 1_000_000, seconds=1.0, now=2.0)
            (told,) = accounts.report(moved_bytes=0)["workers"]
            assert {key: told[key] for key in told if key.startswith("gpu")} == gpus
            client.run(_see_a_gpu)
        client.run(_forget_the_gpu)


def _forget_the_gpu(dask_worker: Worker) -> None:
    for name in ("gpu_utilization", "gpu_memory_used"):
        del dask_worker.monitor.quantities[name]
