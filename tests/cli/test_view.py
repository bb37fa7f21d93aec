"""The command as it is typed; the page itself is tested in tests/view."""

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.pictures import random_pixels, write_image

PROGRAM = Path(sys.executable).with_name("tilesegment")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "i.zarr", random_pixels((3, 40, 50), "uint8"))


def test_prints_the_address_and_ends_quietly(image: Path) -> None:
    viewer = subprocess.Popen(
        [PROGRAM, "view", image, "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell in the background ignores the signal, and whatever it starts inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert viewer.stdout is not None
    address = viewer.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310
        assert b"<title>tilesegment</title>" in answer.read()
    viewer.send_signal(signal.SIGINT)
    output, errors = viewer.communicate(timeout=20)
    assert (viewer.returncode, output, errors) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere.zarr"], 1, "there is no image at nowhere.zarr"),
        (["IMAGE", "--port", "70000"], 2, "70000 is not in the range"),
        (["IMAGE", "--labels", "nowhere"], 1, "there is no image at nowhere"),
    ],
)
def test_bad_input_is_one_line(words: list[str], code: int, message: str, image: Path) -> None:
    command = [PROGRAM, "view", "--no-browser", *(str(image) if w == "IMAGE" else w for w in words)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
