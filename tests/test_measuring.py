from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import regionprops

from tilesegment.geometry import YX
from tilesegment.measuring import BORDER, Channel, Intensities, Measurements, combine, measure_block
from tilesegment.tiling import TileGrid, Window


def measured(
    identities: np.ndarray, classes: np.ndarray, pixels: np.ndarray, block: int
) -> Measurements:
    """Block by block, from the last block to the first."""
    grid = TileGrid(YX(*identities.shape), 1, block)
    largest = float(np.abs(pixels.astype(np.float64)).max(initial=1))
    intensities = Intensities.of(pixels.dtype, largest)
    channels = [Channel(f"mean_c{number}", intensities) for number in range(len(pixels))]
    framed = np.pad(identities, BORDER)
    rows = []
    for tile in grid.tiles():
        window = grid.write_window(tile)
        around = framed[
            window.y : window.y + window.height + 2 * BORDER,
            window.x : window.x + window.width + 2 * BORDER,
        ]
        part = (slice(None), *window.slices)
        rows.append(
            measure_block(around, classes[window.slices], pixels[part], channels, 0, window)
        )
    return combine(np.concatenate(rows[::-1]), channels, 0.25)


PICTURES = hnp.arrays(
    np.int32,
    st.tuples(st.integers(1, 29), st.integers(1, 29)),
    elements=st.sampled_from([0, 3, 3, 3, 3, 5, 8]),
    fill=st.nothing(),
)


@given(PICTURES, st.integers(1, 30), st.sampled_from(["uint8", "uint16", "float32", "int64"]))
def test_every_block_size_gives_the_numbers_of_the_whole_picture(
    identities: np.ndarray, block: int, dtype: str
) -> None:
    generator = np.random.default_rng(0)
    pixels = (generator.random((2, *identities.shape)) * 250 - 3 * (dtype == "float32")).astype(
        dtype
    )
    classes = (identities > 0).astype(np.uint8)
    ours = measured(identities, classes, pixels, block).columns
    whole = measured(identities, classes, pixels, 64).columns
    assert ours.keys() == whole.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)


@given(PICTURES, st.integers(3, 30))
def test_the_numbers_are_those_of_regionprops(identities: np.ndarray, block: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 2**16, (2, *identities.shape), np.uint16)
    ours = measured(identities, (identities % 2).astype(np.uint8), pixels, block).columns
    theirs = regionprops(identities, np.moveaxis(pixels, 0, -1))
    assert ours["identity"].tolist() == [item.label for item in theirs]
    assert ours["class"].tolist() == [item.label % 2 for item in theirs]
    assert ours["area_px"].tolist() == [item.area for item in theirs]
    assert ours["area_um2"].tolist() == [item.area * 0.25 for item in theirs]
    for number, item in enumerate(theirs):
        box = [int(ours[name][number]) for name in ("top", "left", "bottom", "right")]
        assert box == list(item.bbox)
        expected = {
            "centroid_y": item.centroid[0],
            "centroid_x": item.centroid[1],
            "perimeter_px": item.perimeter,
            "eccentricity": item.eccentricity,
            "mean_c0": item.intensity_mean[0],
            "mean_c1": item.intensity_mean[1],
        }
        for name, value in expected.items():
            np.testing.assert_allclose(ours[name][number], value, atol=1e-7, err_msg=name)


def test_an_object_of_a_hundred_gigapixels_does_not_overflow() -> None:
    """Its second moments need 130 bits: a band of blocks far from the origin."""
    side = 4096
    full = np.ones((side, side), np.int32)
    block = measure_block(
        np.pad(full, BORDER, constant_values=1), full, (), (), 0, Window(0, 0, side, side)
    )
    columns = 6000
    rows = np.repeat(block, columns, axis=0)
    rows[:, 4] = rows[:, 6] = np.arange(columns) * side
    rows[:, 8] = rows[:, 6] + side
    found = combine(rows, (), None).columns
    assert found["area_px"].tolist() == [columns * side**2]
    assert found["centroid_x"].tolist() == [(columns * side - 1) / 2]
    length, width = columns * side, side
    expected = np.sqrt(1 - (width**2 - 1) / (length**2 - 1))
    np.testing.assert_allclose(found["eccentricity"], expected)


def test_means_of_floats_are_rounded_to_a_trillionth_of_the_largest() -> None:
    pixels = np.array([[[1e-30, 3e-30, 7e20, -2e20]]])
    identities = np.array([[1, 1, 2, 2]], np.int32)
    means = measured(identities, identities, pixels, 1).columns["mean_c0"]
    assert np.abs(means - [2e-30, 2.5e20]).max() <= 7e20 / 2**38


def test_no_objects_are_no_rows() -> None:
    nothing = np.zeros((3, 5), np.int32)
    assert len(measured(nothing, nothing, np.zeros((1, 3, 5), np.uint8), 2)) == 0


def test_identities_rise() -> None:
    identities = np.arange(1, 60, dtype=np.int32).reshape(1, -1)
    found = measured(identities, identities, np.zeros((0, 1, 59)), 7).columns["identity"]
    assert all(one < other for one, other in pairwise(found))
