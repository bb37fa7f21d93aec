"""Workers that come late: what waits for them is found again."""

import time

from distributed import Client, Scheduler, Worker

from tilesegment.execution.watch import WorkerWatch


def _waiting(dask_scheduler: Scheduler) -> int:
    return len(dask_scheduler.unrunnable)


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
        watch = WorkerWatch(client, wait_seconds=60)
        watch.look()
        assert waiting.result(timeout=20) == 3
        assert watch.count == 1
