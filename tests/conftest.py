"""Fixtures that many tests share: small images, small networks, and running clusters."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import hypothesis
import pytest
import torch
from distributed import LocalCluster

from tests.faulty_s3 import FaultyS3
from tests.pictures import random_model
from tilesegment.execution.cluster import SETTINGS, ending
from tilesegment.storage.remote import RemotePath

# Shared machines stall; a slow example is not a failure.
hypothesis.settings.register_profile("tilesegment", deadline=None)
hypothesis.settings.load_profile("tilesegment")

DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


SECRET = "a secret that nobody may see"  # noqa: S105


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Measured geometries are neither taken from the user's cache nor left there."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="module")
def threads_as_before() -> Iterator[None]:
    """Whatever number of threads the tests of a file draw."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real pictures for development; not part of the repository."""
    if not DATA.is_dir():
        pytest.skip("the folder ../shared/data with real pictures is not here")
    return DATA


def _cluster(workers: int) -> Iterator[str]:
    settings = {**SETTINGS, "distributed.scheduler.allowed-failures": 0}
    with (
        dask.config.set(settings),
        ending(
            LocalCluster(
                n_workers=workers,
                threads_per_worker=3,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit="4GB",
            )
        ) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def one_worker() -> Iterator[str]:
    """Address of a running scheduler with one worker process."""
    yield from _cluster(1)


@pytest.fixture(scope="session")
def two_workers() -> Iterator[str]:
    """Address of a running scheduler with two worker processes."""
    yield from _cluster(2)


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """A model file with random weights, drawn from a fixed seed."""

    def make(in_channels: int = 3, classes: int = 3, *, seed: int = 0, **arguments: object) -> Path:
        return random_model(tmp_path, in_channels, classes, seed=seed, **arguments)

    return make


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyS3]:
    """An S3 server with an empty bucket named slides; the environment leads to it."""
    from botocore.session import Session

    server = FaultyS3()
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    os.environ.update(
        AWS_ENDPOINT_URL=server.url,
        AWS_ACCESS_KEY_ID="AKIAOFTHETESTS",
        AWS_SECRET_ACCESS_KEY=SECRET,
        AWS_REGION="us-east-1",
        AWS_CONFIG_FILE=nowhere,
        AWS_SHARED_CREDENTIALS_FILE=nowhere,
        AWS_EC2_METADATA_DISABLED="true",
    )
    Session().create_client("s3", region_name="us-east-1").create_bucket(Bucket="slides")
    yield server
    server.close()


@pytest.fixture
def bucket(s3_server: FaultyS3) -> RemotePath:
    """A prefix of its own in the bucket."""
    return RemotePath("s3", "slides", uuid.uuid4().hex[:8])


@pytest.fixture(scope="session")
def s3_worker(s3_server: FaultyS3) -> Iterator[str]:
    """Address of a running scheduler with one worker process, which finds the S3 server."""
    yield from _cluster(1)


@pytest.fixture(scope="session")
def two_s3_workers(s3_server: FaultyS3) -> Iterator[str]:
    """Address of a running scheduler with two worker processes, which find the S3 server."""
    yield from _cluster(2)
