"""What the page is told."""

from collections.abc import Callable
from pathlib import Path

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
    assert "unlisted" not in progress(scene(image))["labels"]


def test_a_link_out_of_the_store_is_not_offered(image: Path, tmp_path: Path) -> None:
    write_labels(image, "cells", ONES, CLASSES)
    (image / "labels" / "cells").rename(tmp_path / "cells")
    (image / "labels" / "cells").symlink_to(tmp_path / "cells")
    assert describe(scene(image))["labels"] == []


def test_an_unfinished_run_is_told_tile_by_tile(image: Path) -> None:
    directory = image / "labels" / "cells"
    with Ledger(directory, {"level": 1, "tile": 32}) as ledger:
        for number in (0, 4):
            ledger.add(TileRecord(number, (1,), level=1))
        ledger.flush()
        told = progress(scene(image))
        (run,) = told["runs"]
        assert run["name"] == "cells"
        assert run["done"] == [0, 4]
        assert run["grid"] == {
            "side": 64, "rows": 2, "columns": 3, "tiles": 6, "height": 100, "width": 131
        }  # fmt: skip
        assert 0 <= run["idleSeconds"] < 60
        assert told["labels"] == {}
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
