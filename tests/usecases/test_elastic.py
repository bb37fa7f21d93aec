"""Workers that join, leave and die while a run goes on."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import dask
import pytest
import zarr
from distributed import Client, LocalCluster, Scheduler

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tests.usecases.faults import Plant, planted, unhurried
from tests.usecases.test_segment import MakeModel, chunks
from tilesegment.config import ClusterOptions, Feed, ForeignOptions, RunOptions
from tilesegment.errors import ClusterError, IncompleteError
from tilesegment.execution import engine
from tilesegment.execution.cluster import SETTINGS, ending
from tilesegment.execution.worker import WorkerKind, WorkerModel, describe_worker
from tilesegment.model.opening import open_model
from tilesegment.usecases.job import prepare_job
from tilesegment.usecases.workers import (
    Progress,
    agreed_kind,
    fed,
    model_on_workers,
    refuse_shared_gpu,
)

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
        ending(LocalCluster(
            n_workers=1, threads_per_worker=3, host="127.0.0.1", dashboard_address="127.0.0.1:0",
            memory_limit="4GB", silence_logs=logging.CRITICAL,
        )) as cluster,
    ):  # fmt: skip
        yield cluster


def few_tiles_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """What joins while the last of few tiles are computed has work: the next plane's."""
    monkeypatch.setattr(engine, "_TILES_AHEAD", 4)
    monkeypatch.setattr(engine, "_TILES_AHEAD_OF_A_WORKER", 2)


def wait_until(fulfilled: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not fulfilled():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def holding_the_model(client: Client) -> int:
    """Workers that can be given tiles: that needs some seconds from when they have joined."""
    return client.run_on_scheduler(_holding)  # type: ignore[no-any-return]


def _holding(dask_scheduler: Scheduler) -> int:
    resources = dask_scheduler.resources.items()
    return max((len(all_) for name, all_ in resources if name.startswith("tilesegment")), default=0)


@contextmanager
def joining(address: str, *words: str, **environment: str) -> Iterator[int]:
    """A worker that somebody starts elsewhere: the number of its process."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny"]
    process = subprocess.Popen(
        [*command, "--nthreads", "3", "--host", "127.0.0.1", *words],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            # dask waits for ever where the signal comes while it closes a retired worker.
            process.kill()
            process.wait()


def test_workers_join_die_and_leave_and_the_bytes_are_the_same(
    image: Path,
    make_model: MakeModel,
    cluster: LocalCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model()
    address = ClusterOptions(cluster.scheduler_address)
    ts.segment(image, model, labels="calm", options=OPTIONS, cluster=address)
    # The next plane is sent when few tiles are left: what joins meanwhile has work.
    few_tiles_ahead(monkeypatch)
    (tmp_path / "plant").mkdir()
    seen: dict[int, int] = {}

    with Client(cluster, set_as_default=False) as client:
        client.register_plugin(Plant(unhurried, tmp_path / "plant"), name="plant")

        def report(progress: Progress) -> None:
            if progress.phase != "tiles":
                return
            seen[progress.done] = len(client.nthreads())
            if progress.done in (6, 14):
                wanted = 2 if progress.done == 6 else 3
                cluster.scale(wanted)
                wait_until(lambda: holding_the_model(client) == wanted)
            elif progress.done == 22:
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
            elif progress.done == 28:
                cluster.scale(1)

        summary = ts.segment(image, model, options=OPTIONS, cluster=address, report=report)
    assert (summary.status, summary.computed) == ("done", 36)
    assert (seen[6], seen[14], seen[22]) == (1, 2, 3)
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
    few_tiles_ahead(monkeypatch)
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
    few_tiles_ahead(monkeypatch)

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


def test_a_worker_that_dies_while_the_driver_is_busy_costs_no_tile_that_is_done(
    image: Path, make_model: MakeModel, cluster: LocalCluster, tmp_path: Path
) -> None:
    """What workers tell of their tiles is fetched also then."""
    model = make_model()
    (tmp_path / "plant").mkdir()
    with planted(cluster.scheduler_address, unhurried, tmp_path / "plant") as plant:

        def report(progress: Progress) -> None:
            if progress.phase == "tiles" and progress.done == 1:
                wait_until(lambda: plant.executions().total() == 36)
                wait_until(lambda: not any(plant.client.has_what().values()))
                # Its nanny starts another.
                os.kill(next(iter(plant.client.run(os.getpid).values())), signal.SIGKILL)

        address = ClusterOptions(cluster.scheduler_address, wait_seconds=60)
        summary = ts.segment(image, model, options=OPTIONS, cluster=address, report=report)
        assert (summary.status, summary.computed) == ("done", 36)
        assert plant.executions().total() == 36


@dataclass(frozen=True)
class Dying:
    """A model on which the first worker dies that loads it."""

    flag: Path
    kind: None = None
    versions: None = None
    tiles_at_once: int = 1

    def build(self, worker_threads: int) -> "Dying":
        if self.flag.exists():
            self.flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self


def test_a_worker_that_is_lost_while_it_loads_the_model_ends_no_run(
    cluster: LocalCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    with (
        caplog.at_level(logging.WARNING, "tilesegment"),
        Client(cluster, set_as_default=False) as client,
        model_on_workers(client, cast("WorkerModel", Dying(flag)), None),
    ):
        # Its nanny has started another.
        wait_until(lambda: holding_the_model(client) == 1)
    assert "a worker was lost while it loaded the model" in caplog.text


OLD = (
    "import tilesegment.execution.versions as versions; from importlib.metadata import version; "
    "versions.version = lambda name: '0.0.1' if name == 'tilesegment' else version(name)"
)
"""For `dask worker --preload`, which executes it twice."""


@pytest.mark.parametrize(
    ("feed", "words", "environment", "told", "refused"),
    [
        (
            "overlap",
            (),
            {"ATEN_CPU_CAPABILITY": "default"},
            "tcp://.* is cpu float32, torch .*, DEFAULT, and the others are cpu float32",
            "the workers differ",
        ),
        (
            "overlap",
            ("--preload", OLD),
            {},
            r"other versions of the software: tilesegment 0.0.1 at tcp://.* \(here ",
            "tilesegment 0.0.1 at tcp://",
        ),
        (
            # Tiles that are one task each are sent to it, fail there, and are done elsewhere.
            "tile",
            (),
            {"ATEN_CPU_CAPABILITY": "default"},
            "tcp://.* is cpu float32, torch .*, DEFAULT, and the others are cpu float32",
            None,
        ),
    ],
    ids=["other processor", "other version", "single tasks"],
)
def test_a_worker_that_could_give_other_labels_and_joins_gets_no_tiles(
    feed: Feed,
    words: tuple[str, ...],
    environment: dict[str, str],
    told: str,
    refused: str | None,
    image: Path,
    make_model: MakeModel,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    few_tiles_ahead(monkeypatch)
    address = ClusterOptions(cluster.scheduler_address, feed=feed)
    # The level of the handler, too: the cluster's `silence_logs` has raised it.
    with ExitStack() as stack, caplog.at_level(logging.WARNING, "tilesegment"):

        def report(progress: Progress) -> None:
            if progress.phase == "tiles" and progress.done == 1:
                stack.enter_context(joining(cluster.scheduler_address, *words, **environment))
                wait_until(lambda: "gets no tiles" in caplog.text)

        summary = ts.segment(image, make_model(), options=OPTIONS, cluster=address, report=report)
        if feed == "tile":
            assert summary.cluster is not None
            assert summary.cluster["retries"] > 0
        if refused is not None:
            with pytest.raises(ClusterError, match=refused):
                ts.segment(image, make_model(), labels="b", options=OPTIONS, cluster=address)
    assert (summary.status, summary.computed) == ("done", 36)
    assert summary.cluster is not None
    assert [worker["tiles"] for worker in summary.cluster["workers"]] == [36]
    assert re.search(f"the worker at tcp://.* gets no tiles: {told}", caplog.text)


def test_where_devices_may_be_mixed_a_worker_of_another_kind_gets_tiles(
    image: Path, make_model: MakeModel, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other instructions of the processor; both machines are real but for that."""
    few_tiles_ahead(monkeypatch)
    mixed = ClusterOptions(cluster.scheduler_address, mixed_devices=True)
    with (
        Client(cluster, set_as_default=False) as client,
        joining(cluster.scheduler_address, ATEN_CPU_CAPABILITY="default"),
    ):
        client.wait_for_workers(2, timeout=60)
        summary = ts.segment(image, make_model(), options=OPTIONS, cluster=mixed)
        # It may not claim that not one label can differ.
        found = ts.verify(image, "model", windows=2, cluster=mixed)
    assert (summary.status, summary.computed) == ("done", 36)
    assert summary.cluster is not None
    assert len(summary.cluster["workers"]) == 2
    assert found.passed
    assert found.allowed_labels > 0


HERE, _ = describe_worker("cpu", "float32", __file__)
GPU = replace(HERE, device="cuda", capability="NVIDIA H200")


def test_workers_with_and_without_a_gpu_may_be_mixed_where_that_is_allowed() -> None:
    with pytest.raises(ClusterError, match="1 x cuda float32.* or allow several with --mixed-dev"):
        agreed_kind([HERE, HERE, GPU], mixed=False)
    kind = agreed_kind([HERE, HERE, GPU], mixed=True)
    # Whoever comes first, or joins later, or resumes with others: the run is the same.
    assert kind == agreed_kind([GPU], mixed=True)
    assert kind.admits(HERE)
    assert kind.admits(GPU)
    assert not HERE.admits(GPU)


def test_tiles_are_cut_for_gpus_once_the_workers_are_known_to_have_some(
    tmp_path: Path, make_model: MakeModel, one_worker: str
) -> None:
    image = write_image(tmp_path / "i.zarr", random_pixels((3, 64, 64), "uint8"))
    zarr.open_array(image / "0").resize((3, 40_000, 40_000))
    model, address = open_model(make_model(), ForeignOptions()), ClusterOptions(one_worker)
    job = prepare_job(image, model, None, None, RunOptions())
    with Client(one_worker, set_as_default=False) as client:
        on_cpus, on_gpus = (fed(job, client, address, workers) for workers in (HERE, GPU))
        mixed = fed(job, client, address, HERE.mixed())
    assert on_cpus.plan == mixed.plan == job.plan
    assert on_gpus.plan.tile >= 2 * job.plan.tile
    as_gpus = prepare_job(image, model, None, None, RunOptions(), on_gpus=True)
    assert on_gpus.plan == as_gpus.plan


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(GPU, precision="bfloat16"), "bfloat16 on NVIDIA H200; float32 on .*--precision"),
        (replace(GPU, torch="2.0.0"), "several versions of torch .2.0.0, "),
    ],
)
def test_mixed_devices_compute_in_one_precision_with_one_torch(
    other: WorkerKind, message: str
) -> None:
    with pytest.raises(ClusterError, match=message):
        agreed_kind([HERE, other], mixed=True)
    assert not agreed_kind([HERE], mixed=True).admits(other)


def test_two_workers_on_one_gpu_are_refused() -> None:
    refuse_shared_gpu({"tcp://a:1": "node1 GPU-1", "tcp://a:2": "node1 GPU-2"})
    with pytest.raises(ClusterError, match=r"tcp://a:1, tcp://b:2 hold the same GPU .node1 GPU-1."):
        refuse_shared_gpu({"tcp://a:1": "node1 GPU-1", "tcp://b:2": "node1 GPU-1"})
