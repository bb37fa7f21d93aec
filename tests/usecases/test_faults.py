"""Faults made on purpose while a run goes on: what it does, and how often each tile is computed."""

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import tilesegment as ts
from tests.cli.test_commands import PROGRAM
from tests.pictures import equal, levels, random_pixels, upload, write_image
from tests.usecases.faults import (
    LOST_KEY,
    MARKED,
    Place,
    broken_worker,
    calm,
    hangs_always,
    hangs_once,
    killed_once,
    kills_always,
    little_memory,
    lost_gpu_once,
    planted,
    unforeseen,
    unforeseen_once,
    waits,
    works_for_five_tiles,
)
from tests.usecases.test_segment import MakeModel, chunks
from tilesegment import retry
from tilesegment.config import ClusterOptions, Feed, RunOptions
from tilesegment.errors import QuarantineError, UnexpectedError
from tilesegment.execution.cluster import open_cluster
from tilesegment.geometry import YX
from tilesegment.storage.ledger import read_records
from tilesegment.storage.remote import RemotePath
from tilesegment.tiling import TileGrid

OPTIONS = RunOptions(tile=32, precision="float32")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Five by four tiles of 32 px, each a chunk of its own."""
    pixels = np.minimum(random_pixels((3, 150, 120), "uint8"), 250)
    corner = TileGrid(YX(150, 120), 1, 32).tile_at(MARKED)
    pixels[0, corner.row * 32 + 15, corner.column * 32 + 15] = 255
    return write_image(tmp_path / "i.zarr", pixels, chunks=(3, 32, 32), levels=2)


@pytest.fixture
def quickly_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile may take ten times as long as the slowest, not fifty times."""
    monkeypatch.setattr(retry, "_SLOWEST_TILES", 10)


def limit_for(fault: Callable[[Place], None]) -> float:
    """Seconds of a tile: few only where it hangs, for on a busy machine others take long, too."""
    return 1 if fault in (hangs_once, hangs_always) else 600


@pytest.fixture(params=["disk", "bucket"])
def stored(request: pytest.FixtureRequest, image: Path) -> Path | RemotePath:
    """The image on the disk, and in an object store."""
    if request.param == "disk":
        return image
    return upload(image, request.getfixturevalue("bucket") / "i.zarr")


@pytest.fixture
def feed(stored: Path | RemotePath) -> Feed:
    """Both ways of giving tiles to the scheduler, each with one kind of storage."""
    return "tile" if isinstance(stored, RemotePath) else "overlap"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plant").mkdir()
    return tmp_path / "plant"


@pytest.mark.parametrize(
    ("fault", "marked", "others"),
    [
        (calm, 1, {19}),
        (unforeseen_once, 2, {19}),
        # Tiles in flight on the same worker may be computed again.
        (killed_once, 2, set(range(19, 19 + 7))),
        (lost_gpu_once, 2, set(range(19, 19 + 7))),
        (hangs_once, 2, set(range(19, 19 + 7))),
    ],
)
@pytest.mark.usefixtures("quickly_hung")
def test_a_passing_fault_changes_nothing(
    fault: Callable[[Place], None],
    marked: int,
    others: set[int],
    image: Path,
    stored: Path | RemotePath,
    make_model: MakeModel,
    two_s3_workers: str,
    feed: Feed,
    folder: Path,
) -> None:
    model = make_model()
    cluster = ClusterOptions(two_s3_workers, tile_seconds=limit_for(fault), feed=feed)
    ts.segment(image, model, labels="calm", options=OPTIONS, cluster=cluster)
    with planted(two_s3_workers, fault, folder) as plant:
        summary = ts.segment(str(stored), model, options=OPTIONS, cluster=cluster)
        executions = plant.executions()
    assert (summary.status, summary.computed, summary.quarantined) == ("done", 20, ())
    assert executions[True] == marked
    assert executions[False] in others
    assert equal(levels(stored / "labels" / "model"), levels(image / "labels" / "calm"))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (unforeseen, "RuntimeError: planted"),
        (kills_always, "workers died several times at one tile"),
        pytest.param(
            hangs_always,
            r"the tile hung: it took more than \d+ s .--tile-timeout.",
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.usefixtures("quickly_hung")
def test_a_tile_that_fails_everywhere_is_quarantined_and_the_rest_is_done(
    fault: Callable[[Place], None],
    reason: str,
    image: Path,
    stored: Path | RemotePath,
    make_model: MakeModel,
    two_s3_workers: str,
    feed: Feed,
    folder: Path,
) -> None:
    model = make_model()
    cluster = ClusterOptions(two_s3_workers, tile_seconds=limit_for(fault), feed=feed)
    ts.segment(image, model, labels="calm", options=OPTIONS, cluster=cluster)
    message = f"1 of 20 tiles failed everywhere .rows 64 to 96, columns 32 to 64 .*{reason}"
    with planted(two_s3_workers, fault, folder) as plant:
        with pytest.raises(QuarantineError, match=message):
            ts.segment(str(stored), model, options=OPTIONS, cluster=cluster)
        assert plant.executions()[True] == 2
    assert "model" not in ts.open_image(str(stored)).label_names()
    summary = ts.segment(str(stored), model, options=OPTIONS, cluster=cluster)
    assert (summary.computed, summary.skipped) == (1, 19)
    assert equal(levels(stored / "labels" / "model"), levels(image / "labels" / "calm"))


def test_a_second_interrupt_does_not_wait_and_the_next_run_goes_on(
    image: Path, make_model: MakeModel, two_workers: str, folder: Path
) -> None:
    model, cluster = make_model(), ClusterOptions(two_workers)
    ts.segment(image, model, labels="calm", options=OPTIONS, cluster=cluster)
    words = [PROGRAM, "run", image, "--model", model, "--cluster", two_workers, "--tile", "32"]
    records = image / "labels" / "model" / ".tilesegment" / "tiles-0001.jsonl"
    with planted(two_workers, waits, folder) as plant:
        run = subprocess.Popen(
            [*map(str, words), "--precision", "float32"],
            stderr=subprocess.PIPE,
            text=True,
            # Whoever starts the tests in the background has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while run.poll() is None and not (
            records.exists() and records.stat().st_size and plant.executions()[True]
        ):
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(3)
        run.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        assert run.stderr is not None
        told = next(line for line in run.stderr if "finished tiles are kept" in line)
        # The first waits for 20 s; a busy machine takes seconds to end the process itself.
        assert time.monotonic() - interrupted < 10
        (folder / "go").touch()
        _, rest = run.communicate(timeout=60)
    assert (run.returncode, rest) == (4, "")
    assert told == (
        "Error: stopped; run the same command again to go on: finished tiles are kept\n"
    )
    done = len({record.number for record in read_records(records)})
    assert 0 < done < 20
    summary = ts.segment(image, model, options=OPTIONS, cluster=cluster)
    assert (summary.status, summary.skipped, summary.computed) == ("done", done, 20 - done)
    assert chunks(image / "labels" / "model") == chunks(image / "labels" / "calm")


def test_partial_labels_are_published_if_allowed_and_repaired_once_the_cause_is_mended(
    image: Path, make_model: MakeModel, two_workers: str
) -> None:
    model, cluster = make_model(), ClusterOptions(two_workers)
    ts.segment(image, model, labels="calm", options=OPTIONS, cluster=cluster)
    chunk = image / LOST_KEY
    whole = chunk.read_bytes()
    chunk.write_bytes(b"not zstd")
    with pytest.raises(QuarantineError, match="9 of 20 tiles .* the image has a damaged chunk"):
        ts.segment(image, model, options=OPTIONS, cluster=cluster)
    partial = ts.segment(image, model, options=OPTIONS, cluster=cluster, allow_partial=True)
    assert [place["tile"] for place in partial.quarantined] == [4, 5, 6, 8, 9, 10, 12, 13, 14]
    assert partial.computed == 9
    with pytest.raises(QuarantineError, match="complete but for 9 tiles"):
        ts.segment(image, model, options=OPTIONS, cluster=cluster)
    chunk.write_bytes(whole)
    repaired = ts.repair(image, model, options=OPTIONS, cluster=cluster)
    assert (repaired.status, repaired.computed, repaired.skipped) == ("repaired", 9, 11)
    assert chunks(image / "labels" / "model") == chunks(image / "labels" / "calm")
    again = ts.segment(image, model, options=OPTIONS, cluster=cluster)
    assert (again.status, again.quarantined) == ("already complete", ())


@pytest.mark.parametrize(("times", "lost"), [(2, False), (10_000, True)])
def test_a_lost_input_chunk_is_an_error_and_never_background(
    times: int,
    lost: bool,
    image: Path,
    make_model: MakeModel,
    two_workers: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, cluster = make_model(), ClusterOptions(two_workers)
    ts.segment(image, model, labels="calm", options=OPTIONS, cluster=cluster)
    with planted(two_workers, calm, folder, times):
        if lost:
            message = f"9 of 20 tiles .* the image has lost a chunk .* {LOST_KEY} is missing"
            with pytest.raises(QuarantineError, match=re.compile(message)):
                ts.segment(image, model, options=OPTIONS, cluster=cluster)
        else:
            ts.segment(image, model, options=OPTIONS, cluster=cluster)
    if not lost:
        assert chunks(image / "labels" / "model") == chunks(image / "labels" / "calm")


def test_a_chunk_that_the_image_never_had_is_background(
    image: Path, make_model: MakeModel, two_workers: str
) -> None:
    (image / LOST_KEY).unlink()
    model, cluster = make_model(), ClusterOptions(two_workers)
    assert ts.segment(image, model, options=OPTIONS, cluster=cluster).status == "done"


def test_where_memory_is_short_tiles_are_computed_in_pieces(
    image: Path, make_model: MakeModel, one_worker: str, folder: Path
) -> None:
    """The size that fits is remembered: one failure at 64 px, one at 32, then six tiles at 16."""
    model, cluster = make_model(), ClusterOptions(one_worker)
    options = RunOptions(tile=64, precision="float32")
    ts.segment(image, model, labels="calm", options=options, cluster=cluster)
    with planted(one_worker, little_memory, folder) as plant:
        ts.segment(image, model, options=options, cluster=cluster)
        assert plant.executions().total() == 1 + 1 + 6
    assert chunks(image / "labels" / "model") == chunks(image / "labels" / "calm")


@pytest.fixture
def own_workers() -> Iterator[str]:
    """Two workers that may be retired."""
    with open_cluster(ClusterOptions(workers=2)) as client:
        yield client.scheduler.address


def test_a_worker_on_which_everything_fails_is_retired(
    image: Path, make_model: MakeModel, own_workers: str, folder: Path
) -> None:
    model, cluster = make_model(), ClusterOptions(own_workers)
    with planted(own_workers, broken_worker, folder) as plant:
        summary = ts.segment(image, model, options=OPTIONS, cluster=cluster)
        assert (summary.status, summary.computed) == ("done", 20)
        assert len(plant.client.nthreads()) == 1
        # Three fail before the worker is retired, and what it holds at that moment.
        assert 20 + 3 <= plant.executions().total() <= 20 + 3 + 10
    with planted(own_workers, broken_worker, folder):
        (folder / "claimed").unlink()
        with pytest.raises(UnexpectedError, match="RuntimeError: planted"):
            ts.segment(image, model, labels="b", options=OPTIONS, cluster=cluster)


def test_a_resumed_run_ends_if_its_last_worker_is_broken(
    image: Path, make_model: MakeModel, folder: Path
) -> None:
    """The scheduler keeps that worker, although it is retired, and it goes on failing."""
    model = make_model()
    with open_cluster(ClusterOptions(workers=1)) as client:
        address = client.scheduler.address
        with planted(address, works_for_five_tiles, folder):
            for error in (QuarantineError, UnexpectedError):
                with pytest.raises(error, match="RuntimeError: planted"):
                    ts.segment(image, model, options=OPTIONS, cluster=ClusterOptions(address))
