"""What the network is shown of a level, and where its labels land."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.pictures import mirrored, random_pixels
from tilesegment.geometry import NetworkGeometry, Spacing, unet_geometry
from tilesegment.resampling import Resampling
from tilesegment.tiling import Window

STEPS = st.one_of(st.sampled_from([1 / 3, 0.5, 1.5, 2.0, 3.0]), st.floats(1 / 8, 8))
NETWORKS = st.builds(unet_geometry, st.integers(1, 3), st.sampled_from(["valid", "same"]))
POINTWISE = NetworkGeometry(border=0, alignment=1, loss=0, residue=0)


def shown(resampling: Resampling, plane: npt.NDArray[Any], y: int, x: int, tile: int) -> Any:
    window = Window(y, x, tile, tile)
    return resampling.shown(mirrored(plane, window.grown(resampling.geometry.halo)), window)


@given(data=st.data())
def test_tiles_are_shown_the_pixels_of_the_whole_image(data: st.DataObject) -> None:
    """Bit for bit, wherever they begin and however large they are."""
    resampling = Resampling(
        Spacing(data.draw(STEPS), data.draw(STEPS)), network := data.draw(NETWORKS)
    )
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "float32"]))
    plane = random_pixels((2, data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))), dtype)
    whole = shown(resampling, plane, 0, 0, 96)
    tile = data.draw(st.integers(1, 48))
    y, x = data.draw(st.integers(0, 48)), data.draw(st.integers(0, 48))
    part = shown(resampling, plane, y, x, tile)
    assert part.dtype == np.float32
    assert part.shape[1:] == tuple(
        network.input_size(size) for size in resampling.network_tile(tile)
    )
    first = [
        resampling._begin(step, start) - resampling._begin(step, 0)
        for start, step in zip((y, x), resampling.step, strict=True)
    ]
    assert all(start % network.alignment == 0 for start in first)
    same = whole[:, first[0] :, first[1] :][:, : part.shape[1], : part.shape[2]]
    np.testing.assert_array_equal(part[:, : same.shape[1], : same.shape[2]], same)


@given(step=STEPS, start=st.integers(0, 10**7), tile=st.integers(1, 3000), network=NETWORKS)
def test_the_halo_holds_every_pixel_and_the_network_tile_every_label(
    step: float, start: int, tile: int, network: NetworkGeometry
) -> None:
    resampling = Resampling(Spacing(step, step), network)
    halo, size = resampling.geometry.halo, resampling.network_tile(tile).y
    taps = resampling._taps(step, start, size, start - halo)
    assert taps.first.min() >= 0
    assert taps.first.max() + len(taps.weights) <= tile + 2 * halo
    np.testing.assert_allclose(taps.weights.sum(axis=0), 1)
    nearest = resampling._nearest(step, start, tile)
    assert nearest.min() >= 0
    assert nearest.max() < size


@given(step=STEPS, start=st.integers(0, 10**7), length=st.integers(1, 50))
def test_a_label_lands_within_half_a_pixel_of_the_networks(
    step: float, start: int, length: int
) -> None:
    resampling = Resampling(Spacing(step, step), POINTWISE)
    centres = np.arange(start, start + length) + 0.5
    labelled_by = resampling._begin(step, start) + resampling._nearest(step, start, length)
    assert (np.abs((labelled_by + 0.5) * step - centres) <= step / 2 + 1e-6).all()


@pytest.mark.parametrize("step", [0.5, 0.3125, 1.25, 2.0, 2.5, 4.0])
def test_pixels_are_those_of_pillow(step: float) -> None:
    """Inside the rim, where Pillow does not mirror."""
    plane = random_pixels((1, 80, 80), "float32")
    resampling = Resampling(Spacing(step, step), POINTWISE)
    size = int(80 / step)
    picture = Image.fromarray(plane[0]).resize((size, size), Image.Resampling.BILINEAR)
    first = resampling._begin(step, 0)
    theirs = np.asarray(picture)[first:, first:]
    ours = shown(resampling, plane, 0, 0, 80)[0, : len(theirs), : len(theirs)]
    inside = slice(3, -3)
    np.testing.assert_allclose(ours[inside, inside], theirs[inside, inside], atol=1e-6)


@given(step=STEPS, value=st.integers(0, 65_535))
def test_what_is_constant_stays_so(step: float, value: int) -> None:
    plane = np.full((1, 40, 40), value, np.uint16)
    pixels = shown(Resampling(Spacing(step, step), POINTWISE), plane, 7, 3, 20)
    assert (pixels == value).all()


@pytest.mark.parametrize("step", [0.4, 1.6])
def test_a_ramp_is_read_at_the_centres_of_pixels(step: float) -> None:
    """A shift by half a pixel would show as another height of the ramp."""
    ramp = np.broadcast_to(np.arange(200, dtype=np.float32)[:, None], (1, 200, 200))
    resampling = Resampling(Spacing(step, step), POINTWISE)
    column = shown(resampling, ramp, 50, 50, 100)[0, :, 0]
    first = int(50.5 / step)
    centres = (first + np.arange(len(column)) + 0.5) * step - 0.5
    np.testing.assert_allclose(column, centres, atol=0.1)
