"""Work that need not be done: the labels are those of the whole image all the same."""

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
from tests.pictures import random_pixels, write_image
from tests.usecases.test_segment_exact import PROFILE, expected_labels, networks
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import InputError, OutputConflictError
from tilesegment.model.file import save_model
from tilesegment.storage.image import open_image
from tilesegment.storage.masks import read_mask
from tilesegment.tiling import Window
from tilesegment.usecases.job import RunSummary

MakeModel = Callable[..., Path]


def run(image: Path, model: Path, address: str, **options: Any) -> RunSummary:
    return ts.segment(
        image,
        model,
        options=RunOptions(precision="float32", **options),
        cluster=ClusterOptions(address),
        overwrite=True,
    )


def stored(image: Path) -> npt.NDArray[Any]:
    return zarr.open_array(image / "labels" / "model" / "0", mode="r")[...]


def store_mask(path: Path, wanted: npt.NDArray[Any]) -> Path:
    zarr.create_array(path, data=wanted.astype("uint8") * 7, overwrite=True)
    return path


@pytest.mark.parametrize("workers", ["one_worker", "two_workers"])
@PROFILE
@given(data=st.data())
def test_a_mask_turns_the_whole_image_to_background_pixel_by_pixel(
    data: st.DataObject, workers: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Whatever the tile, the chunks, the mask's resolution and the number of workers."""
    network = data.draw(networks(2))
    tile = network.geometry.smallest_tile + network.geometry.alignment * data.draw(
        st.integers(0, 3)
    )
    height, width = (data.draw(st.integers(1, tile * 5 // 2)) for _ in "yx")
    pixels = random_pixels((2, height, width), "uint8")
    chunk = data.draw(st.integers(9, 90))
    image = write_image(tmp_path / "image.zarr", pixels, chunks=(2, chunk, chunk))
    sizes = [data.draw(st.sampled_from([1, 3, size, 2 * size])) for size in (height, width)]
    share = data.draw(st.sampled_from([0.0, 0.1, 0.7]))
    wanted = np.random.default_rng(0).random(sizes) < share
    mask = store_mask(tmp_path / "mask.zarr", wanted)
    model = save_model(network, tmp_path / "model.safetensors")
    summary = run(image, model, request.getfixturevalue(workers), tile=tile, mask=str(mask))
    rows, columns = (
        np.minimum((np.arange(size) + 0.5) * many // size, many - 1).astype(int)
        for size, many in ((height, sizes[0]), (width, sizes[1]))
    )
    expected = np.where(wanted[rows[:, None], columns], expected_labels(model, pixels, "cyx"), 0)
    np.testing.assert_array_equal(stored(image), expected)
    assert summary.computed + summary.masked == summary.tiles
    assert share or not summary.computed


@PROFILE
@given(data=st.data())
def test_areas_of_one_value_equal_the_whole_image(
    data: st.DataObject, tmp_path: Path, one_worker: str
) -> None:
    network = data.draw(networks(2))
    tile = network.geometry.smallest_tile
    side = 4 * tile
    pixels = random_pixels((2, side, side), "uint8")
    values = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
    for number, value in enumerate(values):
        pixels[:, number * side // len(values) :, : data.draw(st.integers(0, side))] = [
            [[value]],
            [[5]],
        ]
    image = write_image(tmp_path / "image.zarr", pixels, chunks=(2, 50, 50))
    model = save_model(network, tmp_path / "model.safetensors")
    summary = run(image, model, one_worker, tile=tile)
    np.testing.assert_array_equal(stored(image), expected_labels(model, pixels, "cyx"))
    assert summary.computed + summary.reused == summary.tiles


def test_a_tile_of_one_value_is_computed_once(
    make_model: MakeModel, one_worker: str, tmp_path: Path
) -> None:
    """Of 36 tiles 25 see, with their halos, nothing of the noise in the last rows and columns."""
    pixels = np.full((3, 192, 192), 240, "uint8")
    pixels[:, 180:] = random_pixels((3, 12, 192), "uint8")
    pixels[:, :, 180:] = random_pixels((3, 192, 12), "uint8")
    image = write_image(tmp_path / "i.zarr", pixels, chunks=(3, 64, 64))
    summary = run(image, make_model(), one_worker, tile=32)
    assert (summary.tiles, summary.computed, summary.reused) == (36, 12, 24)


def test_absent_chunks_are_their_fill_value(
    make_model: MakeModel, one_worker: str, tmp_path: Path
) -> None:
    """Zarr does not store chunks that hold nothing but the fill value."""
    pixels = np.zeros((3, 192, 192), "uint8")
    pixels[:, :50, :50] = random_pixels((3, 50, 50), "uint8")
    image = write_image(tmp_path / "i.zarr", pixels, chunks=(3, 64, 64))
    assert len([path for path in (image / "0" / "c").rglob("*") if path.is_file()]) == 1
    model = make_model()
    summary = run(image, model, one_worker, tile=32)
    assert summary.reused > 20
    np.testing.assert_array_equal(stored(image), expected_labels(model, pixels, "cyx"))


def test_pixels_without_data_are_background(
    make_model: MakeModel, two_workers: str, tmp_path: Path
) -> None:
    """Where all channels hold the declared value; a single channel may hold it by chance."""
    pixels = random_pixels((3, 150, 130), "uint8")
    pixels[:, 40:, 30:] = 255
    pixels[0, :20] = 255
    image = write_image(tmp_path / "i.zarr", pixels)
    model = make_model()
    zarr.open_array(image / "0").attrs["_FillValue"] = 255
    summary = run(image, model, two_workers, tile=32)
    empty = (pixels == 255).all(axis=0)
    expected = np.where(empty, 0, expected_labels(model, pixels, "cyx"))
    np.testing.assert_array_equal(stored(image), expected)
    assert summary.masked == 3 * 4


def slide(path: Path) -> Path:
    """Glass with two pieces of tissue, three levels."""
    pixels = np.random.default_rng(0).integers(236, 245, (3, 600, 800), "uint8")
    pixels[:, 100:220, 100:300] = random_pixels((3, 120, 200), "uint8") // 2 + 60
    pixels[:, 400:500, 500:640] = random_pixels((3, 100, 140), "uint8") // 2 + 60
    return write_image(path, pixels, chunks=(3, 128, 128), levels=3)


@pytest.mark.parametrize(("tile", "cluster"), [(32, "one_worker"), (64, "two_workers")])
def test_tissue_is_segmented_and_glass_is_background(
    tile: int, cluster: str, make_model: MakeModel, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    image, model = slide(tmp_path / "i.zarr"), make_model()
    address = request.getfixturevalue(cluster)
    summary = run(image, model, address, tile=tile, mask="tissue")
    mask = read_mask("tissue", open_image(image), 0, halo=20)
    assert mask is not None
    wanted = mask.read(0, Window(0, 0, 600, 800))
    assert wanted[100:220, 100:300].all()
    assert wanted[400:500, 500:640].all()
    assert wanted.mean() < 0.25
    pixels = zarr.open_array(image / "0", mode="r")[...]
    expected = np.where(wanted, expected_labels(model, pixels, "cyx"), 0)
    np.testing.assert_array_equal(stored(image), expected)
    assert summary.masked == ts.plan(image, model, RunOptions(tile=tile, mask="tissue")).masked
    assert summary.masked > summary.tiles // 2


def test_another_mask_is_another_run(
    make_model: MakeModel, one_worker: str, tmp_path: Path
) -> None:
    image, model = slide(tmp_path / "i.zarr"), make_model()
    mask = store_mask(tmp_path / "mask.zarr", np.eye(5))
    run(image, model, one_worker, tile=64, mask=str(mask))
    options = RunOptions(tile=64, precision="float32", mask="tissue")
    with pytest.raises(OutputConflictError, match="mask: sha256:.* there, sha256:.* now"):
        ts.segment(image, model, options=options, cluster=ClusterOptions(one_worker))
    moved = store_mask(tmp_path / "moved.zarr", np.eye(5))
    options = RunOptions(tile=64, precision="float32", mask=str(moved))
    again = ts.segment(image, model, options=options, cluster=ClusterOptions(one_worker))
    assert again.status == "already complete"


def test_a_mask_that_is_not_there_is_one_line(
    make_model: MakeModel, one_worker: str, tmp_path: Path
) -> None:
    image = slide(tmp_path / "i.zarr")
    with pytest.raises(InputError, match="there is no mask at .*tisue; give none, tissue, or"):
        run(image, make_model(), one_worker, mask="tisue")
    assert not (image / "labels").exists()
