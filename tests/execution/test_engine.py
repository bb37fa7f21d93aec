"""A batch that ends badly, as the driver sees it."""

import os

from dask.utils import key_split
from distributed import Client

from tilesegment.errors import IncompleteError
from tilesegment.execution.engine import _compute, _failure, _tiles_ahead
from tilesegment.execution.feed import Batch


def test_more_workers_are_given_more_tiles_ahead(one_worker: str, two_workers: str) -> None:
    ahead = []
    for address in (one_worker, two_workers):
        with Client(address, set_as_default=False) as client:
            ahead.append(_tiles_ahead(client, least=4)())
    assert ahead == [8, 16]


def test_dask_does_not_remember_the_keys_of_earlier_batches(one_worker: str) -> None:
    """It would keep the last 100 000, and grow with the image."""
    for number in range(1000):
        key_split(f"earlier-{number}")
    with Client(one_worker, set_as_default=False) as client:
        batch = Batch({"later": (abs, -7)}, {"later": 7})
        assert list(_compute(client, [batch], lambda: None)) == [(7, 7)]
    assert key_split.cache_info().currsize < 1000


def test_a_worker_that_dies_is_one_line(one_worker: str) -> None:
    with Client(one_worker, set_as_default=False) as client:
        batch = Batch({"dies": (os._exit, 1)}, {"dies": 7})
        ((number, error),) = _compute(client, [batch], lambda: None)
        # Other tests need the worker that takes its place.
        client.wait_for_workers(1, timeout=120)
    failure = _failure(number, error)
    assert (failure.tile, failure.worker, failure.of_tile) == (7, None, True)
    assert isinstance(failure.error, IncompleteError)
    assert "workers died several times" in str(failure.error)
