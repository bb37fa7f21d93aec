"""Objects are made once, whole or not at all."""

import errno
import os
import threading
from pathlib import Path

import pytest

from tilesegment.errors import IncompleteError, OutputError
from tilesegment.storage.objects import (
    Publishing,
    can_link,
    create,
    describe,
    make_aside,
    patiently,
    settle,
    write_failed,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_aside(tmp_path)
    return tmp_path


def aside(root: Path) -> list[Path]:
    return list((root / ".tilesegment" / "aside").iterdir())


@pytest.mark.parametrize("publishing", ["link", "driver", "replace"])
def test_an_object_is_what_was_written(publishing: Publishing, root: Path) -> None:
    stored = settle(root, create(root, "0/c/1/2", b"labels", publishing))
    assert (root / "0/c/1/2").read_bytes() == b"labels"
    assert stored == describe("0/c/1/2", b"labels")
    assert aside(root) == []


@pytest.mark.parametrize("publishing", ["link", "driver"])
def test_the_first_stays(publishing: Publishing, root: Path) -> None:
    first = settle(root, create(root, "0/c/0/0", b"first", publishing))
    second = settle(root, create(root, "0/c/0/0", b"second", publishing))
    assert second == first
    assert (root / "0/c/0/0").read_bytes() == b"first"


def test_the_first_that_the_driver_names_stays(root: Path) -> None:
    """Both were written aside before either had its name."""
    first, second = (create(root, "0/c/0/0", text, "driver") for text in (b"first", b"second"))
    assert not (root / "0/c/0/0").exists()
    assert settle(root, second) == settle(root, first) == describe("0/c/0/0", b"second")
    assert aside(root) == []


def test_a_repaired_object_takes_the_place_of_the_damaged(root: Path) -> None:
    create(root, "0/c/0/0", b"damaged", "link")
    create(root, "0/c/0/0", b"whole", "replace")
    assert (root / "0/c/0/0").read_bytes() == b"whole"


def test_many_writers_of_one_object_agree(root: Path) -> None:
    found: list[object] = []
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        found.append(create(root, "0/c/0/0", b"%d" % number, "link"))

    writers = [threading.Thread(target=write, args=[number]) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(found) == {describe("0/c/0/0", (root / "0/c/0/0").read_bytes())}


def test_who_wakes_after_the_run_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        create(tmp_path, "0/c/0/0", b"late", "link")
    assert list(tmp_path.iterdir()) == []


def test_links_are_tried_not_guessed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_link(root)
    replacing = Path.replace

    def link(source: Path, target: Path) -> None:
        replacing(source, target)
        source.touch()

    monkeypatch.setattr(os, "link", link)
    assert not can_link(root)

    def forbidden(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", forbidden)
    assert not can_link(root)
    assert aside(root) == []


@pytest.mark.parametrize(
    ("number", "failures", "calls"),
    [(errno.EIO, 0, 1), (errno.EIO, 4, 5), (errno.EIO, 9, 5), (errno.ENOSPC, 9, 1)],
)
def test_what_may_pass_is_tried_five_times(
    number: int, failures: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("tilesegment.storage.objects.time.sleep", pauses.append)
    count = 0

    def action() -> str:
        nonlocal count
        count += 1
        if count <= failures:
            raise OSError(number, "planted")
        return "done"

    if failures < calls:
        assert patiently(action) == "done"
    else:
        with pytest.raises(OSError, match="planted"):
            patiently(action)
    assert count == calls
    assert len(pauses) == calls - 1
    assert pauses == sorted(pauses)


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOSPC, IncompleteError, r"no space left for .* \(.*\): / has \d+ bytes free"),
        (errno.EDQUOT, IncompleteError, "a quota or limit forbids 7 more"),
        (errno.EROFS, OutputError, "no permission to write"),
        (errno.EIO, OutputError, "cannot write"),
    ],
)
def test_a_failed_write_says_what_it_means(
    number: int, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == Path("/"))
    error = write_failed(OSError(number, os.strerror(number)), Path("/not/there/yet"), 7)
    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error


def test_the_bytes_that_are_missing_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(_: object) -> object:
        return type("Usage", (), {"f_bavail": 2, "f_frsize": 100})

    monkeypatch.setattr("tilesegment.storage.objects.os.statvfs", usage)
    error = write_failed(OSError(errno.ENOSPC, "full"), Path("/tmp"), 1234)  # noqa: S108
    assert "has 200 bytes free, the next object needs 1034 more" in str(error)
