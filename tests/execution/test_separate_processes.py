"""Scheduler and workers as people start them: processes of their own, on addresses of their own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr

import tilesegment as ts
from tests.pictures import load_predictor, random_pixels, whole_pass, write_image
from tests.usecases.faults import MARKED, frozen_once, planted
from tests.usecases.test_segment import OPTIONS, chunks
from tilesegment.config import ClusterOptions
from tilesegment.errors import ClusterError
from tilesegment.execution.cluster import open_cluster
from tilesegment.geometry import YX
from tilesegment.tiling import TileGrid

pytestmark = [
    pytest.mark.skipif(not shutil.which("openssl"), reason="makes certificates with openssl"),
    pytest.mark.skipif(sys.platform != "linux", reason="has no further loopback addresses"),
]
Start = Callable[..., "subprocess.Popen[bytes]"]
MakeModel = Callable[..., Path]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `dask` with words; all that was started ends with the test."""
    with ExitStack() as stack:

        def begin(*words: str, **variables: str) -> "subprocess.Popen[bytes]":
            command = [sys.executable, "-m", "dask", *words, "--no-dashboard"]
            environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), **variables}
            # Python looks into the working directory first; there must be nothing of ours.
            process = subprocess.Popen(command, env=environment, cwd="/", stderr=subprocess.DEVNULL)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            return process

        yield begin


@pytest.fixture
def certificates(tmp_path: Path) -> list[str]:
    """Options of `dask` for one certificate that signs itself."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=test", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return [
        "--tls-ca-file",
        str(certificate),
        "--tls-cert",
        str(certificate),
        "--tls-key",
        str(key),
    ]


@pytest.fixture
def configured(certificates: list[str]) -> Iterator[None]:
    """Dask has the certificates here, as variables would give it."""
    _, authority, _, certificate, _, key = certificates
    tls = "distributed.comm.tls"
    settings = {
        f"{tls}.ca-file": authority,
        f"{tls}.client.cert": certificate,
        f"{tls}.client.key": key,
    }
    with dask.config.set(settings):
        yield


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_for_workers(options: ClusterOptions, count: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            with open_cluster(options) as client:
                if len(client.nthreads()) >= count:
                    return
        except ClusterError as error:
            if "same software" in str(error):
                raise
        time.sleep(0.2)
    raise AssertionError("no workers came")


def test_a_run_over_tls_gives_the_labels_of_one_pass(
    start: Start,
    certificates: list[str],
    configured: None,
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tilesegment.execution.cluster._CONNECT_SECONDS", 3)
    port = free_port("127.0.0.2")
    address = f"tls://127.0.0.2:{port}"
    host = ["--host", "tls://127.0.0.2", "--port", str(port)]
    start("scheduler", *host, *certificates)
    for worker in ("tls://127.0.0.3", "tls://127.0.0.4"):
        start("worker", address, "--host", worker, "--no-nanny", *certificates)
    cluster = ClusterOptions(address)
    wait_for_workers(cluster, 2)
    pixels = random_pixels((3, 70, 90), "uint8")
    image = write_image(tmp_path / "i.zarr", pixels, levels=2)
    model = make_model()
    summary = ts.segment(image, model, options=OPTIONS, cluster=cluster)
    assert summary.computed == 9
    written = zarr.open_array(image / "labels" / "model" / "0")[...]
    expected = whole_pass(load_predictor(model, "uint8"), pixels, "labels")
    assert np.array_equal(written, expected)
    with open_cluster(cluster) as client:
        hosts = {worker.split(":")[1] for worker in client.nthreads()}
        assert hosts == {"//127.0.0.3", "//127.0.0.4"}
    plain = ClusterOptions(address.replace("tls://", "tcp://"))
    with pytest.raises(ClusterError, match="no dask scheduler answers"), open_cluster(plain):
        pass


def test_a_worker_with_another_version_is_named(start: Start, tmp_path: Path) -> None:
    old = tmp_path / "old" / "tilesegment-0.0.9.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: tilesegment\nVersion: 0.0.9\n")
    port = free_port("127.0.0.2")
    start("scheduler", "--host", "127.0.0.2", "--port", str(port))
    path = ":".join([str(old.parent), *sys.path])
    start("worker", f"tcp://127.0.0.2:{port}", "--nthreads", "1", PYTHONPATH=path)
    with pytest.raises(ClusterError) as raised:
        wait_for_workers(ClusterOptions(f"tcp://127.0.0.2:{port}"), 1)
    told = str(raised.value)
    assert "tilesegment 0.0.9 at tcp://127.0.0." in told
    assert f"(here {ts.__version__}); install the same versions everywhere" in told
    assert "\n" not in told


def test_a_worker_without_tilesegment_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "tilesegment").mkdir()
    (tmp_path / "tilesegment" / "__init__.py").write_text("raise ModuleNotFoundError('absent')\n")
    port = free_port("127.0.0.2")
    start("scheduler", "--host", "127.0.0.2", "--port", str(port))
    path = ":".join([str(tmp_path), *sys.path])
    start("worker", f"tcp://127.0.0.2:{port}", "--nthreads", "1", PYTHONPATH=path)
    with pytest.raises(ClusterError, match="tilesegment cannot be loaded at tcp://127.0.0"):
        wait_for_workers(ClusterOptions(f"tcp://127.0.0.2:{port}"), 1)


@pytest.mark.slow
def test_a_frozen_worker_that_returns_late_changes_nothing(
    start: Start, make_model: MakeModel, tmp_path: Path
) -> None:
    """It is stopped within a tile beyond its time-to-live, and wakes when the labels are there."""
    port = free_port("127.0.0.1")
    address, short = f"tcp://127.0.0.1:{port}", {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s"}
    start("scheduler", "--host", "127.0.0.1", "--port", str(port), **short)
    workers = [start("worker", address, "--no-nanny", "--nthreads", "3") for _ in range(2)]
    cluster = ClusterOptions(address)
    wait_for_workers(cluster, 2)
    pixels = np.minimum(random_pixels((3, 150, 120), "uint8"), 250)
    corner = TileGrid(YX(150, 120), 1, 32).tile_at(MARKED)
    pixels[0, corner.row * 32 + 15, corner.column * 32 + 15] = 255
    image = write_image(tmp_path / "i.zarr", pixels, levels=2)
    model = make_model()
    with planted(address, frozen_once, tmp_path) as plant:
        summary = ts.segment(image, model, options=OPTIONS, cluster=cluster)
        executions = plant.executions()
    assert (summary.status, summary.computed) == ("done", 20)
    assert executions[True] == 2
    published = chunks(image / "labels" / "model")
    frozen = next(item for item in workers if item.pid == int((tmp_path / "frozen").read_text()))
    assert frozen.poll() is None
    frozen.send_signal(signal.SIGCONT)
    # A worker that the scheduler has given up ends once its tile is done.
    frozen.wait(60)
    assert chunks(image / "labels" / "model") == published
    ts.segment(image, model, labels="calm", options=OPTIONS, cluster=cluster)
    assert chunks(image / "labels" / "calm") == published
