"""Tiles against one pass over the whole image, for networks that are not tilesegment's."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.foreign import sha256, small_unet, write_onnx, write_torchscript
from tests.model.test_predictor import by_tiles
from tests.pictures import random_pixels, whole_pass
from tilesegment.config import ForeignOptions
from tilesegment.model.opening import Model, open_model
from tilesegment.model.predictor import Predictor
from tilesegment.model.unet import UNet


def opened(network: UNet, kind: str, folder: Path) -> Model:
    channels, size = int(network.arguments["in_channels"]), network.geometry.input_size(64)
    if kind == "onnx":
        path = write_onnx(network, folder / "m.onnx", size=size, channels=channels, fixed=False)
        return open_model(path, ForeignOptions(threshold=0))
    path = write_torchscript(network, folder / "m.pt", torch.zeros(1, channels, size, size))
    return open_model(path, ForeignOptions(threshold=0, trust=f"sha256:{sha256(path)}"))


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_tiles_equal_the_whole_image_in_every_logit(
    kind: str, data: st.DataObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any size: also where torch would compute tiles with another library."""
    network = small_unet(
        data.draw(st.integers(1, 3)),
        data.draw(st.integers(1, 3)),
        seed=data.draw(st.integers(0, 9)),
        base_channels=data.draw(st.sampled_from([1, 3, 8])),
        depth=data.draw(st.integers(1, 3)),
        padding=data.draw(st.sampled_from(["valid", "same"])),
        upsampling=data.draw(st.sampled_from(["transposed", "interpolate"])),
        batch_norm=data.draw(st.booleans()),
    )
    geometry = network.geometry
    monkeypatch.setattr("tilesegment.model.foreign.describing.find_geometry", lambda *_: geometry)
    tile = geometry.smallest_tile + geometry.alignment * data.draw(st.integers(0, 4))
    shape = [data.draw(st.integers(1, tile * 5 // 2)) for _ in "yx"]
    plane = random_pixels((int(network.arguments["in_channels"]), *shape), "uint8")
    model = opened(network, kind, tmp_path)
    predictor = Predictor(model.content, model.description, plane.dtype, "float32", "cpu")
    torch.set_num_threads(data.draw(st.integers(1, 2)))
    whole = whole_pass(predictor, plane, "logits")
    assert (by_tiles(predictor, plane, tile, "logits") == whole).all()


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_the_border_is_measured(kind: str, padding: str, tmp_path: Path) -> None:
    network = small_unet(padding=padding)
    found = opened(network, kind, tmp_path).description.geometry
    assert (found.halo, found.alignment, found.loss) == (
        network.geometry.halo, network.geometry.alignment, network.geometry.loss,
    )  # fmt: skip
