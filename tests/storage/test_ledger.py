"""What is done stays done; what was torn was never done."""

from pathlib import Path

import pytest

from tilesegment.errors import OutputConflictError
from tilesegment.storage.ledger import Ledger, TileRecord

RUN = {"model": "sha256:1", "level": 0, "shape": [3, 100, 100]}


def test_records_are_there_when_opened_again(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        ledger.add(TileRecord(3, (10, 20)))
        ledger.add(TileRecord(5, (0, 30), "masked"))
    with Ledger(tmp_path, RUN) as again:
        assert again.done == {3: TileRecord(3, (10, 20)), 5: TileRecord(5, (0, 30), "masked")}


def test_a_record_is_on_the_disk_before_add_returns(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        ledger.add(TileRecord(3, (1,)))
        written = (ledger.directory / "tiles.jsonl").read_text()
        assert written == '{"tile": 3, "counts": [1], "work": "computed"}\n'


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
