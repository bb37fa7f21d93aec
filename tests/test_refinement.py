"""Which steps are wanted, and how far they look."""

import pytest

from tilesegment.config import RunOptions
from tilesegment.errors import OptionError
from tilesegment.geometry import unet_geometry
from tilesegment.refinement import CRF, Refinement, Smoothing, choose_refinement

CLASSES = ["background", "nucleus"]


def test_borders_add_up() -> None:
    """15 of five iterations that look 3 pixels far, 6 of a Gaussian cut at 3 * 1.7 = 5.1."""
    refinement = Refinement(Smoothing(1.7), CRF(0.05))
    assert refinement.border == 21
    network = unet_geometry(4)
    assert refinement.margin(network) == 32
    assert refinement.geometry(network).halo == 94 + 32
    assert refinement.geometry(network).is_legal_input(1024 + 2 * 126)


def test_thresholds_alone_look_no_further() -> None:
    network = unet_geometry(4)
    assert Refinement(thresholds=((1, 0.7),)).geometry(network) == network


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_margin_keeps_the_network_on_its_grid(padding: str, depth: int) -> None:
    network, refinement = unet_geometry(depth, padding), Refinement(Smoothing(0.4))
    refined = refinement.geometry(network)
    assert (refined.halo - network.halo) % network.alignment == 0
    assert refined.halo - network.halo >= refinement.border


def test_weights_sum_to_one() -> None:
    weights = Smoothing(2.3).weights()
    assert len(weights) == 8
    assert 2 * weights.sum() - weights[0] == pytest.approx(1, abs=1e-15)


def test_offsets_and_their_opposites_are_all_neighbours() -> None:
    half = CRF(0.05, radius=2).offsets
    both = {*half, *((-y, -x) for y, x in half)}
    assert len(both) == 24 == 2 * len(half)
    side = range(-2, 3)
    assert both == {(y, x) for y in side for x in side} - {(0, 0)}


def test_nothing_wanted_is_none() -> None:
    assert choose_refinement(RunOptions(probabilities=True), CLASSES) is None


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (RunOptions(smooth=0), "--smooth 0 is not above 0"),
        (RunOptions(smooth=33), "at most 32 pixels"),
        (RunOptions(refine="crf", crf_contrast=0), "--crf-contrast: 0"),
        (RunOptions(crf_contrast=0.1), "add --refine crf"),
        (RunOptions(class_thresholds=(("cell", 0.5),)), "no class of the model; it has backgr"),
        (RunOptions(class_thresholds=(("nucleus", 1.5),)), "--class-threshold nucleus: 1.5"),
        (RunOptions(class_thresholds=(("nucleus", 0.5),) * 2), "twice"),
        (RunOptions(smooth=float("nan")), "--smooth nan"),
    ],
)
def test_what_cannot_be_is_one_line(options: RunOptions, problem: str) -> None:
    with pytest.raises(OptionError, match=problem) as error:
        choose_refinement(options, CLASSES)
    assert "\n" not in str(error.value)
