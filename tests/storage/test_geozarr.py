"""Where an image lies, as attributes of its group."""

import pytest
import zarr_cm

from tilesegment.errors import InputError
from tilesegment.geometry import YX
from tilesegment.storage.geozarr import (
    Affine,
    Georeferencing,
    carried_attributes,
    geozarr_attributes,
    read_georeferencing,
)

TRANSFORM = Affine(0.5, 0, 733601, 0, -0.5, 3725139)
PLACE = Georeferencing(TRANSFORM, "EPSG:32616")
ATTRIBUTES = geozarr_attributes(PLACE, ["0", "1"], [YX(7, 5), YX(4, 3)])


@pytest.mark.parametrize("crs", ["EPSG:32616", 'ENGCRS["site grid"]', None])
def test_what_was_written_is_read_back(crs: str | None) -> None:
    place = Georeferencing(Affine(17.3, 5.0, 100.0, 10.0, -8.7, 200.0), crs)
    attributes = geozarr_attributes(place, ["0"], [YX(15, 10)])
    zarr_cm.validate_all(attributes)
    assert read_georeferencing(attributes, "it") == place


def test_levels_share_the_corner_of_the_image() -> None:
    fine, coarse = ATTRIBUTES["multiscales"]["layout"]
    assert fine["spatial:transform"] == [0.5, 0, 733601, 0, -0.5, 3725139]
    assert coarse["spatial:transform"] == [1.0, 0, 733601, 0, -1.0, 3725139]
    assert coarse["spatial:shape"] == [4, 3]


def test_labels_carry_all_of_it_with_levels_by_mode() -> None:
    carried = carried_attributes({**ATTRIBUTES, "ome": {}, "mine": 1}, "0.5")
    zarr_cm.validate_all(carried)
    assert carried["multiscales"]["resampling_method"] == "mode"
    del carried["multiscales"]["resampling_method"]
    expected = {**ATTRIBUTES, "multiscales": {"layout": ATTRIBUTES["multiscales"]["layout"]}}
    assert carried == expected


def test_the_key_that_ome_has_taken_in_version_4_is_left_out() -> None:
    attributes = {**ATTRIBUTES, "multiscales": [{"version": "0.4"}]}
    carried = carried_attributes(attributes, "0.4")
    assert "multiscales" not in carried
    assert {item["name"] for item in carried["zarr_conventions"]} == {"spatial", "proj"}
    assert read_georeferencing(carried, "it") == PLACE


def test_an_image_without_a_place_has_none() -> None:
    attributes = {"ome": {}, "multiscales": [{"version": "0.4"}]}
    assert carried_attributes(attributes, "0.4") == {}
    assert read_georeferencing(attributes, "it") is None


def test_pixel_centres_of_other_programs_become_corners() -> None:
    attributes = {**ATTRIBUTES, "spatial:registration": "node"}
    place = read_georeferencing(attributes, "it")
    assert place is not None
    assert place.transform == Affine(0.5, 0, 733600.75, 0, -0.5, 3725139.25)


def test_a_place_that_only_the_finest_level_states() -> None:
    attributes = {key: value for key, value in ATTRIBUTES.items() if key != "spatial:transform"}
    assert read_georeferencing(attributes, "it") == PLACE


def test_projjson_is_read() -> None:
    attributes = {"spatial:transform": list(TRANSFORM), "proj:projjson": {"type": "ProjectedCRS"}}
    place = read_georeferencing(attributes, "it")
    assert place == Georeferencing(TRANSFORM, '{"type": "ProjectedCRS"}')


@pytest.mark.parametrize(
    "numbers",
    ["far", [1, 2], [1, 0, 0, 0, "a", 0], [1, 0, 0, 0, 0, 0], [float("nan"), 0, 0, 0, 1, 0]],
)
def test_a_damaged_affine_is_told(numbers: object) -> None:
    with pytest.raises(InputError, match="it has damaged georeferencing.*six numbers"):
        read_georeferencing({"spatial:transform": numbers}, "it")
