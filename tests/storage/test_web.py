"""Images on a web server, which lists nothing and takes nothing."""

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tilesegment.errors import InputError, OutputError, TilesegmentError
from tilesegment.storage.image import open_image

PIXELS = random_pixels((3, 90, 120), "uint8")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address of a server of `tmp_path / "served"`, which gives whole files only."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_is_read_from_its_url(version: str, served: str, tmp_path: Path) -> None:
    write_image(tmp_path / "served/i.zarr", PIXELS, chunks=(1, 32, 32), levels=2, version=version)
    image = open_image(f"{served}/i.zarr")
    assert (image.version, image.name, len(image.levels)) == (version, "i", 2)
    np.testing.assert_array_equal(image.pixels(0).stored(0, 5, 80, 7, 99), PIXELS[:, 5:80, 7:99])
    assert image.label_names() == []


def test_labels_go_where_they_are_told(
    served: str, tmp_path: Path, make_model: Callable[..., Path], one_worker: str
) -> None:
    path = write_image(tmp_path / "served/i.zarr", PIXELS, chunks=(1, 32, 32))
    model, cluster = make_model(), ts.ClusterOptions(kind=one_worker)
    with pytest.raises(OutputError, match="nothing can be written to .*--output STORE"):
        ts.segment(f"{served}/i.zarr", model, cluster=cluster)
    ts.segment(f"{served}/i.zarr", model, output=tmp_path / "l.zarr", cluster=cluster)
    ts.segment(path, model, labels="there", cluster=cluster)
    np.testing.assert_array_equal(
        np.asarray(zarr.open_array(tmp_path / "l.zarr/0", mode="r")),
        np.asarray(zarr.open_array(path / "labels/there/0", mode="r")),
    )


def test_what_is_not_there_or_cannot_be_had_is_one_line(served: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no image at http"):
        open_image(f"{served}/absent.zarr")
    write_image(tmp_path / "served/i.zarr", PIXELS, chunks=(1, 32, 32), shards=(3, 64, 64))
    with pytest.raises(TilesegmentError, match="cannot give parts of a file") as caught:
        open_image(f"{served}/i.zarr").pixels(0).stored(0, 0, 9, 0, 9)
    assert "\n" not in str(caught.value)
