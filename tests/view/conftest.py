"""A running viewer, a browser that looks at it, and label images to look at."""

import asyncio
import io
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PILImage

from tests.pictures import as_a_run
from tilesegment.storage.image import open_image
from tilesegment.storage.labels import LabelLayout, LabelProperties, layout_volume, list_labels
from tilesegment.tiling import Window
from tilesegment.view.description import Scene, open_scene
from tilesegment.view.server import serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PANEL = 300
VIEWPORT = {"width": 440 + PANEL, "height": 440}
"""The picture takes the square to the left of the panel."""
_PATIENCE_MS = 120_000
"""Machines that are shared stall, and the browser draws without a graphics card."""


def write_labels(
    image: Path,
    name: str,
    labels: npt.NDArray[Any],
    classes: Sequence[LabelProperties],
    directory: Path | None = None,
    probabilities: npt.NDArray[np.uint8] | None = None,
) -> Path:
    """A published label image of one plane, by default in the image's own store."""
    opened = open_image(image)
    layout = LabelLayout(
        name,
        opened.version,
        str(labels.dtype),
        128,
        64,
        tuple(classes),
        None,
        probabilities=probabilities is not None,
    )
    inside = directory is None
    directory = directory or image / "labels" / name
    volume = layout_volume(opened, layout, directory)
    with as_a_run(volume.directory):
        volume.write(0, 0, Window(0, 0, *labels.shape), labels, probabilities)
        for level in range(1, len(opened.levels)):
            volume.derive(level, level - 1, 0, Window(0, 0, *opened.plane_shape(level)))
    volume.publish({})
    if inside:
        list_labels(directory.parent, name, opened.version)
    return directory


@contextmanager
def running_viewer(scene: Scene) -> Iterator[str]:
    """The address of a viewer in a thread of its own."""
    address: list[str] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()

    def ready(url: str) -> None:
        address.append(url)
        started.set()

    task = loop.create_task(serve(scene, 0, ready))

    def run() -> None:
        with ExitStack() as stack:
            stack.callback(loop.close)
            loop.run_until_complete(asyncio.wait([task]))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(10)
        yield address[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


@pytest.fixture
def view() -> Iterator[Callable[..., str]]:
    """Starts viewers: given an image, and label stores elsewhere, the page's address."""
    with ExitStack() as stack:

        def start(image: Path, *label_stores: Path) -> str:
            scene = open_scene(image, label_stores)
            return stack.enter_context(running_viewer(scene))

        yield start


# Not for the whole session: while playwright runs, no other event loop can.
@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Headless Chromium, as the distribution packages it."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no chromium here; on Debian: apt-get install chromium")
    arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    """A page that must ask no other host, and run without an error."""
    page = browser.new_page(viewport=VIEWPORT)
    page.set_default_timeout(_PATIENCE_MS)
    hosts: set[str | None] = set()
    errors: list[str] = []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert hosts <= {"127.0.0.1"}
    assert errors == []


def open_page(page: "Page", address: str) -> None:
    """Open an address and wait until everything is drawn."""
    page.goto(address)
    page.wait_for_selector("body[data-drawn]", state="attached")


def seen(page: "Page") -> npt.NDArray[np.uint8]:
    """What the map shows now: (y, x, 3)."""
    clip = {"x": 0, "y": 0, "width": VIEWPORT["width"] - PANEL, "height": VIEWPORT["height"]}
    picture = PILImage.open(io.BytesIO(page.screenshot(clip=clip)))
    return np.asarray(picture.convert("RGB"))


def wait_until(check: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Look again and again; the page draws in its own time."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
