"""A real dask-gateway server on this machine, that starts scheduler and workers as processes."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

import tilesegment as ts
from tests.execution.test_separate_processes import free_port
from tests.pictures import load_predictor, random_pixels, whole_pass, write_image
from tests.usecases.test_segment import OPTIONS
from tilesegment.config import ClusterOptions
from tilesegment.errors import ClusterError, OptionError
from tilesegment.execution.cluster import memory_limit, open_cluster, resolve_kind

MakeModel = Callable[..., Path]
SETTINGS = """
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.address = "127.0.0.1:{private}"
c.Proxy.address = "127.0.0.1:{public}"
c.ClusterConfig.scheduler_cmd = [{python!r}, "-m", "dask", "scheduler"]
c.ClusterConfig.worker_cmd = [{python!r}, "-m", "dask", "worker"]
c.UnsafeLocalBackend.clusters_directory = {folder!r}
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    """Address of a running server."""
    public, private = free_port("127.0.0.1"), free_port("127.0.0.1")
    settings = tmp_path / "settings.py"
    settings.write_text(
        SETTINGS.format(public=public, private=private, python=sys.executable, folder=str(tmp_path))
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "dask_gateway_server", "-f", str(settings)],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{public}/api/health")
            break
        except urllib.error.URLError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield f"gateway+http://127.0.0.1:{public}"
    process.terminate()
    process.wait(30)


def test_a_run_by_a_gateway_gives_the_labels_of_one_pass(
    gateway: str, make_model: MakeModel, tmp_path: Path
) -> None:
    pixels = random_pixels((3, 70, 90), "uint8")
    image = write_image(tmp_path / "i.zarr", pixels)
    model = make_model()
    ts.segment(image, model, options=OPTIONS, cluster=ClusterOptions(gateway, 1))
    written = zarr.open_array(image / "labels" / "model" / "0")[...]
    assert np.array_equal(written, whole_pass(load_predictor(model, "uint8"), pixels, "labels"))


def test_no_gateway_is_one_line() -> None:
    options = ClusterOptions(f"gateway+http://127.0.0.1:{free_port('127.0.0.1')}")
    with pytest.raises(ClusterError, match="gives no cluster") as raised, open_cluster(options):
        pass
    assert "\n" not in str(raised.value)


def test_the_memory_of_its_workers_is_the_gateways() -> None:
    assert memory_limit(ClusterOptions("gateway+https://g")) is None
    with pytest.raises(OptionError, match="--memory-limit is for workers on this machine"):
        resolve_kind(ClusterOptions("gateway+https://g", memory_limit="8GB"))
