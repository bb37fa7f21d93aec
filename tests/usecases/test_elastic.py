"""Workers that join, leave and die while a run goes on."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tests.usecases.faults import Plant, calm
from tests.usecases.test_segment import MakeModel, chunks
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import ClusterError, IncompleteError
from tilesegment.execution import engine
from tilesegment.execution.cluster import SETTINGS
from tilesegment.usecases.workers import Progress, refuse_shared_gpu

OPTIONS = RunOptions(tile=32, precision="float32")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Six planes, each a region of two by three tiles."""
    pixels = random_pixels((6, 3, 60, 90), "uint8")
    return write_image(tmp_path / "i.zarr", pixels, "tcyx", levels=2)


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """One worker process; a test may ask for more."""
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=1, threads_per_worker=3, host="127.0.0.1", dashboard_address="127.0.0.1:0",
            memory_limit="4GB", silence_logs=logging.CRITICAL,
        ) as cluster,
    ):  # fmt: skip
        yield cluster


def test_workers_join_die_and_leave_and_the_bytes_are_the_same(
    image: Path,
    make_model: MakeModel,
    one_worker: str,
    cluster: LocalCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model()
    ts.segment(image, model, labels="calm", options=OPTIONS, cluster=ClusterOptions(one_worker))
    # The next plane is sent when few tiles are left: what joins meanwhile has work.
    monkeypatch.setattr(engine, "_TILES_AHEAD", 4)
    (tmp_path / "plant").mkdir()
    seen: dict[int, int] = {}

    with Client(cluster, set_as_default=False) as client:
        client.register_plugin(Plant(calm, tmp_path / "plant"), name="plant")

        def report(progress: Progress) -> None:
            if progress.phase != "tiles":
                return
            seen[progress.done] = len(client.nthreads())
            if progress.done in (6, 14):
                wanted = 2 if progress.done == 6 else 4
                cluster.scale(wanted)
                client.wait_for_workers(wanted, timeout=60)
            elif progress.done == 22:
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
            elif progress.done == 28:
                cluster.scale(1)

        address = ClusterOptions(cluster.scheduler_address)
        summary = ts.segment(image, model, options=OPTIONS, cluster=address, report=report)
    assert (summary.status, summary.computed) == ("done", 36)
    assert (seen[6], seen[14], seen[22]) == (1, 2, 4)
    assert summary.cluster is not None
    told = summary.cluster["workers"]
    # Also what has left is told of.
    assert sum(worker["tiles"] for worker in told) == 36
    assert len(told) >= 3
    assert all(0 <= worker["idle_share"] <= 1 for worker in told)
    assert summary.cluster["retries"] == 0
    assert summary.cluster["moved_bytes"] >= 0
    # The labels tell nobody what the machines are called.
    assert "tcp://" not in (image / "labels" / "model" / "zarr.json").read_text()
    executions = (tmp_path / "plant" / "executions").read_text().splitlines()
    assert len({line.split()[1] for line in executions}) >= 3
    assert 36 <= len(executions) <= 36 + 7 + 3 * 7
    assert chunks(image / "labels" / "model") == chunks(image / "labels" / "calm")


def test_without_workers_a_run_waits_says_so_and_can_be_resumed(
    image: Path,
    make_model: MakeModel,
    cluster: LocalCluster,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "_TILES_AHEAD", 4)
    model = make_model()
    options = ClusterOptions(cluster.scheduler_address, wait_seconds=2)

    def report(progress: Progress) -> None:
        if progress.phase == "tiles" and progress.done == 6:
            cluster.scale(0)

    with (
        caplog.at_level(logging.WARNING, "tilesegment"),
        pytest.raises(IncompleteError, match="no worker came back within 2 s"),
    ):
        ts.segment(image, model, options=OPTIONS, cluster=options, report=report)
    assert "all workers are gone; waiting up to 2 s for others" in caplog.text
    cluster.scale(1)
    cluster.wait_for_workers(1, timeout=60)
    summary = ts.segment(image, model, options=OPTIONS, cluster=options)
    assert summary.status == "done"
    assert summary.skipped >= 6


def test_a_run_that_lost_its_last_worker_goes_on_with_another(
    image: Path, make_model: MakeModel, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other has what the network's tasks need some time after it has joined."""
    monkeypatch.setattr(engine, "_TILES_AHEAD", 4)

    def report(progress: Progress) -> None:
        if progress.phase == "tiles" and progress.done == 6:
            # Its nanny starts another.
            with Client(cluster, set_as_default=False) as client:
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

    options = ClusterOptions(cluster.scheduler_address, wait_seconds=60)
    summary = ts.segment(image, make_model(), options=OPTIONS, cluster=options, report=report)
    assert (summary.status, summary.tiles) == ("done", 36)
    assert summary.cluster is not None
    assert len(summary.cluster["workers"]) == 2


def test_a_worker_of_another_kind_that_joins_gets_no_tiles(
    image: Path, make_model: MakeModel, cluster: LocalCluster, tmp_path: Path
) -> None:
    """Other instructions of the processor: its last bits would differ."""
    (tmp_path / "plant").mkdir()
    words = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address]
    joined: list[subprocess.Popen[bytes]] = []
    with Client(cluster, set_as_default=False) as client:
        client.register_plugin(Plant(calm, tmp_path / "plant"), name="plant")

        def report(progress: Progress) -> None:
            if progress.phase == "tiles" and progress.done == 0:
                joined.append(
                    subprocess.Popen(
                        [*words, "--no-nanny", "--nthreads", "3", "--host", "127.0.0.1"],
                        env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    )
                )  # fmt: skip
                client.wait_for_workers(2, timeout=60)

        try:
            address = ClusterOptions(cluster.scheduler_address)
            summary = ts.segment(
                image, make_model(), options=OPTIONS, cluster=address, report=report
            )
            with pytest.raises(ClusterError, match="the workers differ"):
                ts.segment(image, make_model(), labels="b", options=OPTIONS, cluster=address)
        finally:
            for process in joined:
                process.terminate()
                process.wait()
    assert (summary.status, summary.computed) == ("done", 36)
    executions = (tmp_path / "plant" / "executions").read_text().splitlines()
    assert str(joined[0].pid) not in {line.split()[1] for line in executions}


def test_two_workers_on_one_gpu_are_refused() -> None:
    refuse_shared_gpu({"tcp://a:1": "node1 GPU-1", "tcp://a:2": "node1 GPU-2"})
    with pytest.raises(ClusterError, match=r"tcp://a:1, tcp://b:2 hold the same GPU .node1 GPU-1."):
        refuse_shared_gpu({"tcp://a:1": "node1 GPU-1", "tcp://b:2": "node1 GPU-1"})
