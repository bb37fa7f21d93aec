"""The report: everything in one file, and nothing from elsewhere."""

import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image as PILImage

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tests.view.conftest import browser  # noqa: F401 - a fixture
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import InputError, OutputError
from tilesegment.reporting.facts import seam_section
from tilesegment.usecases.report import make_report_folder

MakeModel = Callable[..., Path]
COMMAND = "tilesegment run 'my <slide>.zarr' --smooth 1"


class Cells(HTMLParser):
    """The texts of a page, and what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.sources: list[str] = []

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture
def report(make_model: MakeModel, tmp_path: Path, one_worker: str) -> Path:
    image = write_image(tmp_path / "<i>.zarr", random_pixels((3, 150, 140), "uint8"), levels=2)
    options = RunOptions(tile=64, precision="float32", smooth=1.0)
    summary = ts.segment(
        image, make_model(), options=options, cluster=ClusterOptions(one_worker), verify=3
    )
    return ts.write_report(image, summary.labels, tmp_path / "r", COMMAND, summary.verified)


@pytest.mark.parametrize("device", ["mixed", "cuda"])
def test_of_mixed_devices_and_gpus_it_does_not_claim_that_no_label_differs(device: str) -> None:
    workers = {"precision": "float32", "device": device}
    assert ("found", "at most 1 label in 1000 differs") in seam_section(3, workers).rows


def test_it_tells_what_was_done(report: Path) -> None:
    cells = Cells()
    cells.feed(report.read_text())
    told = " | ".join(cells.texts)
    assert report.name == "<i>-model.html"
    for text in (
        "<i>.zarr: model",
        "150 x 140 px",
        "computed by the network | 9",
        "3 windows were computed again",
        "no label differs",
        "tile | 64 px",
        "halo | 24 px per side",
        "smoothing | Gaussian, 1 px",
        "0.5 x 0.5 µm per pixel",
        ts.__version__,
        COMMAND,
    ):
        assert text in told, text
    shares = [float(share) for share in re.findall(r"([\d.]+) %", told)]
    assert sum(shares) == pytest.approx(100, abs=0.02)
    areas = [float(area.replace(",", "")) for area in re.findall(r"([\d.,]+) µm²", told)]
    assert sum(areas) == pytest.approx(150 * 140 / 4, rel=0.01)


def test_it_loads_nothing_but_its_own_picture(report: Path) -> None:
    cells = Cells()
    cells.feed(report.read_text())
    (source,) = cells.sources
    kind, _, content = source.partition(",")
    assert kind == "data:image/jpeg;base64"
    picture = PILImage.open(io.BytesIO(base64.b64decode(content)))
    assert picture.width == 140
    assert "default-src 'none'" in report.read_text()
    assert "http" not in report.read_text().replace("http-equiv", "")


def test_a_browser_shows_it(report: Path, browser: object) -> None:  # noqa: F811
    page = browser.new_page()  # type: ignore[attr-defined]
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url[:5]))
    page.goto(report.as_uri())
    assert page.evaluate("document.images[0].naturalWidth") == 140
    assert set(requests) <= {"file:", "data:"}
    page.close()


def test_labels_of_others_have_no_report(tmp_path: Path) -> None:
    image = write_image(tmp_path / "i.zarr", random_pixels((3, 50, 40), "uint8"))
    with pytest.raises(InputError, match="does not say how it was made"):
        ts.write_report(image, image, tmp_path, COMMAND)


def test_a_folder_that_cannot_be_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file; give --report a folder"):
        make_report_folder(tmp_path / "file")
    with pytest.raises(OutputError):
        make_report_folder(tmp_path / "file" / "below")
