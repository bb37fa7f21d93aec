"""Requests to an object store: what is tried again, how often, and what a refusal becomes."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from tests.faulty_s3 import Fault, FaultyS3
from tilesegment.errors import InputError, StoreError
from tilesegment.retry import Backoff
from tilesegment.storage import remote
from tilesegment.storage.buckets import (
    choose_publishing,
    copy,
    create,
    delete,
    put,
    put_new,
    remove,
    settle,
)
from tilesegment.storage.objects import describe
from tilesegment.storage.remote import NoAnswerError, RemotePath, locate, zarr_store

Action = Callable[[RemotePath], Any]


@pytest.fixture
def fresh() -> Iterator[None]:
    """Settings are read anew, before and after."""

    def forget() -> None:
        remote._s3_settings.cache_clear()
        remote._bucket.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PATIENCE", Backoff(tries=4, first_seconds=0.01))


@pytest.mark.parametrize(
    ("kind", "times", "requests", "outcome"),
    [
        ("503", 0, 1, b"there"),
        ("503", 2, 3, b"there"),
        ("cut", 2, 3, b"there"),
        ("lost", 2, 3, b"there"),
        ("503", 99, 4, NoAnswerError),
        ("cut", 99, 4, NoAnswerError),
        ("404", 1, 1, FileNotFoundError),
        ("403", 1, 1, StoreError),
        ("expired", 1, 1, StoreError),
    ],
)
def test_a_request_is_tried_again_if_its_fault_may_pass(
    kind: str,
    times: int,
    requests: int,
    outcome: Any,
    bucket: RemotePath,
    s3_server: FaultyS3,
    quick: None,
) -> None:
    put(bucket / "a", b"there")
    with s3_server.faults(Fault(kind, bucket.key, times=times)):
        if isinstance(outcome, bytes):
            assert (bucket / "a").read_bytes() == outcome
        else:
            with pytest.raises(outcome):
                (bucket / "a").read_bytes()
    assert s3_server.requests(bucket.key) == requests


def test_a_late_answer_is_not_waited_for(
    bucket: RemotePath,
    s3_server: FaultyS3,
    monkeypatch: pytest.MonkeyPatch,
    fresh: None,
    quick: None,
) -> None:
    put(bucket / "a", b"there")
    monkeypatch.setattr(remote, "_REQUEST_SECONDS", 1)
    remote._bucket.cache_clear()
    with s3_server.faults(Fault("slow", bucket.key, seconds=5)):
        assert (bucket / "a").read_bytes() == b"there"
    assert s3_server.requests(bucket.key) == 2


def test_whose_put_is_refused_reads_what_is_there(bucket: RemotePath, s3_server: FaultyS3) -> None:
    """The reply to the first PUT is lost; the second is refused, for the first has succeeded."""
    with s3_server.faults(Fault("lost", "mine", "PUT")):
        assert create(bucket, "mine", b"content", "link") == describe("mine", b"content")
    assert s3_server.requests("mine", "PUT") == 2
    assert create(bucket, "mine", b"other", "link") == describe("mine", b"content")
    assert create(bucket, "mine", b"better", "replace") == describe("mine", b"better")
    assert (bucket / "mine").read_bytes() == b"better"


@pytest.mark.parametrize(
    ("fault", "publishing"), [("503", "link"), ("unconditional", "driver"), ("501", "driver")]
)
def test_whether_a_store_knows_conditional_put_is_tried(
    fault: str, publishing: str, bucket: RemotePath, s3_server: FaultyS3
) -> None:
    with s3_server.faults(Fault(fault, "probe", "PUT", times=2)):
        assert choose_publishing(bucket) == publishing
    assert not list(bucket.objects())


def test_the_driver_names_what_came_first(bucket: RemotePath) -> None:
    first = create(bucket, "a", b"first", "driver")
    late = create(bucket, "a", b"late", "driver")
    assert not (bucket / "a").is_file()
    assert settle(bucket, first) == describe("a", b"first") == settle(bucket, late)
    assert [item.path.name for item in bucket.objects()] == ["a"]


def test_a_prefix_is_read_as_a_directory(bucket: RemotePath) -> None:
    for key in ("zarr.json", "0/c/0", "0/.tilesegment/objects.jsonl", "10/c/1"):
        put(bucket / key, key.encode())
    assert bucket.exists()
    assert bucket.is_dir()
    assert not bucket.is_file()
    assert (bucket / "0" / "c" / "0").size() == 5
    assert not (bucket / "1").exists()
    assert sorted(item.name for item in bucket.iterdir()) == ["0", "10", "zarr.json"]
    assert [str(item) for item in bucket.glob("*/.tilesegment")] == [f"{bucket}/0/.tilesegment"]
    copy(bucket / "zarr.json", bucket / "a b#c")
    assert (bucket / "a b#c").read_text() == "zarr.json"
    remove(bucket, lambda key: key.startswith("0/"))
    assert sorted(str(item.path.relative_to(bucket)) for item in bucket.objects()) == [
        "0/.tilesegment/objects.jsonl",
        "0/c/0",
    ]
    delete([item.path for item in bucket.objects()])
    assert not bucket.exists()


def test_more_objects_than_one_reply_lists(
    bucket: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PAGE", 3)
    keys = [f"{number:02}" for number in range(8)]
    for key in keys:
        put(bucket / key, b"")
    assert [item.path.name for item in bucket.objects()] == keys


def test_credentials_are_those_of_the_profile(
    s3_server: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile lab]\nregion = eu-west-3\nendpoint_url = http://127.0.0.1:9\n"
        "aws_access_key_id = KEYOFTHELAB\naws_secret_access_key = hidden\n"
    )
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION", "ENDPOINT_URL"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    settings = remote._s3_settings()
    assert (settings["region"], settings["endpoint"]) == ("eu-west-3", "http://127.0.0.1:9")
    assert settings["credential_provider"]()["access_key_id"] == "KEYOFTHELAB"
    assert b"hidden" not in pickle.dumps(zarr_store(RemotePath("s3", "slides", "a")))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    remote._s3_settings.cache_clear()
    with pytest.raises(StoreError, match="nobody"):
        remote._s3_settings()


@pytest.mark.parametrize("refused", [False, True])
def test_without_credentials_access_is_anonymous(
    refused: bool,
    bucket: RemotePath,
    s3_server: FaultyS3,
    monkeypatch: pytest.MonkeyPatch,
    fresh: None,
) -> None:
    client = Session().create_client("s3", region_name="us-east-1")
    client.put_object(
        Bucket=bucket.bucket, Key=f"{bucket.key}/a", Body=b"public", ACL="public-read"
    )
    remote._s3_settings.cache_clear()
    remote._bucket.cache_clear()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    if not refused:
        assert (bucket / "a").read_bytes() == b"public"
        return
    with (
        s3_server.faults(Fault("403", bucket.key)),
        pytest.raises(StoreError, match="refuses anonymous access .403 AccessDenied.; set or "),
    ):
        (bucket / "a").read_bytes()


def test_no_bucket_is_told(s3_server: FaultyS3) -> None:
    for action in (lambda path: list(path.objects()), lambda path: put_new(path, b"")):
        with pytest.raises(StoreError, match="there is no bucket s3://nowhere"):
            action(RemotePath("s3", "nowhere", "a"))


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("s3://slides/a/b.zarr/", RemotePath("s3", "slides", "a/b.zarr")),
        (Path("s3://slides/a.zarr"), RemotePath("s3", "slides", "a.zarr")),
        ("gs://slides/a.zarr", RemotePath("gs", "slides", "a.zarr")),
        ("a/b.zarr", Path("a/b.zarr")),
    ],
)
def test_a_path_or_url_is_told_apart(given: Any, place: Any) -> None:
    assert locate(given) == place


@pytest.mark.parametrize(
    "given",
    [
        "reference://x",
        "simplecache::s3://a/b",
        "https://u:pw@h/i.zarr",
        "s3://a/../b",
        "s3://a/b?c",
    ],
)
def test_other_urls_are_refused_and_not_told(given: str) -> None:
    with pytest.raises(InputError) as told:
        locate(given)
    assert "pw" not in str(told.value)
