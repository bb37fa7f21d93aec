"""A class has one colour: that of the model, and the same wherever it is shown."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image as PILImage

import tilesegment as ts
from tests.pictures import balanced, random_pixels, write_image
from tilesegment.colours import OKABE_ITO
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.model.file import LabelClass, save_model
from tilesegment.model.unet import UNet
from tilesegment.view.description import describe, open_scene

CHOSEN = (
    LabelClass("glass", 0, (0, 0, 0)),
    LabelClass("tumour", 7, (11, 200, 33)),
    LabelClass("stroma", 3, (250, 10, 90)),
)


@pytest.mark.parametrize("classes", [None, CHOSEN], ids=["Okabe-Ito", "the model's"])
def test_one_colour_everywhere(
    classes: tuple[LabelClass, ...] | None, tmp_path: Path, one_worker: str
) -> None:
    torch.manual_seed(0)
    network = balanced(UNet(1, 3, base_channels=2, depth=1))
    model = save_model(network, tmp_path / "model.safetensors", classes=classes)
    pixels = np.zeros((1, 300, 300), np.uint8) + random_pixels((1, 300, 300), "uint8") // 8
    image = write_image(tmp_path / "i.zarr", pixels)
    options = RunOptions(precision="float32", probabilities=True)
    summary = ts.segment(image, model, options=options, cluster=ClusterOptions(one_worker))
    expected = {1: OKABE_ITO[0], 2: OKABE_ITO[1]}
    if classes is not None:
        expected = {item.value: item.colour for item in classes[1:]}

    shown = describe(open_scene(image))["labels"][0]["classes"]
    assert {item["value"]: item["colour"] for item in shown if item["value"]} == expected

    ts.export_labels(image, tmp_path / "o.tif")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        dataset = rasterio.open(tmp_path / "o.tif")
    with dataset:
        table = dataset.colormap(1)
    assert {value: table[value][:3] for value in expected} == expected

    ts.export_labels(image, tmp_path / "o.geojson")
    features = json.loads((tmp_path / "o.geojson").read_text())["features"]
    found = {tuple(item["properties"]["classification"]["color"]) for item in features}
    assert found == set(expected.values())

    ts.export_labels(image, tmp_path / "o.png", largest=600)
    drawn = set(map(tuple, np.asarray(PILImage.open(tmp_path / "o.png")).reshape(-1, 3)))
    assert drawn >= set(expected.values())

    page = ts.write_report(image, summary.labels, tmp_path, "tilesegment run").read_text()
    for red, green, blue in expected.values():
        assert f"rgb({red} {green} {blue})" in page
