"""What the page is told."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.pictures import random_pixels, write_image
from tests.view.conftest import write_labels
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.storage.image import Level
from tilesegment.storage.labels import LabelProperties
from tilesegment.storage.ledger import Ledger, TileRecord
from tilesegment.usecases.segment import segment
from tilesegment.view.description import Scene, describe, level_factor, open_scene, progress

CLASSES = (LabelProperties(0, "background", (0, 0, 0)), LabelProperties(1, "cell", (1, 2, 3)))
ONES = np.ones((100, 131), np.uint8)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "i.zarr", random_pixels((3, 100, 131), "uint8"), levels=3)


def scene(image: Path, *label_stores: Path) -> Scene:
    return open_scene(image, label_stores)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_and_its_levels(version: str, tmp_path: Path) -> None:
    pixels = random_pixels((3, 100, 131), "uint8")
    image = write_image(tmp_path / "i.zarr", pixels, levels=3, chunks=(3, 64, 32), version=version)
    told = describe(scene(image))
    assert told["name"] == "i"
    assert told["image"]["zarrFormat"] == (3 if version == "0.5" else 2)
    assert told["image"]["pixelSizeUm"] == (0.5, 0.5)
    assert told["image"]["levels"][1] == {
        "path": "1", "shape": (3, 50, 66), "chunk": (64, 32), "factor": 2
    }  # fmt: skip
    assert [level["factor"] for level in told["image"]["levels"]] == [1, 2, 4]


def level(width: int, scale: float) -> Level:
    sizes = (10, width)
    return Level("0", sizes, sizes, np.dtype("u1"), (scale, scale), (0.0, 0.0))


def test_factors_come_from_scales_whichever_way_odd_widths_were_halved() -> None:
    for full in range(700, 720):
        for power in range(6):
            for width in (full >> power, -(-full >> power)):
                assert level_factor(level(full, 0.5), level(width, 2**power / 2)) == 2**power


@pytest.mark.parametrize("scale", [1.0, 0.0, 7.0])
def test_factors_come_from_widths_where_scales_contradict_them(scale: float) -> None:
    assert level_factor(level(1000, 1.0), level(400, scale)) == 2.5


def channels_of(path: Path, pixels: Any, omero: Mapping[str, Any] | None = None) -> Any:
    image = write_image(path / "i.zarr", pixels)
    if omero is not None:
        group = zarr.open_group(image)
        group.attrs["ome"] = {**group.attrs["ome"], "omero": omero}
    return describe(scene(image))["image"]["channels"]


def test_a_colour_picture_is_shown_as_it_is(tmp_path: Path) -> None:
    channels = channels_of(tmp_path, random_pixels((3, 20, 30), "uint8"))
    assert [channel["name"] for channel in channels] == ["Red", "Green", "Blue"]
    assert [channel["colour"] for channel in channels] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert {tuple(channel["window"]) for channel in channels} == {(0, 255)}


def test_other_types_are_stretched_to_what_is_in_them(tmp_path: Path) -> None:
    pixels = np.arange(1000, 2000, dtype=np.uint16).reshape(1, 20, 50)
    (channel,) = channels_of(tmp_path, pixels)
    assert channel["name"] == "Intensity"
    assert channel["range"] == [1000, 1999]
    assert channel["window"] == pytest.approx([1005, 1994], abs=0.1)


def test_pixels_that_are_all_equal_or_no_numbers_have_a_contrast(tmp_path: Path) -> None:
    pixels = np.stack([np.full((20, 30), 7.0), np.full((20, 30), np.nan)])
    equal, nothing = channels_of(tmp_path, pixels)
    assert equal["window"] == [7, 8]
    assert nothing["window"] == [0, 1]


def test_the_images_own_rendering_settings_come_first(tmp_path: Path) -> None:
    omero = {
        "channels": [
            {"label": "DAPI", "color": "0000FF", "window": {"start": 5, "end": 90}},
            {"label": "empty", "color": "no colour", "window": {"start": 3, "end": 3}},
            {"active": False},
        ]
    }
    dapi, empty, hidden = channels_of(tmp_path, random_pixels((3, 20, 30), "uint8"), omero)
    assert dapi == {
        "name": "DAPI", "colour": (0, 0, 255), "window": [5, 90], "range": [0, 255],
        "visible": True,
    }  # fmt: skip
    assert (empty["name"], empty["colour"], empty["window"]) == ("empty", (0, 255, 0), [0, 255])
    assert not hidden["visible"]


@pytest.mark.parametrize("omero", [{}, {"channels": None}, {"channels": ["x"]}, "x"])
def test_rendering_settings_that_make_no_sense_are_passed_over(omero: Any, tmp_path: Path) -> None:
    channels = channels_of(tmp_path, random_pixels((3, 20, 30), "uint8"), omero)
    assert [channel["name"] for channel in channels] == ["Red", "Green", "Blue"]


def test_label_images_within_and_elsewhere(image: Path, tmp_path: Path) -> None:
    write_labels(image, "cells", ONES, CLASSES)
    truth = write_labels(image, "truth", ONES, CLASSES, tmp_path / "truth")
    cells, elsewhere = describe(scene(image, truth))["labels"]
    assert (cells["name"], cells["url"]) == ("cells", "stores/0/labels/cells")
    assert cells["classes"][1] == {"value": 1, "name": "cell", "colour": (1, 2, 3)}
    assert (elsewhere["name"], elsewhere["url"]) == ("truth", "stores/1")


def test_what_is_not_listed_or_damaged_is_not_offered(image: Path) -> None:
    for name in ("good", "unlisted", "damaged"):
        write_labels(image, name, ONES, CLASSES)
    labels = zarr.open_group(image / "labels")
    labels.attrs["ome"] = {"labels": ["good", "damaged", "../i.zarr"]}
    (image / "labels" / "damaged" / "zarr.json").write_text("{}")
    assert [item["name"] for item in describe(scene(image))["labels"]] == ["good"]


def test_a_link_out_of_the_store_is_not_offered(image: Path, tmp_path: Path) -> None:
    write_labels(image, "cells", ONES, CLASSES)
    (image / "labels" / "cells").rename(tmp_path / "cells")
    (image / "labels" / "cells").symlink_to(tmp_path / "cells")
    assert describe(scene(image))["labels"] == []


def test_an_unfinished_run_is_told_tile_by_tile(image: Path) -> None:
    directory = image / "labels" / "cells"
    with Ledger(directory, {"level": 1, "tile": 32}) as ledger:
        for number in (0, 4):
            ledger.add(TileRecord(number, (1,)))
        told = progress(scene(image))
        (run,) = told["runs"]
        assert run["name"] == "cells"
        assert run["done"] == [0, 4]
        assert run["grid"] == {
            "side": 64, "rows": 2, "columns": 3, "tiles": 6, "height": 100, "width": 131
        }  # fmt: skip
        assert 0 <= run["idleSeconds"] < 60
        assert told["labels"] == {"cells": None}
        ledger.remove()
    assert progress(scene(image))["runs"] == []


def test_a_run_with_an_output_of_its_own_is_told_too(image: Path, tmp_path: Path) -> None:
    with Ledger(tmp_path / "out", {"level": 0, "tile": 64}):
        (run,) = progress(scene(image, tmp_path / "out"))["runs"]
    assert (run["name"], run["done"]) == ("out", [])


def test_the_labels_of_a_run_bring_their_tiles(
    image: Path, make_model: Callable[..., Path], one_worker: str
) -> None:
    """Here the viewer meets the ledger and the provenance that real runs write."""
    reported = []

    def look(_: object) -> None:
        reported.extend(progress(scene(image))["runs"])

    segment(
        image, make_model(), labels="cells", options=RunOptions(0, 48, "float32"),
        cluster=ClusterOptions(one_worker), report=look,
    )  # fmt: skip
    assert {run["name"] for run in reported} == {"cells"}
    assert {len(run["done"]) for run in reported} >= {0, 9}
    (labels,) = describe(scene(image))["labels"]
    assert labels["grid"]["tiles"] == reported[0]["grid"]["tiles"] == 9
    revision = progress(scene(image))["labels"]["cells"]
    assert revision == labels["revision"]
