"""What a worker computes, and what it need not."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.pictures import load_predictor, random_pixels
from tilesegment.execution.worker import ModelPlugin, WorkerModel, in_parts
from tilesegment.model.file import read_description
from tilesegment.model.predictor import Predictor
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
    monkeypatch.setattr(Predictor, "labels", None)
    prediction = plugin.predict(pixels)
    assert prediction.work == "masked"
    assert prediction.labels.dtype == np.uint8
    assert prediction.labels.shape == (TILE, TILE)
    assert not prediction.labels.any()


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
