"""What each worker does and for how long, added up by the scheduler while a run goes on."""

import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client, Scheduler, SchedulerPlugin, Worker

from tilesegment.execution.worker import STEPS_TOLD
from tilesegment.profiling import WorkerTimes, step_of


class _Timekeeper(SchedulerPlugin):  # type: ignore[misc]
    """Adds up; a log of all tasks would grow with the image."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.times: dict[str, WorkerTimes] = {}

    def transition(self, key: Any, start: str, finish: str, *args: Any, **outcome: Any) -> None:
        """Called by the scheduler: a task that ends says when each of its parts began and ended."""
        if start != "processing" or not outcome.get("startstops"):
            return
        times = self.times.setdefault(outcome["worker"], WorkerTimes())
        step = step_of(str(key[0] if isinstance(key, tuple) else key))
        times.count(step)
        # What runs the network says itself what it did; the rest of its time it waited.
        told = (outcome.get("metadata") or {}).get(STEPS_TOLD, ())
        for part, began, ended in told:
            times.add(part, began, ended)
        for part in outcome["startstops"]:
            if part["action"] == "transfer":
                times.add("transfer", part["start"], part["stop"])
            elif not told:
                times.add(step, part["start"], part["stop"])


@contextmanager
def timed(client: Client) -> Iterator[dict[str, WorkerTimes]]:
    """What the workers of a client do inside the block, by address; there once the block ends."""
    name = f"timekeeper-{uuid.uuid4().hex[:12]}"
    found: dict[str, WorkerTimes] = {}
    client.register_plugin(_Timekeeper(name), name=name)
    before = client.run(_sent_bytes)
    try:
        yield found
    finally:
        # A scheduler that was lost tells nothing more; the error of the run does.
        with suppress(OSError, CancelledError):
            found.update(client.run_on_scheduler(_take, name=name))
            for address, sent in client.run(_sent_bytes).items():
                if address in found:
                    found[address].sent_bytes = sent - before.get(address, 0)


def _take(name: str, dask_scheduler: Scheduler) -> Mapping[str, WorkerTimes]:
    times: Mapping[str, WorkerTimes] = dask_scheduler.plugins[name].times
    dask_scheduler.remove_plugin(name)
    return times


def _sent_bytes(dask_worker: Worker) -> int:
    return int(dask_worker.transfer_outgoing_bytes_total)
