import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.morphology import remove_small_objects

from tilesegment.cleaning import (
    Cleaning,
    classes_above,
    fill_holes,
    find_holes,
    find_regions,
    remove_small,
)
from tilesegment.components import Joining, describe_faces
from tilesegment.errors import OptionError
from tilesegment.geometry import YX
from tilesegment.tiling import TileGrid


def cleaned(classes: np.ndarray, block: int, cleaning: Cleaning) -> np.ndarray:
    """Block by block, as the tasks do it."""
    grid = TileGrid(YX(*classes.shape), 1, block)
    regions = Joining(grid)
    for tile in grid.tiles():
        window = grid.write_window(tile)
        around = window.grown(1).clipped(grid.image)
        found = find_regions(classes[around.slices], around, window, grid)
        regions.add(tile, describe_faces(found, tile, grid))
    joined = regions.finish()
    removed = np.zeros_like(classes)
    for tile in grid.tiles():
        window = grid.write_window(tile)
        around = window.grown(1).clipped(grid.image)
        found = find_regions(classes[around.slices], around, window, grid)
        small = joined.labels_where(grid.number(tile), joined.areas < cleaning.min_area)
        removed[window.slices] = remove_small(
            classes[window.slices], found, cleaning.min_area, small
        )
    background = Joining(grid)
    above = np.vstack([np.zeros_like(classes[:1]), classes[:-1]])
    holes, marks = {}, {}
    for tile in grid.tiles():
        window = grid.write_window(tile)
        part = removed[window.slices]
        number = grid.number(tile)
        holes[number] = find_holes(part, window, grid)
        marks[number] = classes_above(part, above[window.slices][0], holes[number])
        background.add(tile, describe_faces(holes[number], tile, grid, marks[number]))
    joined = background.finish()
    wanted = (joined.areas < cleaning.fill_holes) & ~joined.rim
    result = np.zeros_like(classes)
    for tile in grid.tiles():
        number, window = grid.number(tile), grid.write_window(tile)
        place = joined.places[number]
        parts = joined.whole[place][wanted[joined.whole[place]]]
        result[window.slices] = fill_holes(
            removed[window.slices], holes[number], marks[number], cleaning.fill_holes, grid,
            joined.labels_where(number, wanted), joined.marks[parts],
        )  # fmt: skip
    return result


def by_definition(classes: np.ndarray, cleaning: Cleaning) -> np.ndarray:
    """The same with the whole picture at hand."""
    result = classes.copy()
    for value in np.unique(classes[classes != 0]):
        pixels = classes == value
        kept = remove_small_objects(pixels, max_size=cleaning.min_area - 1)
        result[pixels & ~kept] = 0
    labels, count = ndimage.label(result == 0)
    for number in range(1, count + 1):
        pixels = labels == number
        y, x = (found[0] for found in np.nonzero(pixels))
        inner = pixels[1:-1, 1:-1].sum() == pixels.sum()
        if inner and pixels.sum() < cleaning.fill_holes:
            result[pixels] = result[y - 1, x]
    return result


PICTURES = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 25), st.integers(1, 25)),
    elements=st.sampled_from([0, 0, 1, 1, 1, 2]),
    fill=st.nothing(),
)


@given(PICTURES, st.integers(1, 26), st.integers(0, 9), st.integers(0, 30))
def test_every_block_size_cleans_as_the_whole_picture(
    classes: np.ndarray, block: int, min_area: int, holes: int
) -> None:
    cleaning = Cleaning(min_area, holes)
    np.testing.assert_array_equal(
        cleaned(classes, block, cleaning), by_definition(classes, cleaning)
    )


def test_a_speckle_in_a_region_is_filled_with_what_is_around_it() -> None:
    classes = np.ones((9, 9), np.uint8)
    classes[4, 4:6] = 2
    assert (cleaned(classes, 5, Cleaning(min_area=3, fill_holes=3)) == 1).all()


def test_what_touches_the_rim_is_no_hole() -> None:
    classes = np.ones((6, 6), np.uint8)
    classes[0, 2:4] = 0
    np.testing.assert_array_equal(cleaned(classes, 3, Cleaning(fill_holes=99)), classes)


def test_negative_sizes_are_refused() -> None:
    with pytest.raises(OptionError, match="numbers of pixels"):
        Cleaning(min_area=-1)
