"""Tiles against one pass over the whole image, without dask: the heart of the project."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pictures import calibrated, load_predictor, random_pixels, whole_pass
from tilesegment.geometry import YX
from tilesegment.model.file import Normalisation, load_model, save_model
from tilesegment.model.predictor import Predictor
from tilesegment.model.quantise import can_quantise
from tilesegment.model.unet import UNet
from tilesegment.tiling import TileGrid, mirrored_positions

MakeModel = Callable[..., Path]

PRECISIONS = ["float32", "int8"] if can_quantise() else ["float32"]


def mirrored(plane: npt.NDArray[Any], y: int, x: int, height: int, width: int) -> npt.NDArray[Any]:
    rows = mirrored_positions(y, y + height, plane.shape[-2])
    columns = mirrored_positions(x, x + width, plane.shape[-1])
    return plane[:, rows[:, None], columns[None, :]]


def by_tiles(
    predictor: Predictor,
    plane: npt.NDArray[Any],
    tile: int,
    what: str,
    *,
    shift: int = 0,
    change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = lambda pixels: pixels,
) -> npt.NDArray[Any]:
    """Tiles put together; `shift` and `change` plant faults."""
    grid = TileGrid(YX(*plane.shape[-2:]), 1, tile)
    result: npt.NDArray[Any] | None = None
    for item in grid.tiles():
        read = grid.read_window(item, predictor.geometry.halo)
        pixels = mirrored(plane, read.y - shift, read.x - shift, read.height, read.width)
        part = getattr(predictor, what)(change(pixels))[..., shift:, shift:]
        write = grid.write_window(item)
        if result is None:
            result = np.zeros((*part.shape[:-2], *plane.shape[-2:]), part.dtype)
        rows, columns = write.slices
        part = part[..., : write.height, : write.width]
        # A planted fault may leave a part too small.
        height, width = part.shape[-2:]
        result[..., rows.start :, columns.start :][..., :height, :width] = part
    assert result is not None
    return result


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_tiles_equal_the_whole_image_in_every_logit(data: st.DataObject, tmp_path: Path) -> None:
    """For any network, picture, tile size and precision, in any number of threads."""
    network = UNet(
        in_channels := data.draw(st.integers(1, 4)),
        data.draw(st.sampled_from([1, 2, 3, 6])),
        base_channels=data.draw(st.sampled_from([1, 3, 4, 8, 16])),
        depth=data.draw(st.integers(1, 4)),
        padding=data.draw(st.sampled_from(["valid", "same"])),
        upsampling=data.draw(st.sampled_from(["transposed", "interpolate"])),
        batch_norm=data.draw(st.booleans()),
    )
    geometry = network.geometry
    tile = geometry.smallest_tile + geometry.alignment * data.draw(st.integers(0, 4))
    shape = [data.draw(st.integers(1, tile * 5 // 2)) for _ in "yx"]
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "float32"]))
    plane = random_pixels((in_channels, *shape), dtype)
    average = data.draw(st.sampled_from([1, 1, 2, 8]))
    model = calibrated(save_model(network, tmp_path / "model.safetensors"))
    precision = data.draw(st.sampled_from(PRECISIONS))
    predictor = load_predictor(model, dtype, average, precision=precision)
    torch.set_num_threads(data.draw(st.integers(1, 2)))
    whole = whole_pass(predictor, plane, "logits")
    torch.set_num_threads(data.draw(st.integers(1, 2)))
    np.testing.assert_array_equal(by_tiles(predictor, plane, tile, "logits"), whole)


FAULTS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "halo one pixel short, valid": ("valid", 1, {}),
    "halo one pixel short, same": ("same", 1, {}),
    "halo one alignment short": ("same", 4, {}),
    "origin off the pooling grid": ("valid", 0, {"shift": 1}),
    "tile normalised by itself": ("valid", 0, {"change": lambda pixels: pixels - pixels.min()}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(
    fault: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    padding, short, how = FAULTS[fault]
    predictor = load_predictor(make_model(padding=padding), "uint8")
    plane = random_pixels((3, 150, 170), "uint8") // 2 + 9
    plane[:, :70] += 40
    whole = whole_pass(predictor, plane, "labels")
    assert np.array_equal(by_tiles(predictor, plane, 64, "labels"), whole)
    halo = predictor.geometry.halo - short
    monkeypatch.setattr(type(predictor.geometry), "halo", property(lambda _: halo))
    assert not np.array_equal(by_tiles(predictor, plane, 64, "labels", **how), whole)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("upsampling", ["transposed", "interpolate"])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_the_network_of_a_run_computes_what_the_plain_one_does(
    padding: str,
    upsampling: str,
    batch_norm: bool,
    fused: bool,
    make_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fused on a CPU; on a GPU only without what it need not compute."""
    if not fused:
        monkeypatch.setattr("tilesegment.model.predictor.can_fuse", lambda: False)
    model = make_model(padding=padding, upsampling=upsampling, batch_norm=batch_norm, depth=3)
    predictor = load_predictor(model, "float32")
    side = predictor.geometry.input_size(64)
    pixels = random_pixels((3, side, side), "float32")
    crop = predictor.geometry.crop
    with torch.inference_mode():
        plain = load_model(model)(torch.from_numpy(pixels)[None])[0, :, crop:, crop:].numpy()
    np.testing.assert_allclose(
        predictor.logits(pixels), plain[:, :64, :64], rtol=0, atol=1e-5 * np.abs(plain).max()
    )


def test_one_output_channel_is_a_sigmoid_at_one_half(make_model: MakeModel) -> None:
    predictor = load_predictor(make_model(classes=1), "uint8")
    pixels = random_pixels((3, *[predictor.geometry.input_size(48)] * 2), "uint8")
    foreground = predictor.logits(pixels)[0] > 0
    assert 0 < foreground.mean() < 1
    np.testing.assert_array_equal(predictor.labels(pixels), foreground)


def test_labels_are_the_values_of_the_largest_logit(make_model: MakeModel) -> None:
    predictor = load_predictor(make_model(classes=5), "uint8")
    pixels = random_pixels((3, *[predictor.geometry.input_size(48)] * 2), "uint8")
    labels = predictor.labels(pixels)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, predictor.logits(pixels).argmax(axis=0))


def test_integers_are_divided_by_the_largest_of_their_type(make_model: MakeModel) -> None:
    model = make_model()
    side = load_predictor(model, "uint8").geometry.input_size(32)
    bytes_ = random_pixels((3, side, side), "uint8")
    words = bytes_.astype("uint16") * 257
    floats = bytes_.astype("float32") / np.float32(255)
    expected = load_predictor(model, "uint8").logits(bytes_)
    for pixels in (words, floats, words.astype(">u2")):
        logits = load_predictor(model, str(pixels.dtype)).logits(pixels)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_normalisation_is_per_channel(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = UNet(2, 2, base_channels=4, depth=1)
    statistics = Normalisation(mean=(0.5, 0.25), deviation=(0.5, 2.0))
    model = save_model(network, tmp_path / "m.safetensors", normalisation=statistics)
    side = network.geometry.input_size(16)
    pixels = random_pixels((2, side, side), "float32")
    by_hand = np.stack([(pixels[0] - 0.5) / 0.5, (pixels[1] - 0.25) / 2]).astype("float32")
    plain = load_predictor(save_model(network, tmp_path / "p.safetensors"), "float32")
    np.testing.assert_allclose(
        load_predictor(model, "float32").logits(pixels), plain.logits(by_hand), rtol=0, atol=1e-5
    )


def test_the_pixels_are_left_as_they_were(make_model: MakeModel) -> None:
    """Dask shows the same array again when a worker with the labels is lost."""
    predictor = load_predictor(
        save_model(
            load_model(make_model()), make_model(), normalisation=Normalisation((0.5,), (2.0,))
        ),
        "float32",
    )
    pixels = random_pixels((3, *[predictor.geometry.input_size(32)] * 2), "float32")
    before = pixels.copy()
    first = predictor.labels(pixels)
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(predictor.labels(pixels), first)
