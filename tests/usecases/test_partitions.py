"""Several runs that share one output: in any order and at any moment, the bytes of one run."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tests.usecases.test_segment import MakeModel, Stop, chunks, stop_after
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import (
    IncompleteError,
    OptionError,
    OutputBusyError,
    OutputConflictError,
    OutputError,
)
from tilesegment.partition import Partition
from tilesegment.usecases import partitions
from tilesegment.usecases.job import RunSummary
from tilesegment.usecases.workers import Progress

OPTIONS = RunOptions(tile=32, precision="float32")


class Shared:
    """An image, and the runs that share its labels; five by four tiles, three levels."""

    def __init__(self, image: Path, model: Path, cluster: ClusterOptions) -> None:
        self.image, self.model, self.cluster = image, model, cluster

    def run(self, number: int = 1, of: int = 1, **arguments: object) -> RunSummary:
        arguments = {"options": OPTIONS, "partition": Partition(number, of), **arguments}
        return ts.segment(self.image, self.model, cluster=self.cluster, **arguments)

    def assert_as_one_run(self) -> None:
        self.run(labels="one")
        labels = self.image / "labels"
        assert chunks(labels / "model") == chunks(labels / "one")
        assert not (labels / "model" / ".tilesegment").exists()


@pytest.fixture
def shared(tmp_path: Path, make_model: MakeModel, two_workers: str) -> Shared:
    image = write_image(tmp_path / "i.zarr", random_pixels((3, 150, 120), "uint8"), levels=3)
    return Shared(image, make_model(), ClusterOptions(two_workers))


@pytest.mark.parametrize("order", [(1,), (2, 1), (2, 3, 1), (5, 23, *range(6, 23), 1, 4, 3, 2)])
def test_in_any_order_the_last_one_publishes_the_bytes_of_one_run(
    order: tuple[int, ...], shared: Shared
) -> None:
    of = len(order)
    for position, number in enumerate(order[:-1]):
        summary = shared.run(number, of)
        assert (summary.status, summary.partition) == ("partition done", f"{number}/{of}")
        assert summary.tiles == summary.computed
        # More partitions than tiles: some have nothing to do.
        assert set(summary.unfinished) <= set(order[position + 1 :])
        assert ts.open_image(shared.image).label_names() == []
        if not summary.unfinished:
            break
    else:
        last = shared.run(order[-1], of)
        assert (last.status, last.tiles, last.unfinished) == ("done", 20, ())
        assert last.computed + last.skipped == 20
    shared.assert_as_one_run()


def test_two_at_the_same_moment_write_each_object_once(shared: Shared) -> None:
    inner = []

    def second(progress: Progress) -> None:
        if progress.phase == "tiles" and progress.done == 3:
            inner.append(shared.run(2, 2))

    last = shared.run(1, 2, report=second)
    assert (inner[0].status, inner[0].computed, inner[0].unfinished) == ("partition done", 10, (1,))
    assert (last.status, last.computed, last.skipped) == ("done", 10, 10)
    shared.assert_as_one_run()


def test_of_two_that_finish_at_the_same_time_one_publishes(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have found everything done before either goes on."""
    together = threading.Barrier(2, timeout=60)
    read = partitions.read_unfinished

    def read_together(directory: Path) -> object:
        together.wait()
        found = read(directory)
        together.wait()
        return found

    monkeypatch.setattr(partitions, "read_unfinished", read_together)
    with ThreadPoolExecutor(2) as executor:
        both = list(executor.map(lambda number: shared.run(number, 2), (1, 2)))
    assert sorted(summary.status for summary in both) in (
        ["done", "partition done"],
        ["already complete", "done"],
    )
    assert all(summary.unfinished == () for summary in both)
    monkeypatch.undo()
    shared.assert_as_one_run()


def test_a_partition_that_died_is_resumed_by_the_same_command(shared: Shared) -> None:
    shared.run(1, 2)
    with pytest.raises(Stop):
        shared.run(2, 2, report=stop_after(4))
    summary = shared.run(2, 2)
    assert (summary.status, summary.computed) == ("done", 6)
    shared.assert_as_one_run()


def test_a_publisher_that_died_is_replaced_by_any_partition(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*arguments: object) -> None:
        raise Stop

    shared.run(1, 2)
    monkeypatch.setattr(partitions, "compute_levels", die)
    with pytest.raises(Stop):
        shared.run(2, 2)
    monkeypatch.undo()
    summary = shared.run(1, 2)
    assert (summary.status, summary.computed) == ("done", 0)
    shared.assert_as_one_run()


def test_a_last_job_only_publishes(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="nothing to commit"):
        shared.run(commit=True)
    shared.run(1, 2)
    with pytest.raises(IncompleteError, match="10 of 20 tiles are not done"):
        shared.run(commit=True)
    monkeypatch.setattr(partitions, "_publish_if_last", lambda *given: given[5])
    shared.run(2, 2)
    monkeypatch.undo()
    summary = shared.run(commit=True)
    assert (summary.status, summary.computed, summary.skipped) == ("done", 0, 20)
    shared.assert_as_one_run()


def test_a_run_of_the_whole_does_what_partitions_left(shared: Shared) -> None:
    shared.run(2, 3)
    summary = shared.run()
    assert summary.status == "done"
    assert summary.computed + summary.skipped == 20
    shared.assert_as_one_run()


def test_a_driver_is_refused_beside_one_that_might_write_the_same(shared: Shared) -> None:
    def others(progress: Progress) -> None:
        if progress.phase == "tiles" and progress.done == 2:
            for number, of in ((1, 2), (1, 1), (2, 3)):
                with pytest.raises(OutputBusyError, match="partition 1/2, process"):
                    shared.run(number, of)

    shared.run(1, 2, report=others)


def test_a_partition_of_another_run_is_refused(shared: Shared) -> None:
    shared.run(1, 2)
    with pytest.raises(OutputConflictError, match="tile: 32 there, 48 now"):
        shared.run(2, 2, options=replace(OPTIONS, tile=48))


def test_what_one_of_several_cannot_decide_is_refused(shared: Shared) -> None:
    for wish in ({"overwrite": True}, {"allow_partial": True}, {"verify": 3}, {"commit": True}):
        with pytest.raises(OptionError, match="--partition 1/2 cannot"):
            shared.run(1, 2, **wish)
