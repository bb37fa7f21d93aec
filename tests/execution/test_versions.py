"""What differs between the processes of a cluster, in one line."""

from tilesegment.execution.versions import SHARED, describe_mismatch, installed

HERE = {"python": "3.11", "dask": "2026.7.1", "tilesegment": "0.1.0", "torch": "2.13.0+cpu"}


def test_what_is_installed_is_named() -> None:
    found = installed()
    assert set(found) == {*SHARED, "torch"}
    assert "absent" not in found.values()


def test_equal_processes_are_no_mismatch() -> None:
    assert describe_mismatch(HERE, {"the scheduler": HERE, "tcp://a:1": HERE}) is None


def test_each_difference_is_told_with_its_places() -> None:
    old = {**HERE, "dask": "2026.3.0", "python": "3.12"}
    places = {"the scheduler": HERE} | {f"tcp://{host}:1": old for host in "abcde"}
    assert describe_mismatch(HERE, places) == (
        "python 3.12 at tcp://a:1, tcp://b:1, tcp://c:1 and 2 more (here 3.11); "
        "dask 2026.3.0 at tcp://a:1, tcp://b:1, tcp://c:1 and 2 more (here 2026.7.1)"
    )


def test_torch_matters_among_workers_only() -> None:
    """A driver without a GPU may have a CPU build; it computes nothing."""
    gpu = {**HERE, "torch": "2.13.0+cu130"}
    without = {**HERE, "torch": "absent"}
    assert describe_mismatch(HERE, {"the scheduler": without, "a": gpu, "b": gpu}) is None
    told = describe_mismatch(HERE, {"the scheduler": HERE, "a": gpu, "b": HERE})
    assert told == "torch is 2.13.0+cu130 at a, 2.13.0+cpu at b"


def test_a_process_that_lacks_tilesegment_is_named() -> None:
    error = ModuleNotFoundError("No module named 'tilesegment'")
    told = describe_mismatch(HERE, {"the scheduler": HERE, "tcp://a:1": error})
    assert told == "tilesegment cannot be loaded at tcp://a:1 (No module named 'tilesegment')"
