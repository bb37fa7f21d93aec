"""The grid of windows, and their weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesegment.blending import Blend, choose_blend
from tilesegment.errors import OptionError
from tilesegment.geometry import YX, NetworkGeometry, unet_geometry

POINTWISE = NetworkGeometry(border=0, alignment=1, loss=0, residue=0)
NETWORKS = st.one_of(
    st.just(POINTWISE),
    st.builds(unet_geometry, st.integers(1, 4), st.sampled_from(["valid", "same"])),
)


@st.composite
def blends(draw: st.DrawFn) -> Blend:
    network = draw(NETWORKS)
    steps = draw(st.integers(1, 9))
    window = network.alignment * draw(st.integers(steps, 20))
    return Blend("mean", window, steps * network.alignment, network)


@given(blends(), st.integers(0, 50), st.integers(1, 9))
def test_a_tile_is_shown_every_window_that_touches_it(
    blend: Blend, position: int, steps: int
) -> None:
    """And no others: where they lie in the image does not depend on the tile."""
    begin, size = position * blend.step, steps * blend.step
    halo = blend.geometry.halo
    origin = begin - halo + blend.network.halo
    windows = [origin + start for start in blend.starts(size + 2 * halo)]
    candidates = range(-(2**12), 2**12)
    touching = [
        index * blend.step
        for index in candidates
        if index * blend.step < begin + size and index * blend.step + blend.window > begin
    ]
    assert windows == touching
    assert blend.starts(size + 2 * halo)[-1] + blend.window_input <= size + 2 * halo


@given(blends())
def test_windows_are_legal_and_keep_the_networks_phase(blend: Blend) -> None:
    assert blend.network.is_legal_input(blend.window_input)
    assert blend.geometry.alignment % blend.network.alignment == 0
    assert blend.geometry.crop == 0


@pytest.mark.parametrize("kind", ["gaussian", "mean"])
def test_weights_are_above_0_and_the_same_on_both_sides(kind: str) -> None:
    weights = Blend(kind, 64, 32, POINTWISE).weights()
    assert weights.min() > 0
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    assert weights.max() == pytest.approx(1, abs=0.01)


def test_the_cost_is_that_of_all_windows() -> None:
    blend = choose_blend("gaussian", None, unet_geometry(4))
    assert blend is not None
    assert (blend.window, blend.step, blend.window_input) == (512, 256, 700)
    side = 1024 + 2 * blend.geometry.halo
    assert blend.computed(YX(side, side)) == 5**2 * 700**2


@pytest.mark.parametrize(("overlap", "step"), [(0.0, 512), (0.25, 384), (0.5, 256), (0.9, 48)])
def test_the_overlap_becomes_whole_steps_of_the_alignment(overlap: float, step: int) -> None:
    blend = choose_blend("mean", overlap, unet_geometry(4))
    assert blend is not None
    assert blend.step == step


def test_options_that_cannot_work_are_refused() -> None:
    assert choose_blend(None, None, POINTWISE) is None
    with pytest.raises(OptionError, match="add --blend gaussian or --blend mean"):
        choose_blend(None, 0.5, POINTWISE)
    with pytest.raises(OptionError, match="--overlap 1 is not between 0 and 0.9"):
        choose_blend("mean", 1.0, POINTWISE)
