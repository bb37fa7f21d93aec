"""The ledger in an object store: records, drivers, and who takes a dead one's place."""

from datetime import timedelta

import pytest

from tests.faulty_s3 import Fault, FaultyS3
from tilesegment.errors import IncompleteError, OutputConflictError, OutputError
from tilesegment.retry import Backoff
from tilesegment.storage import lease, remote
from tilesegment.storage.buckets import create, delete, put
from tilesegment.storage.ledger import Ledger, TileRecord, read_unfinished
from tilesegment.storage.remote import RemotePath

RUN = {"model": "sha256:aa", "level": 0}


def record(place: RemotePath, number: int) -> TileRecord:
    stored = create(place, f"0/c/{number}", bytes([number]), "link")
    return TileRecord(number, (number, 1), 0, (stored,))


def test_records_are_there_again(bucket: RemotePath) -> None:
    records = [record(bucket, number) for number in range(3)]
    with Ledger(bucket, RUN) as ledger:
        for item in records:
            ledger.add(item)
            ledger.flush()
    delete([bucket / "0/c/1"])
    put(bucket / "0/c/2", b"longer")
    state = read_unfinished(bucket)
    assert state is not None
    assert state.done == {0, 1, 2}
    with Ledger(bucket, RUN) as again:
        assert again.finished(0) == {0: records[0]}
    assert not (bucket / "0/c/2").is_file()


def test_records_wait_for_others_but_not_long(bucket: RemotePath) -> None:
    now = 0.0
    with Ledger(bucket, RUN, clock=lambda: now) as ledger:
        for number in range(4):
            ledger.add(record(bucket, number))
            now += 0.8
            ledger.rest()
    journals = list((bucket / ".tilesegment").glob("tiles-*.jsonl"))
    assert len(journals) == 2


def test_another_run_is_refused(bucket: RemotePath) -> None:
    with Ledger(bucket, RUN):
        pass
    with pytest.raises(OutputConflictError, match="model: sha256:aa there, sha256:bb now"):
        Ledger(bucket, {**RUN, "model": "sha256:bb"})


def test_a_driver_is_refused_while_another_is_alive(bucket: RemotePath) -> None:
    with (
        Ledger(bucket, RUN),
        pytest.raises(OutputError, match=r"another run is writing .*process \d+ .*--take-over"),
    ):
        Ledger(bucket, RUN)
    with Ledger(bucket, RUN):
        pass


def test_a_driver_that_is_silent_on_another_machine_is_dead_after_a_while(
    bucket: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Ledger(bucket, RUN)
    monkeypatch.setattr(lease, "_machine", lambda: "another")
    with pytest.raises(OutputError, match="another run is writing"):
        Ledger(bucket, RUN)
    monkeypatch.setattr(lease, "LEASE", timedelta(seconds=-1))
    with Ledger(bucket, RUN), pytest.raises(OutputError, match="another driver has taken over"):
        silent.flush()
    silent.close()


def test_a_driver_whose_process_is_gone_is_dead_at_once(
    bucket: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed = Ledger(bucket, RUN)
    monkeypatch.setattr(crashed._claim, "_facts", {**crashed._claim._facts, "process": 2**22 + 1})
    crashed._claim._write()
    with Ledger(bucket, RUN):
        pass
    crashed._claim._stop.set()


def test_a_lost_reply_does_not_make_two_drivers(bucket: RemotePath, s3_server: FaultyS3) -> None:
    with s3_server.faults(Fault("lost", "drivers/0001", "PUT")), Ledger(bucket, RUN) as ledger:
        ledger.flush()
    assert [item.name for item in (bucket / ".tilesegment/drivers").iterdir()] == ["0001"]


def test_a_beat_does_not_bring_back_a_run_that_was_ended(bucket: RemotePath) -> None:
    first = Ledger(bucket, RUN)
    with Ledger(bucket, RUN, take_over=True) as second:
        second.remove()
    first._claim._write()
    assert not list(bucket.objects())
    first.close()


def test_a_store_that_does_not_answer_stops_the_run_which_can_go_on(
    bucket: RemotePath, s3_server: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PATIENCE", Backoff(tries=2, first_seconds=0.01))
    with Ledger(bucket, RUN) as ledger:
        ledger.add(record(bucket, 0))
        with (
            s3_server.faults(Fault("503", "tiles-", "PUT", times=99)),
            pytest.raises(IncompleteError, match="does not answer .503 SlowDown.; run the same"),
        ):
            ledger.flush()
    with Ledger(bucket, RUN) as again:
        assert set(again.finished(0)) == {0}
