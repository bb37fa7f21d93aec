"""Polygons of blocks against those of the whole plane."""

from collections.abc import Iterator

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tilesegment.geometry import YX
from tilesegment.storage.exporting import polygons as module
from tilesegment.storage.exporting.polygons import LabelPolygon, polygons, simplified


@pytest.fixture(autouse=True, scope="module")
def no_bucket() -> Iterator[None]:
    """Where credentials stand in the environment, rasterio makes a session for each of its calls.

    It does so by boto3, which only the tests have.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rasterio.session.boto3", None)
        yield


planes = arrays.arrays(
    st.sampled_from(["uint8", "int32", "uint32", "int64"]),
    st.tuples(st.integers(1, 17), st.integers(1, 17)),
    elements=st.integers(0, 2),
)


def of(labels: np.ndarray, block: int, wanted: list[int] | None = None) -> list[LabelPolygon]:
    return list(
        polygons(lambda window: labels[window.slices], YX(*labels.shape), wanted, block=block)
    )


def as_set(found: list[LabelPolygon]) -> set[tuple[int, int, str]]:
    """Independent of the order of polygons, and of the point at which a ring starts."""
    as_text = {(item.value, item.pixels, item.shape.normalize().wkt) for item in found}
    assert len(as_text) == len(found)
    return as_text


def whole(labels: np.ndarray) -> set[tuple[int, int, str]]:
    """GDAL's polygons of the whole plane, all but those of label 0."""
    values, index = np.unique(labels, return_inverse=True)
    shapes = [
        (int(values[int(value)]), shapely.geometry.shape(shape))
        for shape, value in rasterio.features.shapes(index.astype("int32"), connectivity=4)
    ]
    return as_set([LabelPolygon(v, shape, round(shape.area)) for v, shape in shapes if v != 0])


@given(labels=planes, block=st.integers(1, 9))
def test_blocks_give_the_polygons_of_the_whole(labels: np.ndarray, block: int) -> None:
    found = of(labels, block)
    assert as_set(found) == whole(labels)
    assert all(item.shape.is_valid for item in found)


@given(labels=planes, block=st.integers(1, 9))
def test_polygons_drawn_again_are_the_labels(labels: np.ndarray, block: int) -> None:
    found = of(labels, block)
    drawn = np.zeros(labels.shape, "int32")
    if found:
        rasterio.features.rasterize([(item.shape, item.value) for item in found], out=drawn)
    np.testing.assert_array_equal(drawn, labels)


RING = """
111111
1....1
1.11.1
1.1..1
1....1
111111
"""
CORNERS = """
.1..
1.11
...1
11.1
"""


def drawn(picture: str) -> np.ndarray:
    rows = picture.split()
    return np.array([[0 if pixel == "." else int(pixel) for pixel in row] for row in rows], "uint8")


@pytest.mark.parametrize("block", [1, 2, 3, 4, 6])
def test_a_ring_over_many_blocks_is_one_polygon_with_a_hole(block: int) -> None:
    inner, outer = sorted(of(drawn(RING), block), key=lambda item: item.pixels)
    assert outer.shape.normalize().equals_exact(
        shapely.Polygon(
            [(0, 0), (6, 0), (6, 6), (0, 6)], [[(1, 1), (5, 1), (5, 5), (1, 5)]]
        ).normalize()
    )
    assert (inner.pixels, outer.pixels) == (3, 20)


@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_pixels_that_touch_at_a_corner_are_apart(block: int) -> None:
    assert sorted(item.pixels for item in of(drawn(CORNERS), block)) == [1, 1, 2, 4]


@pytest.mark.parametrize("block", [2, 100])
def test_only_wanted_labels(block: int) -> None:
    labels = np.array([[0, 1, 2], [1, 1, 2]], "uint8")
    assert {item.value for item in of(labels, block, wanted=[0, 2])} == {0, 2}
    assert of(labels, block, wanted=[7]) == []


def test_labels_beyond_the_types_of_gdal_are_kept() -> None:
    labels = np.array([[2**40, 2**40, 5], [2**40 + 1, 0, 5]], "int64")
    assert {item.value for item in of(labels, 1)} == {2**40, 2**40 + 1, 5}


def test_finished_components_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory does not grow with the plane."""
    most = 0
    plain = module._Seams.join

    def watched(self: module._Seams, window: module.Window) -> None:
        nonlocal most
        plain(self, window)
        most = max(most, len(self._pieces))

    monkeypatch.setattr(module._Seams, "join", watched)
    labels = np.tile(drawn("1.\n.1"), (200, 4))
    assert len(of(labels, 1)) == 1600
    assert most <= 3 * labels.shape[1]


@given(labels=planes, tolerance=st.floats(0.5, 4))
def test_simplified_neighbours_keep_their_common_borders(
    labels: np.ndarray, tolerance: float
) -> None:
    found = of(labels, 5)
    simple = simplified(found, tolerance)
    assert [(item.value, item.pixels) for item in simple] == [
        (item.value, item.pixels) for item in found
    ]
    if simple:
        assert shapely.coverage_is_valid([item.shape for item in simple])
        assert all(item.shape.is_valid for item in simple)


def test_simplifying_takes_the_steps_from_a_slope() -> None:
    labels = np.tri(40, dtype="uint8") + 1
    upper, lower = simplified(of(labels, 16), 2)
    assert len(upper.shape.exterior.coords) < 10
    assert upper.shape.intersection(lower.shape).area == pytest.approx(0, abs=1e-6)
    assert upper.shape.union(lower.shape).area == pytest.approx(1600, rel=0.01)
