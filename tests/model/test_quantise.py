"""The network in 8-bit integers, beside the same network in float32."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tests.pictures import calibrated, load_predictor
from tilesegment.errors import ModelError, OptionError
from tilesegment.model import predictor as predicting
from tilesegment.model.file import read_description, save_with_ranges
from tilesegment.model.predictor import choose_precision
from tilesegment.model.quantise import _Steps, can_quantise

MakeModel = Callable[..., Path]

pytestmark = pytest.mark.skipif(not can_quantise(), reason="this CPU has no VNNI")


@pytest.fixture
def picture() -> np.ndarray:
    """Blobs, like real pictures smoother than noise."""
    noise = np.random.default_rng(0).standard_normal((3, 300, 300))
    return np.clip(128 + 500 * ndimage.gaussian_filter(noise, (0, 4, 4)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("upsampling", ["transposed", "interpolate"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_it_computes_about_what_float32_does(
    padding: str, upsampling: str, batch_norm: bool, make_model: MakeModel, picture: np.ndarray
) -> None:
    model = make_model(padding=padding, upsampling=upsampling, batch_norm=batch_norm)
    calibrated(model)
    exact = load_predictor(model, "uint8")
    side = exact.geometry.input_size(128)
    pixels = picture[:, :side, :side]
    wanted = exact.logits(pixels)
    spread = wanted.std()
    by_bytes = load_predictor(model, "uint8", precision="int8").logits(pixels)
    assert np.abs(by_bytes - wanted).mean() < 0.1 * spread
    # Other types of pixels enter the first convolution in float32.
    words = pixels.astype(np.uint16) * 257
    by_words = load_predictor(model, "uint16", precision="int8").logits(words)
    assert np.abs(by_words - wanted).mean() < 0.1 * spread


@pytest.mark.parametrize(("low", "high"), [(0.0, 5.1), (-2.0, 3.0), (-0.001, 8.0), (0.0, 1e-3)])
def test_zero_is_one_of_the_steps(low: float, high: float) -> None:
    steps = _Steps((low, high))
    assert 0 <= steps.zero <= 255
    assert steps.zero == 0 or (0 - steps.zero) * steps.scale == pytest.approx(low, abs=steps.scale)
    assert (255 - steps.zero) * steps.scale == pytest.approx(high, abs=steps.scale)


def test_joined_maps_share_their_steps() -> None:
    joined = _Steps((0.0, 9.0), (-3.0, 4.0))
    assert (joined.scale, joined.zero) == (12 / 255, 64)


def test_a_model_without_ranges_is_refused(make_model: MakeModel) -> None:
    model = make_model()
    with pytest.raises(OptionError, match="tilesegment calibrate MODEL IMAGE"):
        read_description(model).precision("int8")
    assert read_description(calibrated(model)).precision("int8") == "int8"


@pytest.mark.parametrize("fault", ["missing", "not finite", "upside down"])
def test_damaged_ranges_are_told_before_any_tile(fault: str, make_model: MakeModel) -> None:
    model = calibrated(make_model())
    ranges = dict(read_description(model).ranges)
    low, high = ranges.pop("up.0")
    if fault != "missing":
        ranges["up.0"] = (low, float("inf")) if fault == "not finite" else (high, low)
    save_with_ranges(model.read_bytes(), ranges, model)
    with pytest.raises(ModelError, match="damaged description .*range"):
        read_description(model)


def test_a_device_without_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="for CPUs"):
        choose_precision("int8", "cuda")
    monkeypatch.setattr(predicting, "can_quantise", lambda: False)
    with pytest.raises(OptionError, match="this CPU cannot compute in int8"):
        choose_precision("int8", "cpu")
