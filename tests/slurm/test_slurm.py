"""A real Slurm of one node; `.ci/run` starts one, as tests/slurm/slurm.sh does anywhere."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from dask_jobqueue.core import Job
from distributed import Client

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tests.usecases.faults import Plant, slow, unhurried
from tests.usecases.test_segment import MakeModel, chunks
from tilesegment.config import ClusterOptions, RunOptions, SlurmOptions
from tilesegment.errors import ClusterError, OptionError
from tilesegment.execution import cluster as module
from tilesegment.execution.slurm import job_arguments, walltime_seconds, worker_environment
from tilesegment.usecases.workers import Progress

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "deploy" / "slurm"
OPTIONS = RunOptions(tile=32, precision="float32")


def _answers() -> bool:
    if not os.environ.get("SLURM_CONF") or shutil.which("sinfo") is None:
        return False
    told = subprocess.run(["sinfo", "-h"], capture_output=True, timeout=30, check=False)
    return told.returncode == 0


needs_slurm = pytest.mark.skipif(
    not _answers(),
    reason="no Slurm answers; export SLURM_CONF=$(tests/slurm/slurm.sh start /tmp/slurm)",
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Five by four tiles of 32 px, three levels."""
    return write_image(tmp_path / "i.zarr", random_pixels((3, 150, 120), "uint8"), levels=3)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterOptions:
    """Two jobs of one worker each, that find this checkout."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'cli'}")
    job = SlurmOptions(cores=1, memory="2GB", walltime="10:00", folder=str(tmp_path / "jobs"))
    return ClusterOptions("slurm", workers=2, wait_seconds=120, slurm=job)


def jobs() -> list[str]:
    """Numbers of the workers' jobs that run."""
    words = ["squeue", "--me", "-h", "--name=tilesegment", "--states=RUNNING", "-o", "%A"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def states_of(job: int | str) -> set[str]:
    """How the tasks of a job have ended or stand, as Slurm calls it."""
    words = ["scontrol", "--oneliner", "show", "job", str(job)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"JobState=(\w+)", told))


@needs_slurm
def test_workers_in_jobs_give_the_volume_of_this_machine(
    image: Path, make_model: MakeModel, one_worker: str, options: ClusterOptions
) -> None:
    model = make_model()
    ts.segment(image, model, labels="here", options=OPTIONS, cluster=ClusterOptions(one_worker))
    seen: set[int] = set()

    def report(progress: Progress) -> None:
        seen.add(len(jobs()))
        # Certificates are for the owner only, and nobody is spoken to in the clear.
        modes = {path.stat().st_mode & 0o77 for path in Path(options.slurm.folder).glob(".dask*")}
        assert modes == {0}

    summary = ts.segment(image, model, options=OPTIONS, cluster=options, report=report)
    assert (summary.status, summary.computed) == ("done", 20)
    assert max(seen) == 2
    assert chunks(image / "labels" / "model") == chunks(image / "labels" / "here")


@needs_slurm
def test_a_cancelled_job_costs_its_tiles_in_flight_and_another_takes_its_place(
    image: Path,
    make_model: MakeModel,
    one_worker: str,
    options: ClusterOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model()
    ts.segment(image, model, labels="here", options=OPTIONS, cluster=ClusterOptions(one_worker))
    folder = tmp_path / "plant"
    folder.mkdir()
    plain = module.open_cluster
    cancelled: list[str] = []
    came_later: list[str] = []

    @contextmanager
    def planted(wanted: ClusterOptions) -> Iterator[Client]:
        with plain(wanted) as client:
            client.wait_for_workers(2, timeout=120)
            client.register_plugin(Plant(unhurried, folder), name="plant")
            yield client
            # While the run lasts a job that ended is submitted again.
            client.wait_for_workers(2, timeout=120)
            came_later.extend(set(jobs()) - {*before})

    before: list[str] = []

    def report(progress: Progress) -> None:
        if progress.phase == "tiles" and progress.done >= 5 and not cancelled:
            before.extend(jobs())
            cancelled.append(before[0])
            subprocess.run(["scancel", before[0]], check=True)

    monkeypatch.setattr(module, "open_cluster", planted)
    summary = ts.segment(image, model, options=OPTIONS, cluster=options, report=report)
    executions = len((folder / "executions").read_text().splitlines())
    assert (summary.status, summary.computed) == ("done", 20)
    assert cancelled
    assert 20 <= executions <= 20 + 7
    assert len(came_later) == 1
    assert chunks(image / "labels" / "model") == chunks(image / "labels" / "here")


@pytest.mark.slow
@needs_slurm
def test_workers_leave_before_the_walltime_and_the_next_job_goes_on(
    image: Path,
    make_model: MakeModel,
    options: ClusterOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two minutes a worker stays 39 to 75 s: less than 20 tiles of 5 s take."""
    (tmp_path / "plant").mkdir()
    plain = module.open_cluster

    @contextmanager
    def planted(wanted: ClusterOptions) -> Iterator[Client]:
        with plain(wanted) as client:
            client.register_plugin(Plant(slow, tmp_path / "plant"), name="plant")
            yield client

    monkeypatch.setattr(module, "open_cluster", planted)
    short = replace(options, workers=1, slurm=replace(options.slurm, walltime="2:00"))
    summary = ts.segment(image, make_model(), options=OPTIONS, cluster=short)
    folder = Path(options.slurm.folder)
    submitted = sorted(int(file.stem.rpartition("-")[2]) for file in folder.glob("*.err"))
    executions = len((tmp_path / "plant" / "executions").read_text().splitlines())
    assert (summary.status, summary.computed) == ("done", 20)
    assert len(submitted) >= 2
    # One tile, the one in flight, is lost with each that leaves.
    assert executions < 20 + len(submitted)
    # None was killed for having used up its time, none submitted in vain: the last may have come
    # for the levels.
    assert {"TIMEOUT"}.isdisjoint(*map(states_of, submitted))
    assert summary.cluster is not None
    assert len(summary.cluster["workers"]) >= len(submitted) - 1


@needs_slurm
def test_a_job_array_gives_the_same_volume(
    image: Path,
    make_model: MakeModel,
    one_worker: str,
    tmp_path: Path,
    options: ClusterOptions,
) -> None:
    model = make_model()
    ts.segment(image, model, labels="here", options=OPTIONS, cluster=ClusterOptions(one_worker))
    small = [
        "sbatch",
        "--parsable",
        "--cpus-per-task=1",
        "--mem=2G",
        f"--output={tmp_path}/%x-%a.out",
    ]
    words = [image, "--model", model, "--tile", "32", "--precision", "float32"]
    program = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{program}:{os.environ['PATH']}"}
    for script, more in (("array", ["--array=1-2"]), ("commit", [])):
        job = subprocess.run(
            [*small, *more, SCRIPTS / f"{script}.sbatch", *words],
            env=environment, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        # `sbatch --wait` notices the end up to half a minute late.
        deadline = time.monotonic() + 300
        while (states := states_of(job.stdout.strip())) & {"PENDING", "RUNNING", "COMPLETING"}:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        told = "".join(path.read_text() for path in sorted(tmp_path.glob("*.out")))
        assert states == {"COMPLETED"}, told
        assert chunks(image / "labels" / "model") == chunks(image / "labels" / "here")
    assert told.count("Partition") == 1, told
    assert "Already complete" in told


@needs_slurm
@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"queue": "nowhere"}, "does not take such a job .*Invalid partition name"),
        ({"prologue": ("exit 1",)}, r"\d jobs of Slurm have ended before a worker of them joined"),
    ],
)
def test_a_job_that_cannot_work_is_one_line(
    job: dict[str, object], message: str, options: ClusterOptions
) -> None:
    wrong = replace(options, slurm=replace(options.slurm, **job))
    with pytest.raises(ClusterError, match=message), module.open_cluster(wrong):
        pass


@needs_slurm
def test_jobs_that_are_being_forgotten_are_waited_for(
    options: ClusterOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise dask fails an assertion when it closes."""
    close = Job.close

    async def slowly(job: Job) -> None:
        await asyncio.sleep(3)
        await close(job)

    monkeypatch.setattr(Job, "close", slowly)
    wrong = replace(options, slurm=replace(options.slurm, prologue=("exit 1",)))
    with pytest.raises(ClusterError, match="before a worker of"), module.open_cluster(wrong):
        pass


def test_without_sbatch_there_is_one_line_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(ClusterError, match="no Slurm found .* use --cluster cpu"),
        module.open_cluster(ClusterOptions("slurm")),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "-5", "1h"])
def test_a_walltime_that_slurm_would_not_take_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="write HH:MM:SS or D-HH:MM:SS"):
        walltime_seconds(text)


def test_a_walltime_too_short_for_a_worker_is_refused() -> None:
    with pytest.raises(OptionError, match="walltime 1:30 is shorter than two minutes"):
        worker_environment(SlurmOptions(walltime="1:30"), {})


@pytest.mark.parametrize(
    ("walltime", "duration", "stagger"),
    [
        ("2:00", "57s", "18s"),
        ("10:00", "420s", "90s"),
        ("1:00:00", "3000s", "300s"),
        ("1-0", "85800s", "300s"),
    ],
)
def test_workers_leave_before_the_walltime(walltime: str, duration: str, stagger: str) -> None:
    variables = worker_environment(SlurmOptions(walltime=walltime), {})
    assert variables["DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION"] == duration
    assert variables["DASK_DISTRIBUTED__WORKER__LIFETIME__STAGGER"] == stagger


def test_a_job_with_gpus_has_a_worker_for_each_and_one_without_sees_none() -> None:
    with_gpus = job_arguments(SlurmOptions(gpus=4), 4, {})
    assert with_gpus["worker_command"] == "dask_cuda.cli"
    # Two threads of the network and four others, each.
    assert (with_gpus["processes"], with_gpus["cores"]) == (4, 24)
    assert "--gres=gpu:4" in with_gpus["job_extra_directives"]
    assert not any("CUDA_VISIBLE" in line for line in with_gpus["job_script_prologue"])
    without = job_arguments(SlurmOptions(), 4, {})
    assert "export CUDA_VISIBLE_DEVICES=''" in without["job_script_prologue"]
    assert any("MALLOC_TRIM_THRESHOLD_" in line for line in without["job_script_prologue"])
