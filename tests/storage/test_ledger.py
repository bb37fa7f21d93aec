"""What is done stays done; what was torn was never done."""

from pathlib import Path

import pytest

from tilesegment.errors import OutputConflictError, OutputError
from tilesegment.storage.ledger import (
    Ledger,
    TileRecord,
    read_records,
    read_unfinished,
    record_line,
)
from tilesegment.storage.objects import create

RUN = {"model": "sha256:1", "level": 0, "shape": [3, 100, 100], "image": {"axes": {"unit": "um"}}}
RECORD = TileRecord(5, (2,))


def journal(ledger: Ledger) -> Path:
    return ledger.directory / "tiles-0001.jsonl"


def test_records_are_there_when_opened_again(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        ledger.add(TileRecord(3, (10, 20)))
        ledger.add(TileRecord(5, (), level=2, work="masked"))
    with Ledger(tmp_path, RUN) as again:
        assert again.finished(0) == {3: TileRecord(3, (10, 20))}
        assert again.finished(2) == {5: TileRecord(5, (), level=2, work="masked")}


def test_a_record_is_on_the_disk_before_flush_returns(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        ledger.add(RECORD)
        ledger.flush()
        assert journal(ledger).read_text() == record_line(RECORD)


@pytest.mark.parametrize("kept", range(len(record_line(RECORD))))
def test_a_torn_last_record_is_not_done(kept: int, tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        ledger.add(TileRecord(3, (1,)))
        ledger.add(RECORD)
        path = journal(ledger)
    text = path.read_text()
    path.write_text(text[: text.index("\n") + 1 + kept])
    with Ledger(tmp_path, RUN) as again:
        assert set(again.finished(0)) == {3}
        again.add(TileRecord(7, (4,)))
    with Ledger(tmp_path, RUN) as once_more:
        assert set(once_more.finished(0)) == {3, 7}


def test_a_flush_that_is_interrupted_once_its_records_are_durable_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written again when the ledger is closed, and count once."""
    with Ledger(tmp_path, RUN) as ledger:
        append = ledger._journal.append

        def interrupted(text: str) -> None:
            append(text)
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(ledger._journal, "append", interrupted)
        ledger.add(RECORD)
        with pytest.raises(KeyboardInterrupt):
            ledger.flush()
        path = journal(ledger)
    assert path.read_text() == 2 * record_line(RECORD)
    with Ledger(tmp_path, RUN) as again:
        assert again.finished(0) == {5: RECORD}


def test_a_flipped_bit_takes_one_record_and_no_other(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        for number in (3, 5, 7):
            ledger.add(TileRecord(number, (1,)))
        path = journal(ledger)
    content = path.read_bytes()
    middle = content.index(b"\n") + 1, content.rindex(b"\n", 0, -1)
    for position in range(*middle):
        flipped = bytearray(content)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        assert {record.number for record in read_records(path)} == {3, 7}


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_a_record_whose_object_is_gone_is_not_done(damage: str, tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        for number in (3, 5):
            stored = create(tmp_path, f"0/c/0/{number}", b"labels", "link")
            ledger.add(TileRecord(number, (1,), objects=(stored,)))
    path = tmp_path / "0/c/0/3"
    path.unlink() if damage == "deleted" else path.write_bytes(b"lab")
    with Ledger(tmp_path, RUN) as again:
        assert set(again.finished(0)) == {5}
        create(tmp_path, "0/c/0/3", b"labels", "link")
    assert path.read_bytes() == b"labels"


@pytest.mark.parametrize("field", RUN)
def test_another_run_is_refused_and_the_difference_named(field: str, tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN):
        pass
    with pytest.raises(OutputConflictError, match=f"{field}.*: .* there, .* now"):
        Ledger(tmp_path, {**RUN, field: "other"})


def test_the_difference_is_told_field_by_field(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN):
        pass
    with pytest.raises(OutputConflictError, match=r"\(image.axes.unit: um there, mm now\)"):
        Ledger(tmp_path, {**RUN, "image": {"axes": {"unit": "mm"}}})


def test_a_second_driver_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN), pytest.raises(OutputError, match=r"another run .* --take-over"):
        Ledger(tmp_path, RUN)
    with Ledger(tmp_path, RUN):
        pass


def test_a_driver_that_was_taken_over_stops_and_its_records_count(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as first:
        first.add(TileRecord(3, (1,)))
        first.flush()
        with Ledger(tmp_path, RUN, take_over=True) as second:
            assert set(second.finished(0)) == {3}
            first.add(RECORD)
            with pytest.raises(
                OutputError, match="another driver has taken over .* this one stops"
            ):
                first.flush()
            second.add(TileRecord(7, (1,)))
        first.close()
    with Ledger(tmp_path, RUN) as third:
        assert set(third.finished(0)) == {3, 7}


def test_a_driver_whose_run_was_ended_stops(tmp_path: Path) -> None:
    first = Ledger(tmp_path, RUN)
    Ledger(tmp_path, RUN, take_over=True).remove()
    with pytest.raises(OutputError, match="another run has finished"):
        first.flush()
    first.close()


def test_a_damaged_manifest_is_one_line(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        pass
    (ledger.directory / "manifest.json").write_text("{")
    with pytest.raises(OutputError, match="manifest.json is damaged .* --overwrite"):
        Ledger(tmp_path, RUN)


def test_a_removed_ledger_leaves_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path, RUN) as ledger:
        ledger.add(TileRecord(3, (1,)))
        ledger.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    with Ledger(tmp_path, RUN) as ledger:
        ledger.add(RECORD)
        ledger.flush()
        ledger.remove(tmp_path / "0" / "kept")
    assert list(read_records(tmp_path / "0" / "kept" / "tiles-0001.jsonl")) == [RECORD]
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_an_onlooker_sees_what_is_done_and_disturbs_nothing(tmp_path: Path) -> None:
    assert read_unfinished(tmp_path) is None
    with Ledger(tmp_path, RUN) as ledger:
        started = read_unfinished(tmp_path)
        assert started is not None
        assert (started.fingerprint, started.done) == (RUN, frozenset())
        ledger.add(TileRecord(3, (10,)))
        ledger.flush()
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
