"""The page, in a real browser: what is drawn is what is stored."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numcodecs
import numpy as np
import numpy.typing as npt
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from tests.pictures import random_pixels, write_image
from tests.view.conftest import PANEL, VIEWPORT, open_page, seen, wait_until, write_labels
from tilesegment.config import ClusterOptions
from tilesegment.storage.labels import LabelProperties
from tilesegment.storage.ledger import read_unfinished
from tilesegment.storage.measurements import open_measurements
from tilesegment.usecases.objects import objects

if TYPE_CHECKING:
    from playwright.sync_api import Page

PROGRAM = Path(sys.executable).with_name("tilesegment")
MIDDLE = 220
"""Of the map on the screen, in both directions."""
HEIGHT, WIDTH = 151, 207
YELLOW, BLUE = (240, 228, 66), (86, 180, 233)
CLASSES = (
    LabelProperties(0, "background", (0, 0, 0)),
    LabelProperties(1, "gland", YELLOW),
    LabelProperties(2, "vessel", BLUE),
)
View = Callable[..., str]
MakeModel = Callable[..., Path]


def at(y: float, x: float, zoom: float = 1) -> str:
    """The link to a position."""
    return f"#x={x}&y={y}&zoom={zoom}"


def cut(screen: npt.NDArray[np.uint8], y: int, x: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The part of the map that shows an image of `shape`, if (y, x) of it is in the middle."""
    top, left = MIDDLE - y, MIDDLE - x
    return screen[top : top + shape[0], left : left + shape[1]].astype(int)


def shows(page: "Page", expected: npt.NDArray[Any], y: int = 75, x: int = 100) -> bool:
    """Whether the map shows the pixels (y, x, 3), one for one and to within rounding."""
    return bool(np.abs(cut(seen(page), y, x, expected.shape) - expected).max() <= 2)


def linked(page: "Page") -> dict[str, str]:
    """What the address of the page says now."""
    return dict(parse_qsl(page.evaluate("location.hash.slice(1)")))


def middle(page: "Page") -> tuple[int, int]:
    """The pixel (y, x) in the middle of the map."""
    return round(float(linked(page)["y"])), round(float(linked(page)["x"]))


def stripes(height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    """Labels 0, 1, 2 in blocks."""
    rows, columns = np.indices((height, width)) // 40
    return ((rows + columns) % 3).astype(np.uint8)


def tinted(pixels: npt.NDArray[Any], labels: npt.NDArray[Any], opacity: float) -> Any:
    """(y, x, 3): the overlay by its definition."""
    expected = pixels.astype(float)
    for item in CLASSES[1:]:
        inside = labels == item.value
        expected[inside] += opacity * (np.array(item.colour) - expected[inside])
    return expected


@pytest.fixture
def pixels() -> npt.NDArray[Any]:
    return random_pixels((3, HEIGHT, WIDTH), "uint8")


@pytest.fixture
def image(pixels: npt.NDArray[Any], tmp_path: Path) -> Path:
    return write_image(tmp_path / "i.zarr", pixels, chunks=(3, 64, 96), levels=2)


def colours(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.moveaxis(pixels, 0, -1).astype(int)


STORED = {
    "0.5 zstd in shards": {"shards": (3, 128, 192), "compressors": ZstdCodec(checksum=True)},
    "0.5 blosc in shards": {"shards": (3, 128, 192), "compressors": BloscCodec(cname="lz4")},
    "0.5 gzip": {"compressors": GzipCodec()},
    "0.5 raw": {"compressors": None},
    "0.4 blosc": {"version": "0.4", "compressors": numcodecs.Blosc("zstd")},
    "0.4 zstd": {"version": "0.4", "compressors": numcodecs.Zstd()},
    "0.4 zlib": {"version": "0.4", "compressors": numcodecs.Zlib()},
}


@pytest.mark.parametrize("stored", STORED)
def test_every_pixel_is_drawn(
    stored: str, pixels: npt.NDArray[Any], tmp_path: Path, view: View, page: "Page"
) -> None:
    image = write_image(tmp_path / "i.zarr", pixels, chunks=(3, 64, 96), **STORED[stored])
    open_page(page, view(image) + at(75, 100))
    wait_until(lambda: shows(page, colours(pixels)), stored)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32", "float64"])
def test_other_types_are_drawn_by_their_contrast(
    dtype: str, tmp_path: Path, view: View, page: "Page"
) -> None:
    values = np.linspace(0, 1, HEIGHT * WIDTH).reshape(1, HEIGHT, WIDTH)
    scaled = (values * (1.0 if dtype.startswith("float") else 30_000)).astype(dtype)
    image = write_image(tmp_path / "i.zarr", scaled, chunks=(1, 64, 96))
    open_page(page, view(image) + at(75, 100))
    low, high = np.percentile(values, (0.5, 99.5))
    grey = np.clip((values[0] - low) / (high - low), 0, 1) * 255
    wait_until(lambda: shows(page, np.stack([grey] * 3, axis=-1)), dtype)


def heated(pixels: npt.NDArray[Any], probability: npt.NDArray[Any], opacity: float) -> Any:
    """(y, x, 3): the heat map by its definition, "inferno" in four steps over the image."""
    stops = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)])
    levels = np.linspace(0, 1, len(stops))
    colour = np.stack(
        [np.interp(probability, levels, stops[:, part]) for part in range(3)], axis=-1
    )
    covered = opacity * np.minimum(probability * 4, 1)[..., None]
    return pixels + covered * (colour - pixels)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_heat_map_shows_the_probability_of_a_class(
    version: str, pixels: npt.NDArray[Any], tmp_path: Path, view: View, page: "Page"
) -> None:
    image = write_image(tmp_path / "i.zarr", pixels, version=version, levels=2)
    steps = np.array([0, 255, 128, 191], np.uint8)
    rows, columns = np.indices((HEIGHT, WIDTH)) // 40
    vessel = steps[(rows + 2 * columns) % 4]
    probabilities = np.stack([255 - vessel, np.zeros_like(vessel), vessel])
    nothing = np.zeros((HEIGHT, WIDTH), np.uint8)
    write_labels(image, "found", nothing, CLASSES, probabilities=probabilities)
    open_page(page, view(image) + at(75, 100) + "&labels=found")
    page.get_by_label("Of", exact=True).select_option("vessel")
    expected = heated(colours(pixels), vessel / 255, 0.7)
    wait_until(lambda: shows(page, expected), "heat map of vessel")
    page.get_by_label("Strength").fill("100")
    expected = heated(colours(pixels), vessel / 255, 1)
    wait_until(lambda: shows(page, expected), "stronger heat map")
    page.mouse.click(MIDDLE + 1, MIDDLE + 1)
    value = vessel[76, 101] / 255
    told = f"P(vessel)\n{value:.2f}"
    wait_until(lambda: told in page.locator("#inspected dl").inner_text(), told)
    page.get_by_label("Show", exact=True).select_option("")
    wait_until(lambda: shows(page, colours(pixels)), "no heat map without its labels")
    assert not page.locator("#heat").is_visible()


def test_labels_without_probabilities_offer_no_heat_map(
    image: Path, view: View, page: "Page"
) -> None:
    write_labels(image, "found", stripes(), CLASSES)
    open_page(page, view(image) + at(75, 100) + "&labels=found")
    assert not page.locator("#heat").is_visible()


def test_contrast_colour_and_visibility_of_a_channel(
    image: Path, pixels: npt.NDArray[Any], view: View, page: "Page"
) -> None:
    open_page(page, view(image) + at(75, 100))
    page.get_by_label("Red", exact=True).uncheck()
    expected = colours(pixels) * (0, 1, 1)
    wait_until(lambda: shows(page, expected), "red is off")
    page.get_by_label("Value of Green that is drawn brightest").fill("100")
    expected[..., 1] = np.minimum(expected[..., 1] * 2.55, 255)
    wait_until(lambda: shows(page, expected), "green is brighter")
    page.get_by_label("Colour of Blue").fill("#ff0000")
    wait_until(lambda: shows(page, expected[..., [2, 1, 0]]), "blue is red")


def test_labels_lie_over_the_image(
    image: Path, pixels: npt.NDArray[Any], view: View, page: "Page"
) -> None:
    write_labels(image, "cells", stripes(), CLASSES)
    open_page(page, view(image) + at(75, 100))
    picture = colours(pixels)
    wait_until(lambda: shows(page, tinted(picture, stripes(), 0.6)), "the overlay")
    page.get_by_label("Opacity").fill("100")
    wait_until(lambda: shows(page, tinted(picture, stripes(), 1)), "opaque")
    page.keyboard.press("[")
    wait_until(lambda: shows(page, tinted(picture, stripes(), 0.9)), "a step fainter")
    page.get_by_label("gland").uncheck()
    only_vessels = np.where(stripes() == 1, 0, stripes())
    wait_until(lambda: shows(page, tinted(picture, only_vessels, 0.9)), "one class")
    page.keyboard.press("l")
    wait_until(lambda: shows(page, picture), "no labels")


def test_outlines_are_the_labels_own_rim(
    image: Path, pixels: npt.NDArray[Any], view: View, page: "Page"
) -> None:
    """Also where two tiles of the page meet: chunks are 64 pixels, blocks of labels 40."""
    write_labels(image, "cells", stripes(), CLASSES)
    open_page(page, view(image) + at(75, 100))
    page.get_by_label("Draw", exact=True).select_option("outlines")
    framed = np.pad(stripes(), 1)
    same = [np.roll(framed, *shift) == framed for shift in ((1, 0), (-1, 0), (1, 1), (-1, 1))]
    inside = np.logical_and.reduce(same)[1:-1, 1:-1]
    rims = np.where(inside, 0, stripes())
    wait_until(lambda: shows(page, tinted(colours(pixels), rims, 0.6)), "outlines")


def test_pan_and_zoom(image: Path, pixels: npt.NDArray[Any], view: View, page: "Page") -> None:
    open_page(page, view(image) + at(75, 100))
    page.mouse.move(MIDDLE, MIDDLE)
    page.mouse.down()
    page.mouse.move(MIDDLE + 30, MIDDLE - 20, steps=5)
    page.wait_for_timeout(300)  # else the picture would go on by its momentum
    page.mouse.up()
    wait_until(lambda: middle(page) != (75, 100), "dragged")
    y, x = middle(page)
    assert y > 75
    assert x < 100
    wait_until(lambda: shows(page, colours(pixels), y, x), "the picture has gone with it")
    page.keyboard.press("+")
    wait_until(lambda: linked(page)["zoom"] == "2", "closer")
    twice = colours(pixels)[y - 20 : y + 20, x - 20 : x + 20].repeat(2, axis=0).repeat(2, axis=1)
    wait_until(lambda: shows(page, twice, y=40, x=40), "pixels are squares of 2 x 2")
    page.keyboard.press("0")
    wait_until(lambda: linked(page)["zoom"] != "2", "the whole image")
    assert page.locator("#scale-bar").inner_text().endswith("µm")


def test_from_afar_a_coarser_level_is_drawn(tmp_path: Path, view: View, page: "Page") -> None:
    fine = np.full((1, 1024, 1024), 200, np.uint8)
    image = write_image(tmp_path / "i.zarr", fine, chunks=(1, 256, 256), levels=2)
    zarr.open_group(image)["1"][...] = 100
    open_page(page, view(image) + at(512, 512, 0.5))
    wait_until(lambda: seen(page)[MIDDLE, MIDDLE].tolist() == [100] * 3, "level 1")
    page.keyboard.press("1")
    wait_until(lambda: seen(page)[MIDDLE, MIDDLE].tolist() == [200] * 3, "level 0")


def test_two_label_images_meet_at_the_line(
    image: Path, pixels: npt.NDArray[Any], tmp_path: Path, view: View, page: "Page"
) -> None:
    ones = np.ones((HEIGHT, WIDTH), np.uint8)
    write_labels(image, "first", ones, CLASSES)
    elsewhere = write_labels(image, "second", 2 * ones, CLASSES, tmp_path / "second")
    open_page(page, view(image, elsewhere) + at(75, 100) + "&labels=first&compare=second")

    def divided(line: int) -> bool:
        columns = np.arange(WIDTH) + MIDDLE - 100
        labels = np.where(columns < line, 1, 2) * ones
        expected = tinted(colours(pixels), labels, 0.6)
        near = np.abs(columns - line) < 20
        screen = cut(seen(page), 75, 100, expected.shape)
        return bool(np.abs(screen - expected)[:50, ~near].max() <= 2)

    wait_until(lambda: divided(MIDDLE), "the line is in the middle")
    page.mouse.move(MIDDLE, 400)
    page.mouse.down()
    page.mouse.move(170, 400, steps=3)
    page.mouse.up()
    wait_until(lambda: divided(170), "dragged")
    page.locator("#swipe").press("ArrowRight")
    wait_until(lambda: divided(179), "moved by a key")
    page.get_by_label("Compare with").select_option("nothing")
    everywhere = tinted(colours(pixels), ones, 0.6)
    wait_until(lambda: shows(page, everywhere), "one label image again")


def test_a_click_tells_position_values_and_class(
    image: Path, pixels: npt.NDArray[Any], view: View, page: "Page"
) -> None:
    write_labels(image, "cells", stripes(), CLASSES)
    open_page(page, view(image) + at(75, 100))
    page.mouse.click(MIDDLE + 23, MIDDLE + 5)
    y, x = 80, 123
    value = int(stripes()[y, x])
    page.get_by_text(f"{CLASSES[value].name} ({value})", exact=True).wait_for()
    red, green, blue = pixels[:, y, x]
    assert page.locator("#inspected dd").all_inner_texts() == [
        f"x {x}, y {y}", "61.5, 40.0 µm", str(red), str(green), str(blue),
        f"{CLASSES[value].name} ({value})",
    ]  # fmt: skip
    assert page.locator("#position").inner_text() == f"x {x}, y {y} · 61.5, 40.0 µm"


def test_identities_beyond_the_classes_are_drawn_and_told(
    image: Path, view: View, page: "Page"
) -> None:
    identities = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) + 2**24).astype(np.int64)
    write_labels(image, "objects", identities, ())
    open_page(page, view(image) + at(75, 100))
    page.mouse.click(MIDDLE, MIDDLE)
    page.get_by_text(str(identities[75, 100]), exact=True).wait_for()


def test_a_click_on_an_object_shows_its_measurements(
    image: Path, view: View, page: "Page", one_worker: str
) -> None:
    write_labels(image, "cells", stripes(), CLASSES)
    objects(image, "cells", tile=64, cluster=ClusterOptions(kind=one_worker))
    stored = open_measurements(image / "labels" / "cells-objects")
    assert stored is not None
    y, x = 80, 123
    identity = int(zarr.open_group(image / "labels" / "cells-objects")["0"][y, x])
    known = stored.of(identity)
    assert known is not None
    open_page(page, view(image) + at(75, 100) + "&labels=cells-objects")
    page.mouse.click(MIDDLE + 23, MIDDLE + 5)
    page.get_by_text(f"{known['area_px']} px", exact=True).wait_for()
    told = page.locator("#inspected dd").all_inner_texts()[-9:]
    numbers = [float(text.split()[0]) for text in (*told[:1], *told[2:])]
    assert told[1] == known["class_name"] == CLASSES[int(stripes()[y, x])].name
    columns = ("identity", "area_px", "area_um2", "perimeter_px", "eccentricity")
    means = [name for name in known if name.startswith("mean_")]
    expected = [known[name] for name in (*columns, *means)]
    np.testing.assert_allclose(numbers, expected, rtol=1e-4)


def test_planes_of_t_and_z(tmp_path: Path, view: View, page: "Page") -> None:
    planes = np.full((3, 2, HEIGHT, WIDTH), 50, np.uint8)
    planes[2, 0] = 150
    image = write_image(tmp_path / "i.zarr", planes, "tzyx", chunks=(1, 1, 64, 64))
    open_page(page, view(image) + at(75, 100))
    wait_until(lambda: shows(page, np.full((HEIGHT, WIDTH, 3), 50)), "the middle plane")
    page.get_by_label("t", exact=True).fill("2")
    wait_until(lambda: shows(page, np.full((HEIGHT, WIDTH, 3), 150)), "t 2, z 0")


def test_a_damaged_chunk_is_named_and_the_rest_is_drawn(
    image: Path, view: View, page: "Page"
) -> None:
    next(path for path in (image / "0" / "c").rglob("*") if path.is_file()).write_bytes(b"damaged")
    open_page(page, view(image) + at(75, 100))
    page.get_by_role("alert").filter(has_text="cannot be read").wait_for()


def test_every_control_has_a_name(image: Path, view: View, page: "Page") -> None:
    write_labels(image, "cells", stripes(), CLASSES)
    open_page(page, view(image))
    controls = page.locator("input, select, button, [role=slider]:visible")
    snapshot = page.locator("body").aria_snapshot()
    assert controls.count() > 20
    nameless = [
        line
        for line in snapshot.splitlines()
        for role in ("slider", "checkbox", "combobox", "button", "textbox")
        if line.strip(" -").startswith(role) and '"' not in line
    ]
    assert nameless == []
    page.keyboard.press("?")
    assert "labels on and off" in page.get_by_role("dialog").inner_text()


def test_a_run_is_followed_until_its_labels_are_there(
    make_model: MakeModel, tmp_path: Path, view: View, page: "Page"
) -> None:
    pixels = random_pixels((3, 256, 256), "uint8")
    image = write_image(tmp_path / "i.zarr", pixels, chunks=(3, 128, 128))
    open_page(page, view(image) + at(128, 128))
    page.get_by_title("Overview").click()
    bar = page.get_by_label("Tiles of cells")
    with real_run(image, make_model(base_channels=16)) as run:
        finished = stop_in_the_middle(run, image / "labels" / "cells")
        wait_until(lambda: bar.count() == 1, "the run")
        wait_until(lambda: bar.get_attribute("value") == str(len(finished)), "all that is done")
        wait_until(lambda: shows_tiles(page, pixels, finished), "the state of each tile")
        run.send_signal(signal.SIGCONT)
        shown = page.get_by_label("Show", exact=True)
        wait_until(lambda: shown.input_value() == "cells", "the labels of the run", seconds=300)
    wait_until(lambda: bar.count() == 0, "the end of the run")


@contextmanager
def real_run(image: Path, model: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process of its own, with 16 tiles of 64 pixels."""
    words = ["run", image, "--model", model, "--labels", "cells", "--tile", 64]
    run = subprocess.Popen([PROGRAM, *map(str, words)], stdout=subprocess.DEVNULL)
    try:
        yield run
        assert run.wait(60) == 0
    finally:
        run.send_signal(signal.SIGCONT)
        run.terminate()
        run.wait(30)


def stop_in_the_middle(run: subprocess.Popen[bytes], labels: Path) -> frozenset[int]:
    """Hold the run once it has finished some tiles: their numbers."""
    deadline = time.monotonic() + 300
    while not ((seen_so_far := read_unfinished(labels)) and seen_so_far.done):
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGSTOP)
    time.sleep(0.2)
    held = read_unfinished(labels)
    assert held is not None
    assert 0 < len(held.done) < 16
    return held.done


def shows_tiles(page: "Page", pixels: npt.NDArray[Any], finished: frozenset[int]) -> bool:
    """Whether the tiles that are done are clear and the others dimmed, between the lines."""
    dimmed = colours(pixels) * 0.45 + 0.55 * np.array([10, 12, 16])
    y, x = np.indices(dimmed.shape[:2])
    done = np.isin(y // 64 * 4 + x // 64, list(finished))
    between = np.logical_and(
        *((index % 32 > 4) & (index % 32 < 28) for index in np.indices(done.shape))
    )
    expected = np.where(done[..., None], colours(pixels), dimmed)
    screen = cut(seen(page), 128, 128, expected.shape)
    return bool(np.abs(screen - expected)[between].max() <= 2)


def test_a_gigapixel_opens_at_once(
    tmp_path: Path, view: View, page: "Page", capsys: pytest.CaptureFixture[str]
) -> None:
    address = view(gigapixel(tmp_path / "huge.zarr"))
    started = time.monotonic()
    open_page(page, address)
    with capsys.disabled():
        sys.stdout.write(f"\n1.07 gigapixels drawn after {time.monotonic() - started:.1f} s\n")
    assert page.locator("#size").inner_text().startswith("32,768 × 32,768 px")
    assert seen(page)[MIDDLE, MIDDLE].any()


def gigapixel(path: Path) -> Path:
    """An image of 32768 x 32768 pixels in 6 levels; all its large shards are one file."""
    sides = [32768 >> level for level in range(6)]
    group = zarr.create_group(path)
    for level, side in enumerate(sides):
        shard = min(side, 4096)
        group.create_array(
            str(level), shape=(3, side, side), chunks=(3, 512, 512), shards=(3, shard, shard),
            dtype="uint8", dimension_names=list("cyx"),
        )  # fmt: skip
    tile = random_pixels((3, 512, 512), "uint8") // 16 + 120
    for level in (3, 4, 5):
        repeats = sides[level] // 512
        group[str(level)][...] = np.tile(tile, (1, repeats, repeats))
    for level in (0, 1, 2):
        for row in range(sides[level] // 4096):
            for column in range(sides[level] // 4096):
                target = path / str(level) / "c" / "0" / str(row) / str(column)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(path / "3" / "c" / "0" / "0" / "0", target)
    kinds = [("c", "channel"), ("y", "space"), ("x", "space")]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [{"name": name, "type": kind} for name, kind in kinds],
                "datasets": [
                    {
                        "path": str(level),
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [1, 2**level, 2**level]}
                        ],
                    }
                    for level in range(len(sides))
                ],
            }
        ],
    }
    return path


def test_the_panel_leaves_the_map_square() -> None:
    """The numbers above rest on it."""
    assert (VIEWPORT["width"] - PANEL, VIEWPORT["height"]) == (2 * MIDDLE, 2 * MIDDLE)
