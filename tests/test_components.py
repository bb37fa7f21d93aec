import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from tilesegment import components
from tilesegment.components import (
    BlockComponents,
    Joining,
    Joins,
    Numbering,
    OpenComponents,
    describe_faces,
    find_components,
    identify,
    same_class,
)
from tilesegment.errors import OutputError
from tilesegment.geometry import YX
from tilesegment.tiling import TileGrid


def block_wise(
    joins: list[Joins], grid: TileGrid, seed: int
) -> tuple[dict[int, BlockComponents], OpenComponents]:
    """The components of each block, told to the driver in a random order."""
    joining, found = Joining(grid), {}
    tiles = list(grid.tiles())
    np.random.default_rng(seed).shuffle(tiles)
    for plane, row, column in tiles:
        tile = grid.tile_at((plane * grid.rows + row) * grid.columns + column)
        window = grid.write_window(tile)
        block = find_components(joins[tile.plane].cut(window), window, grid)
        joining.add(tile, describe_faces(block, tile, grid))
        found[grid.number(tile)] = block
    return found, joining.finish()


def identities(planes: np.ndarray, joins: list[Joins], block: int, seed: int = 0) -> np.ndarray:
    grid = TileGrid(YX(*planes.shape[1:]), len(planes), block)
    found, opened = block_wise(joins, grid, seed)
    numbering = Numbering(opened)
    result = np.full(planes.shape, -1, np.int32)
    for tile in grid.tiles():
        part = (tile.plane, *grid.write_window(tile).slices)
        result[part] = identify(found[grid.number(tile)], numbering.of_block(tile))
    assert numbering.count == result.max(initial=0)
    return result


def by_scipy(planes: np.ndarray) -> np.ndarray:
    """Components of each class by scipy, numbered by their first pixels."""
    result, count = np.zeros(planes.shape, np.int32), 0
    for plane, numbers in zip(planes, result, strict=True):
        apart = np.zeros(plane.shape, np.int64)
        for value in np.unique(plane[plane != 0]):
            labels, _ = ndimage.label(plane == value)
            apart[labels > 0] = labels[labels > 0] + apart.max()
        _, first = np.unique(apart[apart > 0], return_index=True)
        order = {int(apart[apart > 0][at]): rank for rank, at in enumerate(np.sort(first), 1)}
        numbers[apart > 0] = [order[int(value)] + count for value in apart[apart > 0]]
        count += len(first)
    return result


PLANES = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 2), st.integers(1, 23), st.integers(1, 23)),
    elements=st.sampled_from([0, 1, 1, 1, 2]),
    fill=st.nothing(),
)


@given(PLANES, st.integers(1, 24), st.integers(0, 5))
def test_identities_are_those_of_the_whole_picture_for_every_block(
    planes: np.ndarray, block: int, seed: int
) -> None:
    joins = [same_class(plane) for plane in planes]
    np.testing.assert_array_equal(identities(planes, joins, block, seed), by_scipy(planes))


@given(PLANES, st.integers(1, 24), st.data())
def test_joins_of_any_kind_give_one_answer_for_every_block(
    planes: np.ndarray, block: int, data: st.DataObject
) -> None:
    """Also joins that leave neighbours of one class apart, as splitting does."""
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    joins = []
    for plane in planes:
        found = same_class(plane)
        kept = generator.random((2, *plane.shape)) < 0.7
        joins.append(Joins(found.inside, found.right & kept[0], found.down & kept[1]))
    whole = identities(planes, joins, 64)
    np.testing.assert_array_equal(identities(planes, joins, block), whole)


@given(PLANES, st.integers(1, 24))
def test_areas_and_rim_of_open_components_are_those_of_the_whole(
    planes: np.ndarray, block: int
) -> None:
    grid = TileGrid(YX(*planes.shape[1:]), len(planes), block)
    found, opened = block_wise([same_class(plane) for plane in planes], grid, 0)
    whole = by_scipy(planes)
    for tile in grid.tiles():
        components_ = found[grid.number(tile)]
        part = whole[tile.plane][grid.write_window(tile).slices]
        place = opened.places[grid.number(tile)]
        nodes = zip(opened.labels[place], opened.whole[place], strict=True)
        for label, number in nodes:
            identity = part[components_.labels == label][0]
            pixels = whole == identity
            assert opened.areas[number] == pixels.sum()
            inner = np.zeros_like(pixels)
            inner[:, 1:-1, 1:-1] = True
            assert opened.rim[number] == (pixels & ~inner).any()


def test_a_spiral_through_all_blocks_is_one_component() -> None:
    spiral = np.zeros((1, 31, 31), np.uint8)
    spiral[0, ::2] = 1
    spiral[0, 1::4, -1] = spiral[0, 3::4, 0] = 1
    assert identities(spiral, [same_class(spiral[0])], 4).max() == 1


def test_more_objects_than_an_int32_counts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "MOST_IDENTITIES", 2)
    planes = np.array([[[1, 0, 1, 0, 1]]], np.uint8)
    with pytest.raises(OutputError, match="3 objects are more"):
        identities(planes, [same_class(planes[0])], 2)
