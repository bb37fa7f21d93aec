"""What is tried again, and who is given up."""

import pytest

from tilesegment.errors import InputError, UnexpectedError
from tilesegment.retry import Backoff, Failure, Limits, TileLimit, Trouble


def of_tile(tile: int, worker: str) -> Failure:
    return Failure(tile, worker, InputError("damaged"), of_tile=True)


def of_worker(tile: int, worker: str) -> Failure:
    return Failure(tile, worker, UnexpectedError("driver"), of_tile=False)


def test_pauses_grow_to_a_limit_and_end() -> None:
    backoff = Backoff(tries=6, first_seconds=1, factor=3, longest_seconds=20)
    assert [backoff.pause(failures, 1) for failures in range(1, 7)] == [1, 3, 9, 20, 20, None]
    assert backoff.pause(2, 0) == 1.5


def test_a_tile_is_tried_twice_then_quarantined() -> None:
    trouble = Trouble()
    assert trouble.failed(of_tile(7, "a")) is None
    assert (trouble.again(), trouble.quarantined()) == ([7], {})
    trouble.failed(of_tile(7, "b"))
    assert (trouble.again(), list(trouble.quarantined())) == ([], [7])


def test_what_succeeds_at_last_is_forgotten() -> None:
    trouble = Trouble()
    trouble.failed(of_tile(7, "a"))
    trouble.succeeded(7, "b")
    assert trouble.again() == []
    assert not trouble.quarantined()


def test_a_worker_on_which_all_fails_is_retired_and_the_tiles_are_innocent() -> None:
    trouble = Trouble()
    assert [trouble.failed(of_worker(tile, "a")) for tile in (1, 1, 2, 3, 4)] == [
        None, None, None, "a", "a",
    ]  # fmt: skip
    assert trouble.again() == [1, 2, 3, 4]
    assert not trouble.quarantined()


def test_a_worker_that_has_succeeded_stays() -> None:
    trouble = Trouble()
    trouble.succeeded(0, "a")
    assert [trouble.failed(of_worker(tile, "a")) for tile in range(1, 9)] == [None] * 8


def test_damaged_tiles_are_no_fault_of_the_worker() -> None:
    trouble = Trouble()
    assert [trouble.failed(of_tile(tile, "a")) for tile in range(1, 9)] == [None] * 8


@pytest.mark.parametrize(("succeeded", "hopeless"), [(0, True), (1, False)])
def test_a_run_in_which_nothing_works_is_given_up(succeeded: int, hopeless: bool) -> None:
    trouble = Trouble(Limits(hopeless=5))
    for tile in range(succeeded):
        trouble.succeeded(100 + tile, "a")
    for tile in range(5):
        assert not trouble.hopeless
        trouble.failed(of_tile(tile, "a"))
    assert trouble.hopeless is hopeless


def test_a_few_broken_workers_are_no_reason_to_give_up() -> None:
    trouble = Trouble(Limits(hopeless=5))
    for number, worker in enumerate("abcde"):
        assert not trouble.hopeless
        for tile in range(3):
            trouble.failed(of_worker(10 * number + tile, worker))
    assert trouble.hopeless


def test_a_worker_that_dies_with_many_tiles_is_no_reason_to_give_up() -> None:
    trouble = Trouble(Limits(hopeless=5))
    died = [Failure(tile, None, InputError("died"), of_tile=True) for tile in range(30)]
    for failure in died:
        trouble.failed(failure)
    assert not trouble.hopeless
    for failure in died[:3]:
        assert not trouble.hopeless
        trouble.failed(failure)
    assert trouble.hopeless


def test_what_stays_overdue_hangs() -> None:
    limit = TileLimit(600)
    assert limit.hung(["a", "b"], now=1000) == []
    assert limit.hung(["a"], now=1059) == []
    assert limit.hung(["a", "b"], now=1060) == ["a"]


def test_a_machine_that_wakes_up_has_no_tile_that_hangs() -> None:
    limit = TileLimit(600)
    assert limit.hung(["a", "b", "c"], now=1000) == []
    assert limit.hung([], now=1002) == []
    assert limit.hung(["a"], now=1070) == []
