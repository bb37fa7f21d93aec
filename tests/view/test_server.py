"""What the server gives, and what it keeps to itself."""

import asyncio
import http.client
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image as Picture

from tests.pictures import random_pixels, write_image
from tests.view.conftest import write_labels
from tilesegment.errors import OptionError
from tilesegment.storage.measurements import MeasurementWriter
from tilesegment.view.description import open_scene
from tilesegment.view.server import PAGE, serve

View = Callable[..., str]


def ask(
    address: str, path: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """One request, with the path exactly as given; a browser would tidy it up."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(address).port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    try:
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "store" / "i.zarr", random_pixels((3, 40, 50), "uint8"))


@pytest.fixture
def address(image: Path, view: View) -> str:
    return view(image)


def test_a_file_of_the_store_whole_and_by_range(image: Path, address: str) -> None:
    content = (image / "zarr.json").read_bytes()
    assert ask(address, "/stores/0/zarr.json")[::2] == (200, content)
    assert ask(address, "/stores/0/zarr.json", Range="bytes=2-5")[::2] == (206, content[2:6])
    assert ask(address, "/stores/0/zarr.json", Range="bytes=-7")[::2] == (206, content[-7:])


@pytest.mark.parametrize(
    "path",
    [
        "/stores/0/../secret",
        "/stores/0/%2e%2e/secret",
        "/stores/0/..%2fsecret",
        "/stores/0//etc/passwd",
        "/stores/0/../i.zarr-other/secret",
        "/stores/0/link",
        "/stores/0/linked/secret",
        "/stores/1/secret",
        "/../server.py",
        "/%2e%2e/server.py",
    ],
)
def test_nothing_outside_of_the_store(path: str, image: Path, address: str) -> None:
    (image.parent / "secret").write_text("secret")
    other = image.parent / "i.zarr-other"
    other.mkdir()
    (other / "secret").write_text("secret")
    (image / "link").symlink_to(image.parent / "secret")
    (image / "linked").symlink_to(image.parent)
    status, _, body = ask(address, path)
    assert status in (403, 404)
    assert b"secret" not in body
    assert b"tornado" not in body


def test_links_within_the_store_are_followed(image: Path, address: str) -> None:
    (image / "link").symlink_to(image / "zarr.json")
    assert ask(address, "/stores/0/link")[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.5", "[::1]"])
@pytest.mark.parametrize("path", ["/", "/description.json", "/stores/0/zarr.json", "/other/"])
def test_another_host_name_is_refused(host: str, path: str, address: str) -> None:
    """A page of another host may have its name resolve to this machine (DNS rebinding)."""
    assert ask(address, path, Host=host)[0] == 403


def test_localhost_is_this_machine(address: str) -> None:
    assert ask(address, "/", Host=f"localhost:{urlsplit(address).port}")[0] == 200


@pytest.mark.parametrize("path", ["/", "/main.js", "/description.json", "/stores/0/zarr.json"])
def test_the_page_may_ask_nobody_else(path: str, address: str) -> None:
    headers = ask(address, path)[1]
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers


def test_a_file_that_was_replaced_is_another(image: Path, address: str) -> None:
    """Tornado's own tag would stay that of the first content."""
    (image / "chunk").write_bytes(b"before")
    first = ask(address, "/stores/0/chunk")[1]["Etag"]
    assert ask(address, "/stores/0/chunk", **{"If-None-Match": first})[0] == 304
    (image / "chunk").write_bytes(b"afterwards")
    assert ask(address, "/stores/0/chunk", **{"If-None-Match": first})[::2] == (200, b"afterwards")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(method: str, address: str) -> None:
    assert ask(address, "/stores/0/zarr.json", method)[0] == 405
    assert ask(address, "/description.json", method)[0] == 405


def test_every_module_is_there_with_its_type(address: str) -> None:
    """Browsers refuse a module of another type; what a system takes .js for differs."""
    for module in PAGE.rglob("*.js"):
        status, headers, _ = ask(address, f"/{module.relative_to(PAGE)}")
        assert status == 200
        assert headers["Content-Type"] in ("text/javascript", "application/javascript")


def test_answers_are_json(address: str) -> None:
    assert json.loads(ask(address, "/description.json")[2])["name"] == "i"
    assert json.loads(ask(address, "/progress.json")[2]) == {"labels": {}, "runs": []}


@pytest.mark.parametrize("path", ["cells/1", "cells/0", "absent/1", "%2e%2e/1", "cells/9999999999"])
def test_what_is_not_measured_is_an_empty_answer(path: str, image: Path, address: str) -> None:
    write_labels(image, "cells", np.ones((40, 50), np.uint8), ())
    assert ask(address, f"/measurements/{path}.json")[::2] == (200, b"{}")


def test_measurements_are_those_of_the_object_and_damage_is_told(image: Path, address: str) -> None:
    directory = write_labels(image, "cells", np.ones((40, 50), np.uint8), ())
    columns = {"identity": np.array([1, 2]), "class": np.array([7, 8])}
    MeasurementWriter(directory, "0.5", columns, 2, {7: "gland"}).write(0, columns)
    answer = ask(address, "/measurements/cells/1.json")[2]
    assert json.loads(answer) == {"identity": 1, "class": 7, "class_name": "gland"}
    next((directory / "measurements/class/c").iterdir()).write_bytes(b"damaged")
    status, _, body = ask(address, "/measurements/cells/1.json")
    assert status == 500
    assert "are damaged" in json.loads(body)["error"]


def test_what_is_wrong_with_the_image_is_told_in_one_line(tmp_path: Path, view: View) -> None:
    image = write_image(tmp_path / "i.zarr", random_pixels((3, 40, 50), "uint16"))
    address = view(image)
    next(path for path in (image / "0" / "c").rglob("*") if path.is_file()).write_bytes(b"damaged")
    status, _, body = ask(address, "/description.json")
    assert status == 500
    assert "damaged chunk in rows 0 to 40" in json.loads(body)["error"]


def test_a_taken_port_is_one_line(image: Path, address: str) -> None:
    port = urlsplit(address).port
    with pytest.raises(OptionError, match=rf"port {port} of 127.0.0.1 cannot be used \(Address"):
        asyncio.run(serve(open_scene(image), port or 0, print))


def test_an_image_file_is_shown_without_an_import(tmp_path: Path, view: View) -> None:
    pixels = random_pixels((40, 50, 3), "uint8")
    Picture.fromarray(pixels).save(tmp_path / "it.png")
    address = view(tmp_path / "it.png")
    level = json.loads(ask(address, "/description.json")[2])["image"]["levels"][0]
    assert level["shape"] == [3, 40, 50]
    chunk = ask(address, "/stores/0/0/c/0/0/0")[2]
    np.testing.assert_array_equal(
        np.frombuffer(chunk, "uint8").reshape(3, 40, 50), pixels.transpose(2, 0, 1)
    )
    assert json.loads(ask(address, "/stores/0/zarr.json")[2])["attributes"]["ome"]["multiscales"]
    assert ask(address, "/stores/0/9.zarr")[0] == 404
    assert ask(address, "/stores/0/../it.png")[0] == 404
