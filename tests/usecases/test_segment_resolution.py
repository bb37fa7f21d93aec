"""Runs at the resolution that the model was trained at, zarr to zarr."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tilesegment as ts
from tests.pictures import (
    balanced,
    load_predictor,
    random_pixels,
    whole_pass,
    whole_resampled_pass,
    write_image,
)
from tests.usecases.test_segment_exact import PROFILE
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import OutputConflictError
from tilesegment.geometry import YX
from tilesegment.model.file import save_model
from tilesegment.model.unet import UNet

MakeModel = Callable[..., Path]


def network_of(data: st.DataObject) -> UNet:
    torch.manual_seed(data.draw(st.integers(0, 3)))
    depth, padding = data.draw(st.integers(1, 2)), data.draw(st.sampled_from(["valid", "same"]))
    return balanced(UNet(2, 3, base_channels=4, depth=depth, padding=padding))


def labels_of(image: Path, level: int = 0) -> npt.NDArray[Any]:
    return zarr.open_array(image / "labels" / "model" / str(level), mode="r")[...]


@PROFILE
@given(data=st.data())
def test_resampled_tiles_equal_the_whole_image(
    data: st.DataObject, tmp_path: Path, two_workers: str
) -> None:
    network = network_of(data)
    trained_at = data.draw(st.floats(0.2, 1.8))
    model = save_model(network, tmp_path / "model.safetensors", pixel_size_um=trained_at)
    pixels = random_pixels((2, *(data.draw(st.integers(1, 300)) for _ in "yx")), "uint8")
    chunks = (data.draw(st.integers(1, 2)), *(data.draw(st.integers(20, 90)) for _ in "yx"))
    image = write_image(tmp_path / "image.zarr", pixels, chunks=chunks, levels=2)
    planned = ts.plan(image, model)
    alignment = network.geometry.alignment
    tile = planned.geometry.smallest_tile + alignment * data.draw(st.integers(0, 20))
    options = RunOptions(tile=tile, precision="float32")
    planned = ts.plan(image, model, options)
    ts.segment(image, model, options=options, cluster=ClusterOptions(two_workers), overwrite=True)
    level = planned.source.level
    predictor, plane = load_predictor(model, "uint8"), pixels[:, :: 2**level, :: 2**level]
    expected = (
        whole_pass(predictor, plane, "labels")
        if planned.resampling is None
        else whole_resampled_pass(predictor, plane, planned.resampling)
    )
    np.testing.assert_array_equal(labels_of(image, level), expected)


def test_several_regions_equal_the_whole_image(
    make_model: MakeModel, tmp_path: Path, two_workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilesegment.planning._LARGEST_REGION", YX(2, 2))
    pixels = random_pixels((3, 300, 250), "uint8")
    image = write_image(tmp_path / "image.zarr", pixels, chunks=(3, 64, 64))
    model = make_model()
    options = RunOptions(tile=64, precision="float32", pixel_size_um=0.7)
    planned = ts.plan(image, model, options)
    assert planned.regions == 6
    assert planned.resampling is not None
    ts.segment(image, model, options=options, cluster=ClusterOptions(two_workers))
    predictor = load_predictor(model, "uint8")
    expected = whole_resampled_pass(predictor, pixels, planned.resampling)
    np.testing.assert_array_equal(labels_of(image), expected)


def threshold(path: Path, pixel_size_um: float) -> Path:
    """A network whose second class is every pixel above one half; its border sees nothing."""
    network = UNet(1, 2, base_channels=1, depth=1, padding="same")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for path_ in (network.contracting[0], network.expansive[0]):
            for layer in path_:
                if isinstance(layer, nn.Conv2d):
                    layer.weight[0, 0, 1, 1] = 1
        network.head.weight[1] = 1
        network.head.bias[0] = 0.5
    return save_model(network, path / "model.safetensors", pixel_size_um=pixel_size_um)


def disc(shape: YX, centre_um: tuple[float, float], radius_um: float, size_um: float) -> Any:
    """255 inside, 0 outside; the image's corner is at 0 um."""
    y, x = ((np.arange(length) + 0.5) * size_um for length in shape)
    inside = np.hypot(y[:, None] - centre_um[0], x[None] - centre_um[1]) < radius_um
    return (255 * inside).astype("uint8")[None]


@pytest.mark.parametrize("trained_at", [0.2, 0.35, 0.5, 0.8, 1.0, 1.3, 2.9])
def test_labels_land_where_the_object_is(
    trained_at: float, tmp_path: Path, one_worker: str
) -> None:
    """A disc of known place, seen at another resolution, within half of the larger pixel."""
    centre, radius = (41.3, 58.9), 17.2
    pixels = disc(YX(200, 230), centre, radius, 0.5)
    image = write_image(tmp_path / "image.zarr", pixels)
    model = threshold(tmp_path, trained_at)
    options = RunOptions(precision="float32")
    ts.segment(image, model, options=options, cluster=ClusterOptions(one_worker))
    labels = labels_of(image)
    assert labels.shape == pixels.shape[1:]
    half = max(trained_at, 0.5) / 2
    found = np.nonzero(labels)
    for axis, (low, high) in enumerate(zip(np.min(found, 1), np.max(found, 1), strict=True)):
        assert (low + high + 1) / 2 * 0.5 == pytest.approx(centre[axis], abs=half)
        assert (high - low + 1) / 2 * 0.5 == pytest.approx(radius, abs=2 * half)


def test_every_level_is_written_with_the_images_transformations(
    make_model: MakeModel, tmp_path: Path, one_worker: str
) -> None:
    """The level that fits is segmented, finer ones repeat it, as with --level."""
    pixels = random_pixels((3, 150, 120), "uint8")
    image = write_image(tmp_path / "image.zarr", pixels, levels=3)
    options = RunOptions(tile=96, precision="float32", pixel_size_um=1.4)
    model = make_model()
    planned = ts.plan(image, model, options)
    assert (planned.source.level, planned.source.step) == (1, pytest.approx((1.4, 1.4)))
    ts.segment(image, model, options=options, cluster=ClusterOptions(one_worker))
    opened, labelled = ts.open_image(image), ts.open_image(image / "labels" / "model")
    assert [level.shape for level in labelled.levels] == [(150, 120), (75, 60), (38, 30)]
    for ours, theirs in zip(labelled.levels, opened.levels, strict=True):
        assert ours.scale == theirs.scale[1:]
    finer = labels_of(image, 1).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(labels_of(image, 0), finer)


def test_a_level_that_fits_gives_what_level_gives(
    make_model: MakeModel, tmp_path: Path, one_worker: str
) -> None:
    pixels = random_pixels((3, 150, 120), "uint8")
    image = write_image(tmp_path / "image.zarr", pixels, levels=3)
    model, cluster = make_model(), ClusterOptions(one_worker)
    fits = RunOptions(tile=32, precision="float32", pixel_size_um=1.05)
    ts.segment(image, model, options=fits, cluster=cluster)
    asked = RunOptions(level=1, tile=32, precision="float32")
    assert ts.segment(image, model, options=asked, cluster=cluster).status == "already complete"
    other = RunOptions(tile=96, precision="float32", pixel_size_um=1.5)
    with pytest.raises(OutputConflictError, match="resampled by: null there, .1.5, 1.5. now"):
        ts.segment(image, model, options=other, cluster=cluster)


def test_an_image_without_pixel_size_is_segmented_with_a_warning(
    tmp_path: Path, one_worker: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((1, 50, 50), "uint8"))
    group = zarr.open_group(image)
    ome = dict(group.attrs["ome"])
    for axis in ome["multiscales"][0]["axes"]:
        axis.pop("unit", None)
    group.attrs["ome"] = ome
    options = RunOptions(precision="float32")
    with caplog.at_level(logging.WARNING):
        ts.segment(
            image, threshold(tmp_path, 0.25), options=options, cluster=ClusterOptions(one_worker)
        )
    assert "level 0 is taken: the image states no pixel size" in caplog.text
