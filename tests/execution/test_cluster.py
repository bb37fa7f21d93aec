"""Where workers come from, and who can reach them."""

import asyncio
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import psutil
import pynvml
import pytest
from distributed import LocalCluster
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from tilesegment.config import ClusterOptions, WorkerRange
from tilesegment.errors import ClusterError, OptionError
from tilesegment.execution.cluster import (
    choose_feed,
    count_gpus,
    inference_threads,
    local_workers,
    memory_limit,
    open_cluster,
    resolve_kind,
)
from tilesegment.execution.worker import describe_worker

NO_GPU = count_gpus() == 0


def memory_settings() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in ("MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")}


def test_the_embedded_cluster_listens_on_the_loopback_address_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The user's environment goes first, and another cluster may have left its settings there.
    for name in memory_settings():
        monkeypatch.delenv(name, raising=False)
    with open_cluster(ClusterOptions(workers=1)) as client:
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = [
            connection.laddr.ip
            for process in processes
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert set(listening) == {"127.0.0.1"}
        (found,) = client.run(memory_settings).values()
        if sys.platform == "linux":
            assert found["MALLOC_TRIM_THRESHOLD_"] == str(2**31 - 1)


def test_a_worker_that_is_slow_to_start_again_is_not_given_up() -> None:
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "100ms"}),
        open_cluster(ClusterOptions(workers=1)) as client,
    ):
        (first,) = client.run(os.getpid).values()
        os.kill(first, signal.SIGKILL)
        for _ in range(300):
            if set(client.run(os.getpid, on_error="ignore").values()) - {first}:
                break
            time.sleep(0.2)
        else:
            pytest.fail("the worker was not started again")


@pytest.mark.parametrize("error", [TimeoutError, None])
def test_a_worker_that_is_slow_to_end_is_killed_without_a_word(
    error: type[Exception] | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # pytest gives the handler its level back, and dask only if it closes.
    caplog.set_level(logging.WARNING)

    async def kill(*_: object, **__: object) -> None:
        if error is not None:
            raise error
        await asyncio.sleep(3600)

    monkeypatch.setattr("distributed.nanny.WorkerProcess.kill", kill)
    monkeypatch.setattr("tilesegment.execution.cluster._END_SECONDS", 1)
    with open_cluster(ClusterOptions(workers=1)) as client:
        (number,) = client.run(os.getpid).values()
        process = psutil.Process(number)
    process.wait(timeout=30)
    assert "TimeoutError" not in caplog.text


@pytest.mark.parametrize(
    ("options", "workers", "on_gpus", "feed"),
    [
        (ClusterOptions(), 1, False, "overlap"),
        (ClusterOptions(workers=31), 31, False, "overlap"),
        (ClusterOptions(workers=32), 1, False, "tile"),
        (ClusterOptions("slurm", WorkerRange(1, 64)), 1, False, "tile"),
        (ClusterOptions("tls://10.0.0.5:8786"), 100, False, "tile"),
        (ClusterOptions("tls://10.0.0.5:8786"), 8, True, "tile"),
        (ClusterOptions("gpu"), 4, False, "tile"),
        (ClusterOptions("gpu", workers=2), 2, False, "overlap"),
        (ClusterOptions(feed="tile"), 1, False, "tile"),
        (ClusterOptions("gpu", feed="overlap"), 8, False, "overlap"),
    ],
)
def test_a_scheduler_of_many_workers_is_given_one_task_per_tile(
    options: ClusterOptions, workers: int, on_gpus: bool, feed: str
) -> None:
    assert choose_feed(options, workers, on_gpus) == feed


def test_all_cores_are_used_by_whatever_number_of_workers() -> None:
    cores = len(os.sched_getaffinity(0))
    for workers in (1, 2, cores):
        options = ClusterOptions(workers=workers)
        assert local_workers(options) == workers
        assert (inference_threads(options) or 0) * workers <= max(cores, workers)


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU")
def test_without_a_gpu_there_is_one_line() -> None:
    with (
        pytest.raises(ClusterError, match="no GPU found .* use --cluster cpu"),
        open_cluster(ClusterOptions("gpu")),
    ):
        pass


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU")
def test_auto_takes_the_cpu_where_there_is_no_gpu() -> None:
    assert resolve_kind(ClusterOptions("auto")).kind == "cpu"


def test_auto_takes_gpus_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    assert resolve_kind(ClusterOptions("auto")).kind == "gpu"


@pytest.mark.parametrize(
    ("kind", "insecure", "allowed"),
    [
        ("tcp://127.0.0.1:8786", False, True),
        ("tcp://localhost:8786", False, True),
        ("tcp://[::1]:8786", False, True),
        ("tcp://10.0.0.5:8786", False, False),
        ("tcp://head.example.org:8786", False, False),
        ("tcp://127.0.0.1.example.org:8786", False, False),
        ("tcp://10.0.0.5:8786", True, True),
        ("tls://10.0.0.5:8786", False, True),
        ("gateway+http://127.0.0.1:8000", False, True),
        ("gateway+http://10.0.0.5:8000", False, False),
        ("gateway+https://10.0.0.5", False, True),
    ],
)
def test_what_leaves_the_machine_is_encrypted(kind: str, insecure: bool, allowed: bool) -> None:
    options = ClusterOptions(kind, insecure=insecure)
    if allowed:
        assert resolve_kind(options) == options
    else:
        with pytest.raises(OptionError, match="use tls:// .* or --insecure-cluster"):
            resolve_kind(options)


def test_tls_without_certificates_is_one_line() -> None:
    with (
        pytest.raises(ClusterError, match="needs certificates, and dask is configured with none"),
        open_cluster(ClusterOptions("tls://127.0.0.1:8786")),
    ):
        pass


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes certificates with openssl")
def test_a_scheduler_with_certificates_is_used_and_refuses_others(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    subprocess.run(
        [*command, "-subj", "/CN=test", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    configured = {
        f"distributed.comm.tls.{role}.{name}": str(path)
        for role in ("scheduler", "worker", "client")
        for name, path in (("cert", certificate), ("key", key))
    }
    configured["distributed.comm.tls.ca-file"] = str(certificate)
    with dask.config.set(configured):
        security = Security(require_encryption=True)
    with LocalCluster(
        n_workers=1, processes=False, host="tls://127.0.0.1", security=security,
        dashboard_address="127.0.0.1:0",
    ) as cluster:  # fmt: skip
        address = cluster.scheduler_address
        with dask.config.set(configured), open_cluster(ClusterOptions(address)) as client:
            assert len(client.nthreads()) == 1
        plain = ClusterOptions(address.replace("tls://", "tcp://"))
        with pytest.raises(ClusterError, match="no dask scheduler"), open_cluster(plain):
            pass


def test_gpus_share_the_memory_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilesegment.execution.cluster.count_gpus", lambda: 2)
    assert memory_limit(ClusterOptions("gpu")) == int(MEMORY_LIMIT) // 2
    assert memory_limit(ClusterOptions("gpu", workers=1)) == int(MEMORY_LIMIT)


def test_a_scheduler_whose_workers_start_again_is_waited_for() -> None:
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        later = threading.Timer(1, cluster.scale, [1])
        later.start()
        with open_cluster(ClusterOptions(cluster.scheduler_address)) as client:
            assert len(client.nthreads()) == 1
        later.join()


def test_a_scheduler_without_workers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilesegment.execution.cluster._FIRST_WORKER_SECONDS", 1)
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        pytest.raises(ClusterError, match="has no workers; start some"),
        open_cluster(ClusterOptions(cluster.scheduler_address)),
    ):
        pass


def test_a_port_that_speaks_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilesegment.execution.cluster._CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with (
            pytest.raises(ClusterError, match="no dask scheduler answers"),
            open_cluster(ClusterOptions(address)),
        ):
            pass


def test_a_script_without_main_guard_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with (
        pytest.raises(ClusterError, match='if __name__ == "__main__"'),
        open_cluster(ClusterOptions()),
    ):
        pass


def test_what_a_worker_tells_does_not_load_torch_in_the_driver() -> None:
    """Torch's version is a class of torch's own, and would bring 200 MB with it when unpickled."""
    kind, sees = describe_worker("cpu", "float32", __file__)
    assert sees
    assert {type(value) for value in vars(kind).values()} == {str}
