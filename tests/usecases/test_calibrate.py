"""From an image to a model that computes in 8-bit integers, and to labels by it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

import tilesegment as ts
from tests.pictures import load_predictor, random_pixels, whole_pass, write_image
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import OptionError, OutputError
from tilesegment.model.file import load_model, read_description
from tilesegment.model.quantise import can_quantise

MakeModel = Callable[..., Path]

pytestmark = pytest.mark.skipif(not can_quantise(), reason="this CPU has no VNNI")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = random_pixels((3, 200, 170), "uint8")
    return write_image(tmp_path / "i.zarr", pixels, chunks=(3, 48, 48))


def test_tiles_in_integers_equal_the_whole_image(
    image: Path, make_model: MakeModel, tmp_path: Path, two_workers: str
) -> None:
    found = ts.calibrate(make_model(), [image], tmp_path / "m8.safetensors", windows=1)
    assert found.windows == 1
    assert 0 <= found.changed_labels < 0.3
    summary = ts.segment(
        image,
        found.model,
        options=RunOptions(tile=48, precision="int8"),
        cluster=ClusterOptions(two_workers),
    )
    labels = zarr.open_array(Path(summary.labels) / "0", mode="r")[...]
    predictor = load_predictor(Path(found.model), "uint8", precision="int8")
    pixels = zarr.open_array(image / "0", mode="r")[...]
    np.testing.assert_array_equal(labels, whole_pass(predictor, np.asarray(pixels), "labels"))
    checked = ts.verify(image, "m8", cluster=ClusterOptions(two_workers))
    assert checked.differing_labels == 0


def test_the_weights_and_all_else_stay(image: Path, make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    ts.calibrate(model, [image], tmp_path / "m8.safetensors", windows=1)
    before, after = (load_model(path).state_dict() for path in (model, tmp_path / "m8.safetensors"))
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert len(read_description(tmp_path / "m8.safetensors").ranges) == 2 * (3 + 2) + 2


def test_what_cannot_be_calibrated_is_refused(
    image: Path, make_model: MakeModel, tmp_path: Path
) -> None:
    model, out = make_model(), tmp_path / "m8.safetensors"
    words = write_image(tmp_path / "w.zarr", random_pixels((3, 90, 90), "uint16"))
    with pytest.raises(OptionError, match="several types of pixels"):
        ts.calibrate(model, [image, words], out)
    with pytest.raises(OptionError, match="ends in .safetensors"):
        ts.calibrate(model, [image], tmp_path / "m8.pt")
    with pytest.raises(OptionError, match="no model of tilesegment"):
        ts.calibrate("torch.nn:Identity", [image], out)
    out.write_bytes(b"")
    with pytest.raises(OutputError, match="exists already"):
        ts.calibrate(model, [image], out)
