"""What a worker computes, and what it need not."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, current_thread
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pytest
import torch
from distributed import LocalCluster

import tilesegment as ts
from tests.pictures import levels, load_predictor, random_pixels, whole_pass, write_image
from tilesegment.config import ClusterOptions, Feed, RunOptions
from tilesegment.execution.cluster import SETTINGS
from tilesegment.execution.worker import ModelPlugin, WorkerModel, in_parts
from tilesegment.model.file import read_description
from tilesegment.model.predictor import Predictor, TileClasses
from tilesegment.model.transfers import Transfers
from tilesegment.refinement import CRF, Refinement, Smoothing

MakeModel = Callable[..., Path]
TILE = 32


@pytest.fixture
def make_plugin(make_model: MakeModel) -> Callable[..., ModelPlugin]:
    """A plugin that holds a model already."""

    def make(nodata: float | None = None) -> ModelPlugin:
        path = make_model()
        model = WorkerModel(
            path.read_bytes(),
            read_description(path),
            np.dtype("uint8"),
            "float32",
            "cpu",
            1,
            nodata=nodata,
        )
        plugin = ModelPlugin("model", model)
        loaded: Future[Predictor] = Future()
        loaded.set_result(load_predictor(path, "uint8"))
        plugin._predictor = loaded
        return plugin

    return make


def tile(*values: int) -> npt.NDArray[np.uint8]:
    """A haloed tile of one value per channel."""
    side = TILE + 2 * 20
    return np.broadcast_to(np.array(values, "uint8")[:, None, None], (3, side, side)).copy()


def test_a_tile_of_one_value_per_channel_is_computed_once(
    make_plugin: Callable[..., ModelPlugin],
) -> None:
    plugin = make_plugin()
    first, again = plugin.predict(tile(7, 8, 9)), plugin.predict(tile(7, 8, 9))
    assert (first.work, again.work) == ("computed", "reused")
    np.testing.assert_array_equal(again.labels, plugin.predictor.labels(tile(7, 8, 9)))
    assert plugin.predict(tile(9, 8, 7)).work == "computed"


@pytest.mark.parametrize("place", [(0, 0, 0), (2, 71, 71), (1, 30, 40)])
def test_one_other_pixel_makes_another_tile(
    place: tuple[int, int, int], make_plugin: Callable[..., ModelPlugin]
) -> None:
    plugin = make_plugin()
    plugin.predict(tile(7, 8, 9))
    pixels = tile(7, 8, 9)
    pixels[place] += 1
    prediction = plugin.predict(pixels)
    assert prediction.work == "computed"
    np.testing.assert_array_equal(prediction.labels, plugin.predictor.labels(pixels))


def test_few_values_are_remembered(make_plugin: Callable[..., ModelPlugin]) -> None:
    plugin = make_plugin()
    for value in range(20):
        plugin.predict(tile(value, 0, 0))
    assert len(plugin._constants) == 8
    assert plugin.predict(tile(19, 0, 0)).work == "reused"
    assert plugin.predict(tile(0, 0, 0)).work == "computed"


def test_pixels_without_data_are_background_in_the_middle_of_a_tile(
    make_plugin: Callable[..., ModelPlugin],
) -> None:
    plugin = make_plugin(nodata=255)
    pixels = random_pixels((3, 72, 72), "uint8") // 2
    pixels[:, 30:50, 25:40] = 255
    pixels[0, :25] = 255
    prediction = plugin.predict(pixels)
    empty = np.zeros((TILE, TILE), bool)
    empty[10:30, 5:20] = True
    assert prediction.work == "computed"
    expected = np.where(empty, 0, plugin.predictor.labels(pixels))
    np.testing.assert_array_equal(prediction.labels, expected)


def test_a_tile_without_data_is_not_computed(
    make_plugin: Callable[..., ModelPlugin], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = make_plugin(nodata=255)
    pixels = random_pixels((3, 72, 72), "uint8")
    pixels[:, 20:52, 20:52] = 255
    monkeypatch.setattr(Predictor, "classify", None)
    prediction = plugin.predict(pixels)
    assert prediction.work == "masked"
    assert prediction.labels.dtype == np.uint8
    assert prediction.labels.shape == (TILE, TILE)
    assert not prediction.labels.any()


def _no_memory_of_cuda() -> Exception:
    error = torch.AcceleratorError("CUDA error: out of memory")
    error.error_code = 2  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("planted"),
        _no_memory_of_cuda(),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_a_tile_for_which_a_gpu_lacks_memory_is_predicted_in_pieces(
    error: Exception, make_plugin: Callable[..., ModelPlugin], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = make_plugin()
    pixels = random_pixels((3, 64 + 40, 64 + 40), "uint8")
    expected = plugin.predictor.labels(pixels)
    sides = _fail_on_gpu(plugin, monkeypatch, error, largest=64 - 1)
    np.testing.assert_array_equal(plugin.predict(pixels).labels, expected)
    assert sides == [64, 32, 32, 32, 32]
    plugin.predict(np.flip(pixels, 1).copy())
    assert sides == [64] + 8 * [32]


def test_an_error_of_the_network_itself_is_told_as_it_is(
    make_plugin: Callable[..., ModelPlugin], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = make_plugin()
    pixels = random_pixels((3, 64 + 40, 64 + 40), "uint8")
    sides = _fail_on_gpu(plugin, monkeypatch, RuntimeError("planted"), largest=0)
    with pytest.raises(RuntimeError, match="planted"):
        plugin.predict(pixels)
    assert len(sides) > 1
    # Larger tiles are tried again: it was none of memory.
    assert plugin._parts == 1
    sides.clear()
    monkeypatch.setattr(plugin.predictor, "device", "cpu")
    with pytest.raises(RuntimeError, match="planted"):
        plugin.predict(pixels)
    assert sides == [64]


def _fail_on_gpu(
    plugin: ModelPlugin, monkeypatch: pytest.MonkeyPatch, error: Exception, largest: int
) -> list[int]:
    """Let the predictor, as that of a GPU, fail above a size; gives all sizes that it is shown."""
    classify, sides = plugin.predictor.classify, []

    def failing(pixels: npt.NDArray[Any], *given: Any) -> TileClasses:
        sides.append(pixels.shape[-1] - 2 * plugin.predictor.geometry.halo)
        if sides[-1] > largest:
            raise error
        return classify(pixels, *given)

    monkeypatch.setattr(plugin.predictor, "device", "cuda")
    monkeypatch.setattr(plugin.predictor, "classify", failing)
    return sides


@pytest.mark.parametrize("parts", [2, 3])
def test_pieces_of_a_tile_have_its_refined_probabilities(parts: int, make_model: MakeModel) -> None:
    predictor = load_predictor(
        make_model(),
        "uint8",
        probabilities=True,
        refinement=Refinement(Smoothing(0.7), CRF(0.1), ((1, 0.4),)),
    )
    side = 64 + 2 * predictor.geometry.halo
    pixels = random_pixels((3, side, side), "uint8")
    whole, pieces = predictor.classify(pixels), in_parts(predictor, pixels, parts)
    np.testing.assert_array_equal(pieces.labels, whole.labels)
    np.testing.assert_array_equal(pieces.probabilities, whole.probabilities)


def test_threads_share_a_device_that_computes_one_tile_at_a_time(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = load_predictor(make_model(), "uint8")
    compute, both_are_here = predictor._compute, Barrier(2)
    computing: list[int] = []
    seen: list[int] = []
    turns: list[int] = []

    def to_device(tensor: torch.Tensor) -> torch.Tensor:
        both_are_here.wait(timeout=30)
        return tensor

    @contextmanager
    def waiting() -> Iterator[None]:
        yield
        turns.append(1)

    def watched(*given: Any) -> Any:
        # Who waits does not hang, however long it is.
        assert len(turns) == len(seen) + 1
        computing.append(1)
        time.sleep(0.05)
        seen.append(len(computing))
        try:
            return compute(*given)
        finally:
            computing.pop()

    tiles = [random_pixels((3, 72, 72), "uint8", seed) for seed in range(2)]
    expected = [predictor.labels(pixels) for pixels in tiles]
    monkeypatch.setattr(predictor, "_compute", watched)
    monkeypatch.setattr(predictor._transfers, "to_device", to_device)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda pixels: predictor.classify(pixels, waiting), tiles))
    np.testing.assert_array_equal([item.labels for item in found], expected)
    assert seen == [1, 1]


@pytest.mark.parametrize("feed", ["overlap", "tile"])
def test_a_gpu_is_brought_a_second_tile(
    feed: Feed, tmp_path: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, with the processor in its place."""
    threads = set()

    class Two(Transfers):
        def __init__(self, device: str) -> None:
            super().__init__(device)
            self.tiles_at_once = 2

        def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
            threads.add(current_thread().name)
            time.sleep(0.01)
            return tensor

    pixels = random_pixels((3, 150, 170), "uint8")
    image, model = write_image(tmp_path / "i.zarr", pixels, chunks=(3, 32, 32)), make_model()
    expected = whole_pass(load_predictor(model, "uint8"), pixels, "labels")
    monkeypatch.setattr("tilesegment.model.predictor.Transfers", Two)
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=1, threads_per_worker=4, processes=False, protocol="tcp", host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
    ):  # fmt: skip
        options = ClusterOptions(cluster.scheduler_address, feed=feed)
        ts.segment(image, model, options=RunOptions(tile=32, precision="float32"), cluster=options)
    assert threads == {"inference_0", "inference_1"}
    np.testing.assert_array_equal(levels(image / "labels" / "model")[0], expected)
