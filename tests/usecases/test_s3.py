"""Image, labels and ledger in an object store: the same labels, whatever the store does."""

import pickle
from pathlib import Path

import pytest
from click.testing import CliRunner

import tilesegment as ts
from tests.conftest import SECRET
from tests.faulty_s3 import Fault, FaultyS3
from tests.pictures import equal, levels, random_pixels, upload, write_image
from tests.usecases.test_segment import MakeModel
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import (
    IncompleteError,
    InputError,
    OptionError,
    OutputConflictError,
    OutputError,
    QuarantineError,
    StoreError,
)
from tilesegment.partition import Partition
from tilesegment.storage.buckets import delete, put
from tilesegment.storage.remote import RemotePath
from tilesegment.usecases.job import RunSummary
from tilesegment.usecases.workers import Progress
from tilesegment_cli.main import tilesegment

OPTIONS = RunOptions(tile=32, precision="float32")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """Four by three tiles of 32 px, each a chunk of its own."""
    pixels = random_pixels((3, 120, 90), "uint8")
    return write_image(tmp_path / "i.zarr", pixels, chunks=(3, 32, 32), levels=2)


@pytest.fixture
def image(local: Path, bucket: RemotePath) -> RemotePath:
    """The same in the object store."""
    return upload(local, bucket / "i.zarr")


def test_labels_in_a_bucket_are_those_on_a_disk(
    local: Path, image: RemotePath, make_model: MakeModel, s3_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    ts.segment(local, model, options=OPTIONS, cluster=cluster)
    planned = ts.plan(str(image), model, OPTIONS)
    summary = ts.segment(str(image), model, options=OPTIONS, cluster=cluster, verify=2)
    assert (summary.status, summary.computed, summary.verified) == ("done", 12, 2)
    assert len(planned.grid) == 12
    assert summary.labels == str(image / "labels" / "model")
    labels = image / "labels" / "model"
    assert equal(levels(labels), levels(local / "labels" / "model"))
    assert ts.open_image(str(image)).label_names() == ["model"]
    assert not [item for item in labels.objects() if "/.tilesegment/tiles" in str(item.path)]
    again = ts.segment(str(image), model, options=OPTIONS, cluster=cluster)
    assert again.status == "already complete"
    assert ts.verify(str(image), "model", windows=2, deep=True, cluster=cluster).passed


def test_a_run_that_was_stopped_goes_on_and_computes_the_rest_only(
    image: RemotePath, local: Path, make_model: MakeModel, s3_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    labels = image / "labels" / "model"

    def stop(progress: Progress) -> None:
        if progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ts.segment(str(image), model, options=OPTIONS, cluster=cluster, report=stop)
    assert not (labels / "zarr.json").is_file()
    other = RunOptions(tile=64, precision="float32")
    with pytest.raises(OutputConflictError, match="tile: 32 there, 64 now"):
        ts.segment(str(image), model, options=other, cluster=cluster)
    summary = ts.segment(str(image), model, options=OPTIONS, cluster=cluster)
    assert summary.skipped >= 5
    assert summary.skipped + summary.computed == 12
    ts.segment(local, model, options=OPTIONS, cluster=cluster)
    assert equal(levels(labels), levels(local / "labels" / "model"))


def test_overwritten_labels_stay_until_the_new_ones_are_whole(
    image: RemotePath, make_model: MakeModel, s3_worker: str
) -> None:
    cluster = ClusterOptions(s3_worker)
    labels = image / "labels" / "model"
    ts.segment(str(image), make_model(seed=0), options=OPTIONS, cluster=cluster)
    old = levels(labels)
    seen = []

    def look(progress: Progress) -> None:
        seen.append(equal(levels(labels), old))

    new = make_model(seed=1)
    with pytest.raises(OutputConflictError, match="model: "):
        ts.segment(str(image), new, options=OPTIONS, cluster=cluster)
    ts.segment(str(image), new, options=OPTIONS, cluster=cluster, overwrite=True, report=look)
    assert all(seen)
    assert len(seen) > 12
    assert not equal(levels(labels), old)
    paths = {str(item.path.relative_to(labels)).split("/")[0] for item in labels.objects()}
    assert len(paths - {"zarr.json"}) == 2, paths


def test_labels_in_a_bucket_are_exported(
    image: RemotePath, make_model: MakeModel, s3_worker: str, tmp_path: Path
) -> None:
    ts.segment(str(image), make_model(), options=OPTIONS, cluster=ClusterOptions(s3_worker))
    out = tmp_path / "overview.png"
    result = CliRunner().invoke(tilesegment, ["export", str(image), str(out)])
    assert result.exception is None, result.exception
    assert out.read_bytes().startswith(b"\x89PNG")


def test_damaged_objects_are_found_and_repaired(
    image: RemotePath, make_model: MakeModel, s3_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    ts.segment(str(image), model, options=OPTIONS, cluster=cluster)
    labels = image / "labels" / "model"
    whole = {item.path: item.path.read_bytes() for item in labels.objects()}
    lost, flipped = [path for path in whole if "/c/" in path.key][:2]
    delete([lost])
    put(flipped, bytes([whole[flipped][0] ^ 1]) + whole[flipped][1:])
    found = ts.verify(str(image), "model", windows=0, deep=True)
    assert sorted(found.damaged) == sorted(
        str(path.relative_to(labels)) for path in (lost, flipped)
    )
    summary = ts.repair(str(image), model, options=OPTIONS, cluster=cluster)
    assert (summary.status, summary.computed) == ("repaired", 2)
    assert {path: path.read_bytes() for path in (lost, flipped)} == {
        path: whole[path] for path in (lost, flipped)
    }


@pytest.mark.parametrize(
    ("fault", "method", "key", "requests"),
    [
        ("503", "GET", "i.zarr/0/c/0/1/1", 3),
        ("cut", "GET", "i.zarr/0/c/0/1/1", 3),
        ("lost", "GET", "i.zarr/0/c/0/1/1", 3),
        ("404", "GET", "i.zarr/0/c/0/1/1", 3),
        ("503", "PUT", "labels/model/0-.*/c/1/1", 3),
        ("lost", "PUT", "labels/model/0-.*/c/1/1", 3),
        ("503", "PUT", "tiles-0001-000001", 3),
        ("lost", "PUT", "drivers/0001", 3),
        ("503", "PUT", "labels/model/zarr.json", 3),
        ("lost", "POST", "delete", 3),
    ],
)
def test_a_passing_fault_changes_nothing(
    fault: str,
    method: str,
    key: str,
    requests: int,
    image: RemotePath,
    local: Path,
    make_model: MakeModel,
    s3_worker: str,
    s3_server: FaultyS3,
) -> None:
    """Two faults, so three tries; each tile is computed once."""
    model, cluster = make_model(), ClusterOptions(s3_worker)
    with s3_server.faults(Fault(fault, key, method, times=2)):
        summary = ts.segment(str(image), model, options=OPTIONS, cluster=cluster)
    assert (summary.computed, summary.skipped, summary.quarantined) == (12, 0, ())
    assert s3_server.requests(key, method) >= requests
    ts.segment(local, model, options=OPTIONS, cluster=cluster)
    assert equal(levels(image / "labels" / "model"), levels(local / "labels" / "model"))


def test_a_chunk_that_is_lost_while_the_run_goes_on_is_never_background(
    image: RemotePath, make_model: MakeModel, s3_worker: str, s3_server: FaultyS3
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    with (
        s3_server.faults(Fault("404", "i.zarr/0/c/0/0/0", times=1000)),
        pytest.raises(
            QuarantineError,
            match=r"has lost a chunk in rows \d+ to \d+, .*: 0/c/0/0/0 is missing",
        ),
    ):
        ts.segment(str(image), model, options=OPTIONS, cluster=cluster)
    assert not (image / "labels" / "model" / "zarr.json").is_file()


def test_a_chunk_that_the_image_never_had_is_background(
    image: RemotePath, local: Path, make_model: MakeModel, s3_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    for place in (image, local):
        chunk = place / "0" / "c" / "0" / "1" / "1"
        delete([chunk]) if isinstance(chunk, RemotePath) else chunk.unlink()
        ts.segment(str(place), model, options=OPTIONS, cluster=cluster)
    assert equal(levels(image / "labels" / "model"), levels(local / "labels" / "model"))


@pytest.mark.parametrize("key", ["i.zarr/0/c/0/3/2", "labels/model/0-.*/c/3/2"])
def test_credentials_that_expire_stop_the_run_which_then_goes_on(
    key: str, image: RemotePath, make_model: MakeModel, s3_worker: str, s3_server: FaultyS3
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    method = "PUT" if "labels" in key else "GET"
    with (
        s3_server.faults(Fault("expired", key, method, times=1000)),
        pytest.raises(IncompleteError, match="ExpiredToken.*run the same command again") as stopped,
    ):
        ts.segment(str(image), model, options=OPTIONS, cluster=cluster)
    assert stopped.value.exit_code == 4
    assert s3_server.requests(key, method) <= 2
    summary = ts.segment(str(image), model, options=OPTIONS, cluster=cluster)
    assert summary.status == "done"


def test_without_conditional_put_the_driver_names_the_objects(
    image: RemotePath,
    local: Path,
    make_model: MakeModel,
    s3_worker: str,
    s3_server: FaultyS3,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    with s3_server.faults(Fault("unconditional", "", "PUT", times=10**6)):
        ts.segment(str(image), model, options=OPTIONS, cluster=cluster)
    assert "does not know conditional PUT" in caplog.text
    ts.segment(local, model, options=OPTIONS, cluster=cluster)
    labels = image / "labels" / "model"
    assert equal(levels(labels), levels(local / "labels" / "model"))
    assert ts.verify(str(image), "model", windows=0, deep=True).passed


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://nowhere/i.zarr", "there is no bucket s3://nowhere"),
        ("s3://slides/nothing.zarr", "there is no image at s3://slides/nothing.zarr"),
        ("s3:///i.zarr", "needs a bucket and a key"),
        ("s3://AKIA:secret@slides/i.zarr", "needs a bucket and a key"),
        ("ftp://slides/i.zarr", "ftp:// cannot be opened"),
    ],
)
@pytest.mark.parametrize("command", ["info", "plan", "run"])
def test_a_wrong_url_is_one_line(
    url: str, message: str, command: str, s3_server: FaultyS3, make_model: MakeModel
) -> None:
    arguments = [] if command == "info" else ["--model", str(make_model())]
    result = CliRunner().invoke(tilesegment, [command, url, *arguments])
    assert isinstance(result.exception, (InputError, OutputError, StoreError))
    assert message in str(result.exception)
    assert result.exception.exit_code == 1
    assert "secret" not in str(result.exception)


def test_nothing_that_is_stored_or_told_holds_a_secret(
    image: RemotePath,
    make_model: MakeModel,
    s3_worker: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    opened = ts.open_image(str(image))
    assert SECRET.encode() not in pickle.dumps(opened.pixels(0))
    ts.segment(str(image), model, options=OPTIONS, cluster=cluster, keep_ledger=True)
    stored = [item.path.read_bytes() for item in (image / "labels").objects()]
    assert any(b"manifest" in str(item.path).encode() for item in (image / "labels").objects())
    assert not any(SECRET.encode() in content for content in stored)
    assert SECRET not in caplog.text + repr(opened.group.store) + str(opened.group.store)


def test_access_that_is_refused_is_one_line(image: RemotePath, s3_server: FaultyS3) -> None:
    with (
        s3_server.faults(Fault("403", "", "HEAD", times=9)),
        pytest.raises(InputError, match="refuses the credentials found .403.*AWS_PROFILE") as told,
    ):
        ts.open_image(str(image))
    assert "\n" not in str(told.value)


def test_another_driver_is_refused_while_the_first_is_alive(
    image: RemotePath, make_model: MakeModel, s3_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    refusals: list[str] = []

    def begin_another(progress: Progress) -> None:
        if progress.phase == "tiles" and progress.done == 4 and not refusals:
            with pytest.raises(OutputError, match="another run is writing .*--take-over") as told:
                ts.segment(str(image), model, options=OPTIONS, cluster=cluster)
            refusals.append(str(told.value))

    ts.segment(str(image), model, options=OPTIONS, cluster=cluster, report=begin_another)
    assert len(refusals) == 1


def test_who_takes_over_wins_and_the_first_driver_stops(
    image: RemotePath, make_model: MakeModel, s3_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    taken: list[RunSummary] = []

    def take_over(progress: Progress) -> None:
        if progress.phase == "tiles" and progress.done == 4 and not taken:
            taken.append(
                ts.segment(str(image), model, options=OPTIONS, cluster=cluster, take_over=True)
            )

    with pytest.raises(OutputError, match="another run has finished or removed"):
        ts.segment(str(image), model, options=OPTIONS, cluster=cluster, report=take_over)
    assert taken[0].status == "done"
    assert ts.verify(str(image), "model", windows=0, deep=True).passed


def stored_chunks(labels: RemotePath) -> dict[str, bytes]:
    """The objects of all levels, by their keys without the suffix of the run."""
    found = {item.path.relative_to(labels).as_posix(): item.path for item in labels.objects()}
    return {
        f"{level.split('-')[0]}/{key}": path.read_bytes()
        for name, path in found.items()
        for level, _, key in [name.partition("/c/")]
        if key
    }


def test_two_partitions_give_the_bytes_of_one_run_and_one_publishes(
    image: RemotePath, make_model: MakeModel, s3_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    summaries: list[RunSummary] = []
    for number in (2, 1):
        assert ts.open_image(str(image)).label_names() == []
        summaries.append(
            ts.segment(
                str(image), model, options=OPTIONS, cluster=cluster, partition=Partition(number, 2)
            )
        )
    assert [summary.status for summary in summaries] == ["partition done", "done"]
    assert sum(summary.computed for summary in summaries) == 12
    ts.segment(str(image), model, labels="one", options=OPTIONS, cluster=cluster)
    labels = image / "labels"
    assert stored_chunks(labels / "model") == stored_chunks(labels / "one")
    assert len(stored_chunks(labels / "one")) >= 12
    assert not [item for item in labels.objects() if "/.tilesegment/tiles" in str(item.path)]
    assert ts.verify(str(image), "model", windows=0, deep=True).passed


def test_probabilities_and_the_report_of_labels_in_a_bucket(
    local: Path, image: RemotePath, make_model: MakeModel, s3_worker: str, tmp_path: Path
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    options = RunOptions(tile=32, precision="float32", probabilities=True, smooth=0.7)
    for place in (local, str(image)):
        ts.segment(place, model, options=options, cluster=cluster)
    found = levels(image / "labels" / "model" / "probabilities")
    assert equal(found, levels(local / "labels" / "model" / "probabilities"))
    assert ts.verify(str(image), "model", windows=0, deep=True).damaged == ()
    labels = str(image / "labels" / "model")
    page = ts.write_report(str(image), labels, tmp_path, "tilesegment run").read_text()
    assert "i.zarr: model" in page
    assert SECRET not in page
    with pytest.raises(OptionError, match="no folder on a disk"):
        ts.write_report(str(image), labels, str(image), "tilesegment run")


def test_an_import_into_a_bucket_is_that_on_a_disk(bucket: RemotePath, tmp_path: Path) -> None:
    slide = Path(__file__).parents[2] / "examples/data/CMU-1-Small-Region.svs"
    there = bucket / "slide.zarr"
    seen = []
    onto_disk = ts.import_image(slide, tmp_path / "slide.zarr")
    summary = ts.import_image(
        slide, str(there), progress=lambda *_: seen.append((there / "zarr.json").exists())
    )
    assert not any(seen)
    assert summary.bytes == onto_disk.bytes
    stored = {str(item.path.relative_to(there)): item.path.read_bytes() for item in there.objects()}
    assert stored == {
        file.relative_to(tmp_path / "slide.zarr").as_posix(): file.read_bytes()
        for file in (tmp_path / "slide.zarr").rglob("*")
        if file.is_file()
    }
    with pytest.raises(OutputError, match="there are objects already"):
        ts.import_image(slide, there, overwrite=True)


def test_an_import_into_a_bucket_that_fails_leaves_nothing(bucket: RemotePath) -> None:
    slide = Path(__file__).parents[2] / "examples/data/CMU-1-Small-Region.svs"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ts.import_image(slide, bucket / "slide.zarr", progress=stop)
    assert not list(bucket.objects())
    with pytest.raises(StoreError, match="there is no bucket s3://absent"):
        ts.import_image(slide, "s3://absent/slide.zarr")
