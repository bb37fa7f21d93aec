"""What an image looks like before anybody has touched a slider."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.pictures import random_pixels, write_image
from tilesegment.storage.image import open_image
from tilesegment.view.channels import describe_channels


def channels_of(path: Path, pixels: Any, omero: Mapping[str, Any] | None = None) -> Any:
    image = write_image(path / "i.zarr", pixels)
    if omero is not None:
        group = zarr.open_group(image)
        group.attrs["ome"] = {**group.attrs["ome"], "omero": omero}
    return describe_channels(open_image(image))


def test_a_colour_picture_is_shown_as_it_is(tmp_path: Path) -> None:
    channels = channels_of(tmp_path, random_pixels((3, 20, 30), "uint8"))
    assert [channel["name"] for channel in channels] == ["Red", "Green", "Blue"]
    assert [channel["colour"] for channel in channels] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert {tuple(channel["window"]) for channel in channels} == {(0, 255)}


def test_other_types_are_stretched_to_what_is_in_them(tmp_path: Path) -> None:
    pixels = np.arange(1000, 2000, dtype=np.uint16).reshape(1, 20, 50)
    (channel,) = channels_of(tmp_path, pixels)
    assert channel["name"] == "Intensity"
    assert channel["range"] == [1000, 1999]
    assert channel["window"] == pytest.approx([1005, 1994], abs=0.1)


def test_pixels_that_are_all_equal_or_no_numbers_have_a_contrast(tmp_path: Path) -> None:
    pixels = np.stack([np.full((20, 30), 7.0), np.full((20, 30), np.nan)])
    equal, nothing = channels_of(tmp_path, pixels)
    assert equal["window"] == [7, 8]
    assert nothing["window"] == [0, 1]


def test_the_images_own_rendering_settings_come_first(tmp_path: Path) -> None:
    omero = {
        "channels": [
            {"label": "DAPI", "color": "0000FF", "window": {"start": 5, "end": 90}},
            {"label": "empty", "color": "no colour", "window": {"start": 3, "end": 3}},
            {"active": False},
        ]
    }
    dapi, empty, hidden = channels_of(tmp_path, random_pixels((3, 20, 30), "uint8"), omero)
    assert dapi == {
        "name": "DAPI", "colour": (0, 0, 255), "window": [5, 90], "range": [0, 255],
        "visible": True,
    }  # fmt: skip
    assert (empty["name"], empty["colour"], empty["window"]) == ("empty", (0, 255, 0), [0, 255])
    assert not hidden["visible"]


@pytest.mark.parametrize("omero", [{}, {"channels": None}, {"channels": ["x"]}, "x"])
def test_rendering_settings_that_make_no_sense_are_passed_over(omero: Any, tmp_path: Path) -> None:
    channels = channels_of(tmp_path, random_pixels((3, 20, 30), "uint8"), omero)
    assert [channel["name"] for channel in channels] == ["Red", "Green", "Blue"]
