"""The whole path, zarr to zarr on running workers, against one pass over the whole image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tilesegment as ts
from tests.pictures import balanced, load_predictor, random_pixels, whole_pass, write_image
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import OptionError, OutputConflictError
from tilesegment.geometry import YX
from tilesegment.model.file import save_model
from tilesegment.model.unet import UNet
from tilesegment.storage.ledger import read_records

MakeModel = Callable[..., Path]

PROFILE = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def expected_labels(
    model: Path, pixels: npt.NDArray[Any], axes: str, average: int = 1
) -> npt.NDArray[Any]:
    """One pass over each plane; axes of the result are those of the image without c."""
    predictor = load_predictor(model, str(pixels.dtype), average)
    channels_last = pixels if "c" in axes else pixels[..., None, :, :]
    if "c" in axes:
        channels_last = np.moveaxis(pixels, axes.index("c"), -3)
    leading = channels_last.shape[:-3]
    planes = [
        whole_pass(predictor, plane, "labels")
        for plane in channels_last.reshape(-1, *channels_last.shape[-3:])
    ]
    return np.stack(planes).reshape(*leading, *planes[0].shape)


@st.composite
def networks(draw: st.DrawFn, in_channels: int) -> UNet:
    torch.manual_seed(draw(st.integers(0, 3)))
    network = UNet(
        in_channels,
        draw(st.sampled_from([1, 2, 5])),
        base_channels=draw(st.sampled_from([2, 8])),
        depth=draw(st.integers(1, 3)),
        padding=draw(st.sampled_from(["valid", "same"])),
    )
    return balanced(network)


def check(data: st.DataObject, tmp_path: Path, cluster: str) -> None:
    axes = data.draw(st.sampled_from(["cyx", "yx", "zyx", "tczyx", "czyx"]))
    version = data.draw(st.sampled_from(["0.5", "0.4"]))
    in_channels = data.draw(st.integers(1, 3)) if "c" in axes else 1
    network = data.draw(networks(in_channels))
    geometry = network.geometry
    tile = geometry.smallest_tile + geometry.alignment * data.draw(st.integers(0, 3))
    lengths = {"t": 1, "z": data.draw(st.integers(1, 2)), "c": in_channels}
    largest = tile * 5 // 2 if len(axes) < 4 else tile
    shape = [
        lengths[axis] if axis in lengths else data.draw(st.integers(1, largest)) for axis in axes
    ]
    pixels = random_pixels(shape, data.draw(st.sampled_from(["uint8", "uint16", "float32"])))
    chunks = [
        data.draw(st.integers(1, 2)) if axis in lengths else data.draw(st.integers(5, 90))
        for axis in axes
    ]
    shards = None
    if version == "0.5" and data.draw(st.booleans()):
        shards = [size * data.draw(st.integers(1, 3)) for size in chunks]
    image = write_image(
        tmp_path / "image.zarr", pixels, axes, chunks=chunks, shards=shards, version=version
    )
    model = save_model(network, tmp_path / "model.safetensors")
    ts.segment(
        image,
        model,
        options=RunOptions(tile=tile, precision="float32"),
        cluster=ClusterOptions(cluster, feed=data.draw(st.sampled_from(["overlap", "tile"]))),
        overwrite=True,
    )
    labels = zarr.open_array(image / "labels" / "model" / "0", mode="r")
    np.testing.assert_array_equal(labels[...], expected_labels(model, pixels, axes))


@PROFILE
@given(data=st.data())
def test_labels_equal_the_whole_image_with_one_worker(
    data: st.DataObject, tmp_path: Path, one_worker: str
) -> None:
    check(data, tmp_path, one_worker)


@PROFILE
@given(data=st.data())
def test_labels_equal_the_whole_image_with_two_workers(
    data: st.DataObject, tmp_path: Path, two_workers: str
) -> None:
    check(data, tmp_path, two_workers)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_several_regions_equal_the_whole_image(
    padding: str, tmp_path: Path, two_workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles at the rim of a region find their halo in the next region's pixels."""
    monkeypatch.setattr("tilesegment.planning._LARGEST_REGION", YX(2, 3))
    torch.manual_seed(0)
    network = balanced(UNet(3, 3, base_channels=4, depth=2, padding=padding))
    model = save_model(network, tmp_path / "model.safetensors")
    pixels = random_pixels((3, 5 * 32 + 7, 3 * 32 + 1), "uint8")
    image = write_image(tmp_path / "image.zarr", pixels, chunks=(3, 50, 41))
    options = RunOptions(tile=32, precision="float32")
    assert ts.plan(image, model, options).regions == 6
    ts.segment(image, model, options=options, cluster=ClusterOptions(two_workers))
    labels = zarr.open_array(image / "labels" / "model" / "0", mode="r")
    np.testing.assert_array_equal(labels[...], expected_labels(model, pixels, "cyx"))


def test_a_region_is_finished_before_the_next_one(
    make_model: MakeModel, tmp_path: Path, one_worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read of a region waits in memory until it is finished."""
    monkeypatch.setattr("tilesegment.planning._LARGEST_REGION", YX(8, 8))
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 256, 768), "uint8"))
    options, cluster = RunOptions(tile=32, precision="float32"), ClusterOptions(one_worker)
    ts.segment(image, make_model(), options=options, cluster=cluster, keep_ledger=True)
    (ledger,) = tmp_path.rglob("tiles-0001.jsonl")
    # 24 tiles in a row, of which 8 belong to one region.
    regions = [item.number % 24 // 8 for item in read_records(ledger) if item.level == 0]
    assert len(regions) == 192
    for region in (0, 1):
        last = max(position for position, found in enumerate(regions) if found == region)
        assert sum(found > region for found in regions[:last]) <= 8


def test_averaged_views_equal_the_whole_image_seen_in_the_same_views(
    tmp_path: Path, two_workers: str
) -> None:
    """Ronneberger et al. 2015, section 4: "averaged over 7 rotated versions of the input data"."""
    torch.manual_seed(0)
    model = save_model(
        balanced(UNet(3, 3, base_channels=4, depth=2)), tmp_path / "model.safetensors"
    )
    pixels = random_pixels((3, 75, 101), "uint8")
    image = write_image(tmp_path / "image.zarr", pixels, chunks=(3, 50, 41))
    expected = expected_labels(model, pixels, "cyx", average=7)
    assert not np.array_equal(expected, expected_labels(model, pixels, "cyx"))
    options = RunOptions(tile=32, precision="float32", average=7)
    ts.segment(image, model, options=options, cluster=ClusterOptions(two_workers))
    labels = zarr.open_array(image / "labels" / "model" / "0", mode="r")
    np.testing.assert_array_equal(labels[...], expected)
    with pytest.raises(OutputConflictError, match="average"):
        ts.segment(image, model, cluster=ClusterOptions(two_workers))


@pytest.mark.parametrize("average", [0, 9])
def test_there_are_eight_views(average: int, tmp_path: Path, make_model: MakeModel) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 40, 40), "uint8"))
    with pytest.raises(OptionError, match="there are 8"):
        ts.plan(image, make_model(), RunOptions(average=average))


def test_the_plan_counts_every_view(tmp_path: Path, make_model: MakeModel) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 40, 40), "uint8"))
    once, averaged = (ts.plan(image, make_model(), RunOptions(average=n)) for n in (1, 4))
    assert averaged.compute_amplification == 4 * once.compute_amplification
