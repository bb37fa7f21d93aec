"""Workers in jobs of Slurm, by dask-jobqueue; the scheduler runs beside the driver.

Scheduler and workers speak TLS with certificates that are made for this run and lie, readable by
their owner only, in a folder that all nodes see. Workers leave before their job's walltime; a job
that has ended, in whatever way, is submitted again while the run lasts.
"""

import asyncio
import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
from distributed import Client
from tornado.ioloop import PeriodicCallback

from tilesegment.config import ClusterOptions, SlurmOptions, WorkerRange
from tilesegment.errors import ClusterError, OptionError
from tilesegment.execution.environment import dask_variables, worker_threads
from tilesegment.execution.memory import ENVIRONMENT

_logger = logging.getLogger(__name__)
_WALLTIME = re.compile(
    r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?"
)
_LONGEST_MARGIN_SECONDS = 300
_MARGIN_SHARE = 0.15
"""Of the walltime: the last workers leave this long before its end, the first twice as long
before the last."""
_SHORTEST_MARGIN_SECONDS = 45
"""A worker counts its time from when Python has started, and takes seconds to leave."""
_SHORTEST_WALLTIME_SECONDS = 120
_LOOK_SECONDS = 2
"""Between looks at the jobs."""
_AWAY_SECONDS = 20
"""A worker that is gone for so long does not come back: its nanny would have started it again."""
_FRUITLESS_JOBS = 3
"""Jobs that may end before a worker of them has joined; more would end in the same way."""
_REST_SECONDS = 60
_SPEAK_SECONDS = 15
"""After which somebody who waits for the first worker is told why."""


def walltime_seconds(text: str) -> int:
    """Seconds of a time limit as Slurm writes it.

    Raises:
        OptionError: if it is none.

    >>> [walltime_seconds(text) for text in ("90", "2:30", "1:00:00", "1-12", "1-0:30")]
    [5400, 150, 3600, 129600, 88200]
    """
    found = _WALLTIME.fullmatch(text)
    if found is None:
        raise OptionError(f"walltime {text} is no time of Slurm; write HH:MM:SS or D-HH:MM:SS")
    first, second, third = (int(found[name] or 0) for name in ("first", "second", "third"))
    if found["days"] is not None:
        return ((int(found["days"]) * 24 + first) * 60 + second) * 60 + third
    if found["third"] is not None:
        return (first * 60 + second) * 60 + third
    return first * 60 + second


def worker_environment(options: SlurmOptions, settings: Mapping[str, Any]) -> dict[str, str]:
    """Variables of the workers of a job.

    Args:
        options: of the job.
        settings: dask's.

    Raises:
        OptionError: if the walltime is none, or too short.
    """
    walltime = walltime_seconds(options.walltime)
    if walltime < _SHORTEST_WALLTIME_SECONDS:
        raise OptionError(
            f"walltime {options.walltime} is shorter than two minutes, which a worker needs to "
            "start, to load the model and to leave; write 1:00:00 for an hour"
        )
    stagger = min(_LONGEST_MARGIN_SECONDS, int(_MARGIN_SHARE * walltime))
    margin = max(_SHORTEST_MARGIN_SECONDS, stagger)
    configured = {
        **settings,
        "distributed.worker.lifetime.duration": f"{walltime - margin - stagger}s",
        "distributed.worker.lifetime.stagger": f"{stagger}s",
    }
    # What was not asked of Slurm is not used, also where Slurm does not hide it.
    own = {} if options.gpus else {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""}
    return {"DASK_LOGGING__DISTRIBUTED": "error", **own, **dask_variables(configured)}


def job_arguments(
    options: SlurmOptions, task_threads: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What dask-jobqueue is told of a job.

    Args:
        options: of the job.
        task_threads: threads of a worker beside the network's.
        settings: dask's, for the workers.

    Raises:
        OptionError: if an option cannot work.
    """
    if options.cores < 1 or options.gpus < 0:
        raise OptionError(f"a job cannot have {options.cores} cores and {options.gpus} GPUs")
    workers = max(options.gpus, 1)
    exports = [
        f"export {name}='{value}'" for name, value in worker_environment(options, settings).items()
    ]
    asked = [f"--gres=gpu:{options.gpus}"] if options.gpus else []
    return {
        "job_name": "tilesegment",
        "queue": options.queue,
        "account": options.account,
        "walltime": options.walltime,
        "job_cpu": options.cores,
        "memory": options.memory,
        "processes": workers,
        "cores": workers * worker_threads(task_threads, on_gpu=bool(options.gpus)),
        "interface": options.interface,
        "worker_command": "dask_cuda.cli" if options.gpus else "distributed.cli.dask_worker",
        "job_script_prologue": [*exports, *options.prologue],
        "job_extra_directives": [*asked, *options.directives],
        "worker_extra_args": ["--dashboard-address", "127.0.0.1:0"],
        "log_directory": str(Path(options.folder).resolve()),
    }


@contextmanager
def open_slurm(
    options: ClusterOptions, task_threads: int, settings: Mapping[str, Any]
) -> Iterator[Client]:
    """A client of workers in jobs of Slurm, which end with the block.

    Raises:
        ClusterError: there is no Slurm here, it refuses the jobs, or no worker comes.
        OptionError: an option cannot work.
    """
    job = options.slurm
    arguments = job_arguments(job, task_threads, settings)
    if shutil.which("sbatch") is None:
        raise ClusterError(
            "no Slurm found (there is no sbatch here); run this on a node of the cluster, or use "
            "--cluster cpu"
        )
    try:
        from dask_jobqueue import SLURMCluster
        from distributed.security import Security

        security = Security.temporary()
    except ImportError as error:
        raise ClusterError(
            "--cluster slurm needs dask-jobqueue and cryptography; install them with: "
            "pip install 'tilesegment[slurm]'"
        ) from error
    folder = Path(job.folder).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClusterError(f"{folder} cannot be made for logs and certificates: {error}") from error
    own = {
        # It is on this node only, whatever address the workers find the scheduler at.
        "distributed.dashboard.link": "http://127.0.0.1:{port}/status",
    }
    with (
        dask.config.set(own),
        SLURMCluster(
            **arguments,
            protocol="tls://",
            security=security,
            shared_temp_directory=str(folder),
            scheduler_options={"dashboard_address": "127.0.0.1:0"},
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        _refuse_impossible(cluster.job_script(), folder)
        keeper = _Keeper(cluster, folder)
        _ask_for_workers(cluster, options)
        with keeper.at_work():
            _wait_for_first(client, keeper, options.wait_seconds)
            yield client


def _refuse_impossible(script: str, folder: Path) -> None:
    """Ask Slurm whether such a job could ever run.

    Raises:
        ClusterError: with what Slurm says, if not.
    """
    file = folder / "job.sh"
    file.write_text(script)
    answer = subprocess.run(  # noqa: S603 - the script is our own
        ["sbatch", "--test-only", file],  # noqa: S607 - wherever this cluster has it
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        told = answer.stderr.strip().splitlines() or ["no reason given"]
        raise ClusterError(f"Slurm does not take such a job ({file}): {told[-1]}")


def _ask_for_workers(cluster: Any, options: ClusterOptions) -> None:
    workers = options.workers
    if isinstance(workers, WorkerRange):
        cluster.adapt(minimum=workers.least, maximum=workers.most)
    else:
        cluster.scale(workers or max(options.slurm.gpus, 1))


def _wait_for_first(client: Client, keeper: "_Keeper", seconds: float) -> None:
    started = time.monotonic()
    spoken = False
    while not client.nthreads():
        keeper.refuse_broken()
        waited = time.monotonic() - started
        if waited > seconds:
            raise ClusterError(
                f"no job of Slurm has started within {seconds:.0f} s; look at `squeue -u $USER`, "
                "or wait longer with --wait"
            )
        if waited > _SPEAK_SECONDS and not spoken:
            spoken = True
            _logger.warning("no worker yet: the jobs wait in Slurm's queue (`squeue -u $USER`)")
        time.sleep(0.2)


class _Keeper:
    """Submits jobs again that have ended; runs on the event loop of the cluster."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder
        self._joined: set[str] = set()
        self._away_since: dict[str, float] = {}
        self._fruitless = 0
        self._looking = asyncio.Lock()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        loop = self._cluster.loop
        looking = PeriodicCallback(self._look, _LOOK_SECONDS * 1000)
        loop.add_callback(looking.start)
        try:
            yield
        finally:
            # dask does not know of a job that is being forgotten, and must not close without it.
            with suppress(TimeoutError):
                self._cluster.sync(self._rest, looking, callback_timeout=_REST_SECONDS)

    async def _rest(self, looking: PeriodicCallback) -> None:
        """Look no more, and finish the look that is under way."""
        looking.stop()
        async with self._looking:
            pass

    def refuse_broken(self) -> None:
        """Stop waiting for workers that will not come.

        Raises:
            ClusterError: if jobs end before their workers join.
        """
        if self._fruitless >= _FRUITLESS_JOBS:
            raise ClusterError(
                f"{self._fruitless} jobs of Slurm have ended before a worker of them joined; see "
                f"their logs in {self._folder}"
            )

    async def _look(self) -> None:
        """One look at all jobs: what has ended is forgotten, and asked for again."""
        async with self._looking:
            await self._renew()

    async def _renew(self) -> None:
        cluster = self._cluster
        connected = {str(worker.name) for worker in cluster.scheduler.workers.values()}
        queued = await _queued()
        for name, job in list(cluster.workers.items()):
            group = cluster.worker_spec.get(name, {}).get("group", [""])
            if any(f"{name}{suffix}" in connected for suffix in group):
                self._joined.add(name)
                self._away_since.pop(name, None)
                self._fruitless = 0
            elif queued is not None and job.job_id and job.job_id not in queued:
                self._fruitless += name not in self._joined
                await self._forget(name, job)
            elif name in self._joined and self._is_away(name):
                await self._forget(name, job)
        if self._fruitless < _FRUITLESS_JOBS:
            cluster.scale(jobs=len(cluster.worker_spec))

    def _is_away(self, name: str) -> bool:
        now = time.monotonic()
        return now - self._away_since.setdefault(name, now) > _AWAY_SECONDS

    async def _forget(self, name: str, job: Any) -> None:
        self._cluster.workers.pop(name, None)
        self._joined.discard(name)
        self._away_since.pop(name, None)
        await job.close()


async def _queued() -> set[str] | None:
    """Numbers of the user's jobs that wait or run; None if Slurm does not answer now."""
    process = await asyncio.create_subprocess_exec(
        "squeue", f"--user={os.getuid()}", "--noheader", "--format=%A",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    told, _ = await process.communicate()
    return set(told.decode().split()) if process.returncode == 0 else None
