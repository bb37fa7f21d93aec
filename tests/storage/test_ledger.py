"""What is done stays done; what was torn was never done."""

from pathlib import Path

import pytest

from tilesegment.errors import OutputConflictError
from tilesegment.storage.ledger import Ledger, TileRecord, read_unfinished

RUN = {"model": "sha256:1", "level": 0, "shape": [3, 100, 100]}


def test_records_are_there_when_opened_again(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        ledger.add(TileRecord(3, (10, 20)))
        ledger.add(TileRecord(5, (0, 30)))
    with Ledger(tmp_path, RUN) as again:
        assert again.done == {3: TileRecord(3, (10, 20)), 5: TileRecord(5, (0, 30))}


def test_a_record_is_on_the_disk_before_add_returns(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        ledger.add(TileRecord(3, (1,)))
        assert (ledger.directory / "tiles.jsonl").read_text() == '{"tile": 3, "counts": [1]}\n'


@pytest.mark.parametrize("kept", range(len('{"tile": 5, "counts": [2]}\n')))
def test_a_torn_last_record_is_not_done(kept: int, tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        ledger.add(TileRecord(3, (1,)))
        ledger.add(TileRecord(5, (2,)))
        path = ledger.directory / "tiles.jsonl"
    text = path.read_text()
    path.write_text(text[: text.index("\n") + 1 + kept])
    with Ledger(tmp_path, RUN) as again:
        assert set(again.done) == {3}
        again.add(TileRecord(7, (4,)))
    with Ledger(tmp_path, RUN) as once_more:
        assert set(once_more.done) == {3, 7}


@pytest.mark.parametrize("field", RUN)
def test_another_run_is_refused_and_the_difference_named(field: str, tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN):
        pass
    with pytest.raises(OutputConflictError, match=f"{field}: .* there, .*other.* now"):
        Ledger(tmp_path, {**RUN, field: "other"})


def test_a_removed_ledger_leaves_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        ledger.add(TileRecord(3, (1,)))
        ledger.remove()
    assert list(tmp_path.iterdir()) == []


def test_an_onlooker_sees_what_is_done_and_disturbs_nothing(tmp_path: Path) -> None:
    assert read_unfinished(tmp_path) is None
    with Ledger(tmp_path, RUN) as ledger:
        started = read_unfinished(tmp_path)
        assert started is not None
        assert (started.fingerprint, started.done) == (RUN, frozenset())
        ledger.add(TileRecord(3, (10,)))
        with next(ledger.directory.glob("tiles*.jsonl")).open("a") as file:
            file.write('{"tile": 5, "cou')
        seen = read_unfinished(tmp_path)
        assert seen is not None
        assert seen.done == {3}
        assert seen.updated >= started.updated
        ledger.remove()
    assert read_unfinished(tmp_path) is None


def test_an_onlooker_takes_a_damaged_ledger_for_none(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        (ledger.directory / "manifest.json").write_text("{damaged")
        assert read_unfinished(tmp_path) is None
