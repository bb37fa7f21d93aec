"""Where the workers come from: this machine's cores, its GPUs, or a running scheduler.

Everything started here listens on the loopback address only, the dashboard too. What leaves the
machine is encrypted and authenticated (tls://): whoever can speak to a scheduler can run code
on its workers.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import dask
from dask.utils import parse_bytes
from distributed import Client, LocalCluster, performance_report
from distributed.comm import connect
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from tilesegment.config import ClusterOptions, WorkerRange
from tilesegment.errors import ClusterError, OptionError
from tilesegment.execution.environment import worker_threads
from tilesegment.execution.gateway import PREFIX, open_gateway
from tilesegment.execution.kubernetes import open_kubernetes
from tilesegment.execution.memory import ENVIRONMENT
from tilesegment.execution.slurm import open_slurm
from tilesegment.execution.versions import refuse_other_versions, without_dasks_warning
from tilesegment.execution.watch import wait_for_first_worker

_CORES_PER_WORKER = 4
_TASK_THREADS = 4
"""Threads of a worker for reading and writing, beside the one of the network."""
_CONNECT_SECONDS = 10
_FIRST_WORKER_SECONDS = 30
_END_SECONDS = 30
_MANY_WORKERS, _MANY_GPUS = 32, 4
"""From which a scheduler is given one task per tile; see benchmarks/scheduling.py."""

_LEAVE_INTERRUPTS_TO_THE_DRIVER = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""For each worker: Ctrl-C on a terminal reaches all processes, and only one may end the run."""

_SEE_NO_GPU = "import os; os.environ['CUDA_VISIBLE_DEVICES'] = ''"
"""For each worker on the processor. In the nanny's environment it would stay in this process, too,
and the user's own value would win."""

SETTINGS = {
    # Uniform tiles need no work stealing; moved reads would only be read again elsewhere.
    "distributed.scheduler.work-stealing": False,
    # Every tile that a dying worker holds is blamed, not only the one that it runs.
    "distributed.scheduler.allowed-failures": 5,
    "distributed.scheduler.worker-saturation": 1.0,
    # dask would end for good what takes the place of a lost worker: a process that is slow to start
    # or dies again soon, a job of Slurm that waits.
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.target": False,
    # The dashboard would keep the last 100 000 tasks: the driver would grow with the image.
    "distributed.scheduler.dashboard.tasks.task-stream-length": 1000,
    # Samples of what each thread does, for dask's performance report: a hundred times a second, and
    # kept for each second of a quarter of an hour, they cost time, and memory that grows.
    "distributed.worker.profile.interval": "100ms",
    "distributed.worker.profile.cycle": "60s",
    # A paused worker computes nothing, so that it would never free what it keeps.
    "distributed.worker.memory.pause": False,
    # Array optimisation fuses tasks and silently drops their annotations (dask issue 7036).
    "optimization.fuse.active": False,
}


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_workers(options: ClusterOptions) -> int | None:
    """The largest number of workers that is asked for; None leaves it to the kind of cluster."""
    workers = options.workers
    return workers.most if isinstance(workers, WorkerRange) else workers


def fewest_workers(options: ClusterOptions) -> int:
    """Worker processes that the embedded cluster begins with."""
    workers = options.workers
    return workers.least if isinstance(workers, WorkerRange) else local_workers(options)


def local_workers(options: ClusterOptions) -> int:
    """Worker processes of the embedded cluster, at most."""
    return most_workers(options) or max(1, usable_cores() // _CORES_PER_WORKER)


def inference_threads(options: ClusterOptions) -> int | None:
    """CPU threads of the network on each worker; None where the workers are not ours."""
    if options.kind == "slurm":
        return None if options.slurm.gpus else options.slurm.cores
    if options.kind != "cpu":
        return None
    return max(1, usable_cores() // local_workers(options))


def choose_feed(
    options: ClusterOptions, workers: int = 1, on_gpus: bool = False
) -> Literal["overlap", "tile"]:
    """What the scheduler is given of a tile: its steps, or one task where there are many workers.

    Args:
        options: of the cluster, resolved; more workers may come than there are now.
        workers: that are there.
        on_gpus: whether they are known to have GPUs.
    """
    if options.feed != "auto":
        return options.feed
    many = _MANY_GPUS if on_gpus or options.on_gpus else _MANY_WORKERS
    return "tile" if max(workers, _expected_workers(options)) >= many else "overlap"


def _expected_workers(options: ClusterOptions) -> int:
    """Workers that will come, as far as can be told before they do."""
    if options.kind == "gpu":
        return most_workers(options) or count_gpus()
    return local_workers(options) if options.kind == "cpu" else most_workers(options) or 1


def resolve_kind(options: ClusterOptions) -> ClusterOptions:
    """The options with "auto" replaced by what this machine has.

    Raises:
        OptionError: if the kind is not known.
    """
    kind = options.kind
    if kind == "auto":
        kind = "gpu" if count_gpus() else "cpu"
    known = kind in ("cpu", "gpu", "slurm", "kubernetes") or is_gateway(kind)
    if not known and not is_address(kind):
        raise OptionError(
            f"--cluster {kind} is not known; use cpu, gpu, auto, slurm, kubernetes, "
            "tls://host:port (on this machine also tcp://host:port) of a running dask scheduler, "
            "or gateway+https://host of a dask-gateway"
        )
    if is_address(kind) and (options.workers or options.memory_limit):
        raise OptionError(
            f"--workers and --memory-limit are for workers that this command starts; those of "
            f"{kind} are as they were started"
        )
    if kind == "gpu" and isinstance(options.workers, WorkerRange):
        raise OptionError(
            "GPUs of this machine do not come and go: give --workers one number, or leave it out"
        )
    if kind == "slurm" and options.memory_limit:
        raise OptionError(
            "--memory-limit is for workers on this machine; use --slurm memory=16GB for a job"
        )
    if kind == "kubernetes" and options.memory_limit:
        raise OptionError(
            "--memory-limit is for workers on this machine; the memory of a pod stands in "
            "tilesegment.toml: memory under [clusters.kubernetes.kubernetes]"
        )
    if is_gateway(kind) and options.memory_limit:
        raise OptionError(f"--memory-limit is for workers on this machine, and not for {kind}")
    if (
        kind.startswith(("tcp://", f"{PREFIX}http://"))
        and not options.insecure
        and not _is_loopback(kind)
    ):
        raise OptionError(
            f"{kind} is on another machine, and open to everybody between; use tls:// with "
            "certificates (docs/reliability.md), gateway+https://, or --insecure-cluster on a "
            "network of your own"
        )
    if options.memory_limit is not None:
        _parse_limit(options.memory_limit)
    return replace(options, kind=kind)


def is_address(kind: str) -> bool:
    """Whether a kind of cluster is the address of a running scheduler."""
    return kind.startswith(("tcp://", "tls://"))


def is_gateway(kind: str) -> bool:
    """Whether a kind of cluster is the address of a dask-gateway server."""
    return kind.startswith((f"{PREFIX}http://", f"{PREFIX}https://"))


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _parse_limit(text: str) -> int:
    try:
        return int(parse_bytes(text))
    except ValueError as error:
        raise OptionError(f"--memory-limit {text} is no size; write it as 8GB") from error


def memory_limit(options: ClusterOptions) -> int | None:
    """Bytes at which a worker of ours is restarted; None for workers that are not ours."""
    if is_address(options.kind) or is_gateway(options.kind):
        return None
    if options.kind == "kubernetes":
        return _parse_limit(options.kubernetes.memory)
    if options.kind == "slurm":
        return _parse_limit(options.slurm.memory) // max(options.slurm.gpus, 1)
    if options.memory_limit is not None:
        return _parse_limit(options.memory_limit)
    return int(MEMORY_LIMIT) // max(_expected_workers(options), 1)


def count_gpus() -> int:
    """GPUs that the NVIDIA driver and CUDA_VISIBLE_DEVICES show; 0 without a driver."""
    import pynvml

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        pynvml.nvmlInit()
        present = int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
    if visible is None:
        return present
    return min(present, len([name for name in visible.split(",") if name not in ("", "-1")]))


@contextmanager
def open_cluster(options: ClusterOptions) -> Iterator[Client]:
    """A client of ready workers; what was started for it ends with the block.

    Raises:
        ClusterError: if there is no GPU, no scheduler at the address, or no worker comes.
        OptionError: if the kind is not known.
    """
    _refuse_unguarded_script()
    options = resolve_kind(options)
    with dask.config.set(SETTINGS):
        if options.kind == "cpu":
            with _embedded(options) as client:
                yield client
        elif options.kind == "gpu":
            with _gpus(options) as client:
                yield client
        elif options.kind == "slurm":
            with open_slurm(options, _TASK_THREADS, SETTINGS) as client:
                yield client
        elif options.kind == "kubernetes":
            with open_kubernetes(options, _TASK_THREADS, SETTINGS) as client:
                yield client
        elif is_gateway(options.kind):
            with open_gateway(options) as client:
                yield client
        else:
            with _running(options.kind, options.wait_seconds) as client:
                yield client


@contextmanager
def reported(client: Client, file: str | Path | None) -> Iterator[None]:
    """Write dask's performance report of what happens in the block; None: no report."""
    if file is None:
        yield
        return
    # dask writes at the end, and hours of work must not end in a place that does not exist.
    Path(file).write_text("")
    with client.as_current(), performance_report(filename=str(file)):
        yield


def _refuse_unguarded_script() -> None:
    """Worker processes import the user's script; one that starts workers there never ends."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ClusterError(
            "the script starts workers whenever it is imported, and each worker imports it; put "
            'the call under: if __name__ == "__main__":'
        )


def _local_arguments(options: ClusterOptions, *preload: str) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "memory_limit": options.memory_limit or "auto",
        "silence_logs": logging.ERROR,
        "preload": [_LEAVE_INTERRUPTS_TO_THE_DRIVER, *preload],
    }


@contextmanager
def ending(cluster: LocalCluster) -> Iterator[LocalCluster]:
    """End a cluster of this machine with the block, whatever its workers do.

    A worker that has not ended five seconds after it was asked to, be it that the machine is busy,
    is an error for dask; whoever asks a second time waits for ever.
    """
    try:
        yield cluster
    finally:
        # It would tell of the error, too.
        log = logging.getLogger("tornado.application")
        log.disabled = True
        try:
            cluster.close(timeout=_END_SECONDS)
        except TimeoutError:
            # dask would try again when Python ends.
            cluster.shutdown_on_close = False
            for nanny in cluster.workers.values():
                if nanny.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(nanny.pid, signal.SIGKILL)
        finally:
            log.disabled = False


@contextmanager
def _embedded(options: ClusterOptions) -> Iterator[Client]:
    before_start = {
        "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
        # GPUs of this machine have nothing to do with the run.
        "distributed.diagnostics.nvml": False,
    }
    with (
        dask.config.set(before_start),
        ending(
            LocalCluster(
                n_workers=fewest_workers(options),
                threads_per_worker=worker_threads(_TASK_THREADS),
                **_local_arguments(options, _SEE_NO_GPU),
            )
        ) as cluster,
        Client(cluster) as client,
    ):
        if isinstance(options.workers, WorkerRange):
            cluster.adapt(minimum=options.workers.least, maximum=options.workers.most)
        yield client


@contextmanager
def _gpus(options: ClusterOptions) -> Iterator[Client]:
    found = count_gpus()
    if not found:
        raise ClusterError(
            "no GPU found (NVIDIA driver not loaded, or CUDA_VISIBLE_DEVICES hides them); "
            "use --cluster cpu"
        )
    wanted = most_workers(options)
    if wanted and wanted > found:
        raise ClusterError(f"{wanted} workers asked for, but there are {found} GPU(s)")
    from dask_cuda import LocalCUDACluster

    with (
        ending(
            LocalCUDACluster(
                n_workers=wanted,
                threads_per_worker=worker_threads(_TASK_THREADS, on_gpu=True),
                **_local_arguments(options),
            )
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _running(address: str, wait_seconds: float) -> Iterator[Client]:
    security = _security(address)
    try:
        # On a thread of its own: in a notebook this one runs an event loop already.
        with ThreadPoolExecutor(1) as executor:
            executor.submit(asyncio.run, _greet(address, security)).result()
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no dask scheduler answers at {address} within {_CONNECT_SECONDS} s; start one with "
            "`dask scheduler` and workers with `dask worker`"
        ) from error
    with (
        without_dasks_warning(),
        Client(address, security=security, set_as_default=False) as client,
    ):
        # Workers that died in a run just before are away until they have started again.
        wait_for_first_worker(
            client,
            min(wait_seconds, _FIRST_WORKER_SECONDS),
            f"the scheduler at {address} has no workers; start some: dask worker {address}",
        )
        refuse_other_versions(client)
        yield client


def _security(address: str) -> Security:
    """The certificates that dask is configured with.

    Raises:
        ClusterError: if the address needs some and there are none.
    """
    security = Security()
    if address.startswith("tls://") and not (security.tls_ca_file and security.tls_client_cert):
        raise ClusterError(
            f"{address} needs certificates, and dask is configured with none; set "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and "
            "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"
        )
    return security


async def _greet(address: str, security: Security) -> None:
    """Exchange dask's greeting: a client alone would wait for ever for a server of another kind."""
    arguments = security.get_connection_args("client")
    comm = await asyncio.wait_for(connect(address, **arguments), _CONNECT_SECONDS)
    await comm.close()
