"""Probabilities beside the labels: as seamless, as durable, and as late to appear as those."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import tilesegment as ts
from tests.pictures import load_predictor, random_pixels, whole_pass, write_image
from tests.usecases.test_segment_exact import PROFILE, networks
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import OutputConflictError
from tilesegment.model.file import save_model
from tilesegment.storage.image import open_image
from tilesegment.storage.objects import LEDGER_NAME
from tilesegment.usecases.deep import check_objects

MakeModel = Callable[..., Path]
OPTIONS = RunOptions(tile=32, precision="float32", probabilities=True)


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(outputs, y, x) to (classes, y, x), by its definition; one channel is the foreground's."""
    logits = logits.astype(np.float64)
    if len(logits) == 1:
        logits = np.concatenate([np.zeros_like(logits), logits])
    weights = np.exp(logits - logits.max(0))
    return weights / weights.sum(0)


def stored(image: Path, level: int = 0) -> npt.NDArray[np.uint8]:
    where = image / "labels" / "model" / "probabilities" / str(level)
    return zarr.open_array(where, mode="r")[...]


def whole(model: Path, plane: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The definition: one pass over the whole plane."""
    predictor = load_predictor(model, str(plane.dtype), probabilities=True)
    return whole_pass(predictor, plane, "probabilities")


@PROFILE
@given(data=st.data())
def test_probabilities_equal_the_whole_image(
    data: st.DataObject, tmp_path: Path, two_workers: str
) -> None:
    axes = data.draw(st.sampled_from(["cyx", "yx", "zyx", "tczyx"]))
    version = data.draw(st.sampled_from(["0.5", "0.4"]))
    channels = data.draw(st.integers(1, 3)) if "c" in axes else 1
    network = data.draw(networks(channels))
    geometry = network.geometry
    tile = geometry.smallest_tile + geometry.alignment * data.draw(st.integers(0, 3))
    lengths = {"t": 2, "z": data.draw(st.integers(1, 2)), "c": channels}
    largest = tile * 5 // 2 if len(axes) < 4 else tile
    shape = [
        lengths[axis] if axis in lengths else data.draw(st.integers(1, largest)) for axis in axes
    ]
    pixels = random_pixels(shape, data.draw(st.sampled_from(["uint8", "float32"])))
    chunks = [1 if axis in lengths else data.draw(st.integers(5, 90)) for axis in axes]
    image = write_image(tmp_path / "image.zarr", pixels, axes, chunks=chunks, version=version)
    model = save_model(network, tmp_path / "model.safetensors")
    options = RunOptions(tile=tile, precision="float32", probabilities=True)
    ts.segment(image, model, options=options, cluster=ClusterOptions(two_workers), overwrite=True)
    found = open_image(image / "labels" / "model" / "probabilities")
    channels_late = np.moveaxis(pixels, axes.index("c"), -3) if "c" in axes else pixels
    planes = channels_late.reshape(-1, channels, *shape[-2:])
    for plane, part in enumerate(planes):
        inside = found.pixels(0).stored(plane, 0, shape[-2], 0, shape[-1])
        np.testing.assert_array_equal(inside, whole(model, part))


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_probabilities_are_the_softmax_in_steps_of_1_255(
    outputs: int, make_model: MakeModel
) -> None:
    model = make_model(classes=outputs)
    pixels = random_pixels((3, 60, 50), "uint8")
    logits = whole_pass(load_predictor(model, "uint8"), pixels, "logits")
    found = whole(model, pixels)
    assert (found.shape[0], found.dtype) == (max(outputs, 2), np.uint8)
    assert np.abs(found / 255 - softmax(logits)).max() <= 0.5 / 255 + 1e-6


def test_they_are_an_image_of_their_own_on_the_images_grid(
    make_model: MakeModel, tmp_path: Path, one_worker: str
) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 75, 101), "uint8"), levels=3)
    ts.segment(image, make_model(), options=OPTIONS, cluster=ClusterOptions(one_worker))
    ours, theirs = open_image(image / "labels" / "model" / "probabilities"), open_image(image)
    assert ours.pixel_sizes_um == theirs.pixel_sizes_um
    for mine, level in zip(ours.levels, theirs.levels, strict=True):
        assert (mine.shape[-2:], mine.translation) == (level.shape[-2:], level.translation)
    for program in ("ome-zarr-models", "ome-zarr-io"):
        for location in (image, ours.location):
            command = [Path(sys.executable).with_name(program), "validate", location]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stdout + result.stderr
    channels = ours.group.attrs["ome"]["omero"]["channels"]
    assert [item["label"] for item in channels] == ["background", "class 1", "class 2"]
    fine, coarse = stored(image).astype(float), stored(image, 1)
    means = fine[:, :74, :100].reshape(3, 37, 2, 50, 2).mean(axis=(2, 4))
    np.testing.assert_array_equal(coarse[:, :37, :50], np.floor(means + 0.5))


def test_an_unwanted_pixel_has_no_probabilities(
    make_model: MakeModel, tmp_path: Path, one_worker: str
) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 75, 101), "uint8"))
    wanted = np.zeros((75, 101), bool)
    wanted[:20, 40:90] = True
    array = zarr.create_array(tmp_path / "mask.zarr", shape=wanted.shape, dtype="bool")
    array[...] = wanted
    options = RunOptions(
        tile=32, precision="float32", probabilities=True, mask=str(tmp_path / "mask.zarr")
    )
    ts.segment(image, make_model(), options=options, cluster=ClusterOptions(one_worker))
    np.testing.assert_array_equal(stored(image).any(axis=0), wanted)


def test_a_resumed_run_completes_both(
    make_model: MakeModel, tmp_path: Path, one_worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 75, 101), "uint8"))
    model, cluster = make_model(), ClusterOptions(one_worker)

    class Enough(Exception):  # noqa: N818
        pass

    def stop(progress: Any) -> None:
        if progress.phase == "tiles" and progress.done >= 5:
            raise Enough

    with pytest.raises(Enough):
        ts.segment(image, model, options=OPTIONS, cluster=cluster, report=stop)
    labels = image / "labels" / "model"
    assert (labels / LEDGER_NAME).exists()
    assert not list(labels.rglob("zarr.json")), "metadata of an unfinished run"
    lost = next(path for path in (labels / "probabilities").rglob("*") if path.is_file())
    lost.unlink()
    summary = ts.segment(image, model, options=OPTIONS, cluster=cluster)
    assert 0 < summary.skipped < summary.tiles
    np.testing.assert_array_equal(stored(image), whole(model, random_pixels((3, 75, 101), "uint8")))
    assert ts.segment(image, model, options=OPTIONS, cluster=cluster).status == "already complete"
    plain = RunOptions(tile=32, precision="float32")
    with pytest.raises(OutputConflictError, match="probabilities: true there, null now"):
        ts.segment(image, model, options=plain, cluster=cluster)


def test_damage_is_found_and_repaired(
    make_model: MakeModel, tmp_path: Path, one_worker: str
) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 75, 101), "uint8"), levels=2)
    model, cluster = make_model(), ClusterOptions(one_worker)
    ts.segment(image, model, options=OPTIONS, cluster=cluster)
    labels = image / "labels" / "model"
    victims = sorted(path for path in (labels / "probabilities").rglob("c/*/*/*"))
    assert len(victims) == 12 + 4
    before = [path.read_bytes() for path in victims]
    victims[3].unlink()
    victims[-1].write_bytes(before[-1][:-1] + b"x")
    (labels / "probabilities" / "zarr.json").write_text("{}")
    damaged = {item.key for item in check_objects(labels).damaged}
    expected = {victims[3], victims[-1], labels / "probabilities" / "zarr.json"}
    assert damaged == {path.relative_to(labels).as_posix() for path in expected}
    ts.repair(image, model, options=OPTIONS, cluster=cluster)
    assert check_objects(labels).damaged == ()
    assert [path.read_bytes() for path in victims] == before
