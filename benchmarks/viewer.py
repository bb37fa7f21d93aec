"""How long the viewer takes to show a gigapixel image with its labels, in headless Chromium.

    python benchmarks/viewer.py [--gigapixels 1] [--picture viewer.png]

From the navigation to the first picture that is complete, labels included: once from afar, the
whole image, and once at full resolution. Each time it is a new browser profile, so that nothing is
cached, and the viewer is started anew. The image is a square of the demo slide with its mirror
images, linked again and again; its labels are its dark pixels.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import SHARD, linked_slide, repeated, save_results
from playwright.sync_api import Browser, sync_playwright

_LEVELS = 6
_DARK = 140
_VIEWPORT = {"width": 1280, "height": 800}
_RUNS = 5
# Of the machine's processor: there is no graphics card.
_ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def make_image(folder: Path, side: int) -> Path:
    """An image of side x side shards, and labels "dark" of it."""
    path = linked_slide(folder, (side, side), _LEVELS)
    if (path / "labels").exists():
        return path
    pixels = zarr.open_array(path / "0", mode="r")[:, :SHARD, :SHARD]
    zarr.create_group(path / "labels", attributes={"ome": {"version": "0.5", "labels": ["dark"]}})
    names = {"image-label": {"properties": [{"label-value": 1, "class": "dark"}]}}
    labels = (pixels[0] < _DARK).astype(np.uint8)
    repeated(path / "labels" / "dark", labels, (side, side), names, _LEVELS)
    return path


def seconds_to_open(browser: Browser, image: Path, link: str, picture: Path | None) -> float:
    """Seconds from the navigation until picture and labels are drawn."""
    command = [Path(sys.executable).with_name("tilesegment"), "view", image, "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        page = browser.new_context(viewport=_VIEWPORT).new_page()
        page.set_default_timeout(120_000)
        started = time.perf_counter()
        page.goto(address + link)
        page.wait_for_selector("body[data-drawn]", state="attached")
        seconds = time.perf_counter() - started
        if picture is not None:
            page.screenshot(path=picture)
        page.context.close()
        return seconds
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Measure, print, and write benchmarks/results/viewer.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigapixels", type=float, default=1)
    parser.add_argument("--folder", type=Path, help="where the image goes; kept")
    parser.add_argument("--picture", type=Path, help="write what is seen from afar")
    arguments = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        side = max(1, round((arguments.gigapixels * 1e9) ** 0.5 / SHARD))
        image, tissue = make_image(folder, side), side // 2 * SHARD + 1500
        links = {"whole": "", "full_resolution": f"#x={tissue}&y={tissue}&zoom=1&labels=dark"}
        rows: dict[str, Any] = {}
        for name, link in links.items():
            taken = []
            for _ in range(_RUNS):
                browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
                picture = arguments.picture and arguments.picture.with_stem(
                    f"{arguments.picture.stem}-{name}"
                )
                taken.append(round(seconds_to_open(browser, image, link, picture), 2))
                browser.close()
            rows[name] = {"median_seconds": statistics.median(taken), "seconds": taken}
            print(name, rows[name], flush=True)
        results = {
            "gigapixels": round((side * SHARD) ** 2 / 1e9, 3),
            "viewport": _VIEWPORT,
            "load_1_min": round(os.getloadavg()[0], 1),
            **rows,
        }
    save_results("viewer", results)


if __name__ == "__main__":
    main()
