import numpy as np
import pytest
import torch

from tilesegment.geometry import YX
from tilesegment.model.file import Normalisation
from tilesegment.model.unet import UNet
from tilesegment.training.assess import Predictor, assess, example_tiles
from tilesegment.training.dataset import MemoryPicture
from tilesegment.training.loss import IGNORED


class Perfect(torch.nn.Module):
    """Says 1 where the input is above 0.5; consumes no pixels, as "same" padding."""

    geometry = UNet(1, 2, 1, depth=1, padding="same").geometry

    def forward(self, image):
        return torch.cat([0.5 - image, image - 0.5], dim=1) * 100


def picture(name, image, classes):
    border = np.zeros(classes.shape, np.float32)
    return MemoryPicture(name, image, classes, border, 0, np.zeros((0, 2), int))


def striped(name, wrong_rows=0):
    classes = np.zeros((30, 50), np.uint8)
    classes[10:20] = 1
    image = 255 * classes[None]
    image[:, :wrong_rows] = 255
    return picture(name, image, classes)


def predictor(network, tile=16):
    return Predictor(network, Normalisation(), tile, torch.device("cpu"))


def test_perfect_prediction_scores_one():
    result = assess(predictor(Perfect()), [striped("a")], lambda name: name)
    assert (result.score, result.pixel_error, result.dice) == (1, 0, (1, 1))
    assert result.loss < 1e-6


def test_groups_count_equally():
    shown = [striped("a"), striped("a"), striped("b", wrong_rows=6)]
    result = assess(predictor(Perfect()), shown, lambda name: name)
    # Group a is perfect; b calls 6 of its 30 rows wrong: Dice 2 * 10 / (10 + 16).
    assert result.pixel_error == pytest.approx((0 + 6 / 30) / 2)
    assert result.score == pytest.approx((1 + 20 / 26) / 2)


def test_unannotated_pixels_do_not_count():
    shown = striped("a", wrong_rows=6)
    shown.classes[:6] = IGNORED
    assert assess(predictor(Perfect()), [shown], lambda name: name).pixel_error == 0


def test_tiles_together_are_the_whole_picture():
    torch.manual_seed(1)
    network = UNet(1, 3, base_channels=2, depth=2).eval()
    pixels = np.random.default_rng(2).integers(0, 255, (1, 45, 70), np.uint8)
    shown = picture("a", pixels, np.zeros((45, 70), np.uint8))
    with torch.inference_mode():
        whole = [logits for _, logits in predictor(network, 128).tiles(shown)]
        tiles = [logits for _, logits in predictor(network, 24).tiles(shown)]
    assert len(whole) == 1
    assert len(tiles) == 6
    rows = [torch.cat(tiles[start : start + 3], dim=2) for start in (0, 3)]
    torch.testing.assert_close(torch.cat(rows, dim=1), whole[0])


def test_only_some_tiles_of_a_huge_picture_are_looked_at(monkeypatch):
    monkeypatch.setattr("tilesegment.training.assess.MOST_WINDOWS", 3)
    tiles = [patch.image.shape for patch, _ in predictor(Perfect(), 8).tiles(striped("a"))]
    assert tiles == [(1, 8, 8)] * 3


def test_examples_are_of_different_pictures():
    shown = [striped(name) for name in "abc"]
    tiles = example_tiles(predictor(Perfect(), tile=64), shown, 4)
    assert len(tiles) == 3
    np.testing.assert_array_equal(tiles[0].truth, tiles[0].predicted)
    assert tiles[0].image.shape == (1, *YX(30, 50))
