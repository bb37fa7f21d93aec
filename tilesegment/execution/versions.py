"""Whether all processes of a cluster have the same software; pickles between others fail late."""

import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distributed import Client
from distributed.versions import VersionMismatchWarning

from tilesegment.errors import ClusterError

SHARED = ("python", "dask", "distributed", "zarr", "numpy", "tilesegment")
"""Of this command, the scheduler and all workers. torch only workers need, see `WorkerKind`."""


def installed() -> dict[str, str]:
    """Versions of what is installed for this process, without importing it."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python} | {name: _version(name) for name in (*SHARED[1:], "torch")}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def refuse_other_versions(client: Client) -> None:
    """Compare this process with the scheduler and all workers.

    Raises:
        ClusterError: naming what differs where.
    """
    here = installed()
    places: dict[str, Any] = {"the scheduler": _answer_of_scheduler(client)}
    places |= client.run(installed, on_error="return")
    told = describe_mismatch(here, places)
    if told is not None:
        raise ClusterError(
            f"not all processes of the cluster have the same software: {told}; install the same "
            "versions everywhere, as constraints.txt or one container image does"
        )


def _answer_of_scheduler(client: Client) -> Any:
    try:
        return client.run_on_scheduler(installed)
    except Exception as error:
        # Whatever keeps it from answering is told as the place's answer.
        return error


def describe_mismatch(here: Mapping[str, str], places: Mapping[str, Any]) -> str | None:
    """What differs, in words; None where nothing does.

    Args:
        here: the versions of this process.
        places: those of each other process, or the error that it answered with.

    >>> describe_mismatch({"dask": "2", "torch": "1"}, {"tcp://a:1": {"dask": "3", "torch": "1"}})
    'dask 3 at tcp://a:1 (here 2)'
    """
    told: list[str] = []
    for name in here:
        found: dict[str, list[str]] = {}
        for place, answer in places.items():
            if isinstance(answer, Mapping) and (name != "torch" or place != "the scheduler"):
                found.setdefault(answer[name], []).append(place)
        if name == "torch":
            told += _among_workers(found)
            continue
        told += [
            f"{name} {other} at {_few(where)} (here {here[name]})"
            for other, where in found.items()
            if other != here[name]
        ]
    unable = [place for place, answer in places.items() if not isinstance(answer, Mapping)]
    if unable:
        error = str(places[unable[0]]).partition("\n")[0]
        told.append(f"tilesegment cannot be loaded at {_few(unable)} ({error})")
    return "; ".join(told) or None


def _among_workers(found: Mapping[str, list[str]]) -> Iterator[str]:
    if len(found) > 1:
        yield "torch is " + ", ".join(f"{each} at {_few(where)}" for each, where in found.items())


def _few(places: list[str]) -> str:
    """The first places, and how many more there are."""
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return ", ".join(places[:3]) + more


@contextmanager
def without_dasks_warning() -> Iterator[None]:
    """Dask tells of other versions in a table of many lines; `refuse_other_versions` in one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)
        yield
