"""What `check` reports of a model."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tilesegment.errors import ModelError
from tilesegment.geometry import unet_geometry
from tilesegment.model import zoo
from tilesegment.model.file import ModelDescription, read_description
from tilesegment.usecases.check import check_network

MakeModel = Callable[..., Path]


def test_the_bundled_model_is_what_its_file_says() -> None:
    report = ts.check("nuclei")
    assert report.measured.geometry == read_description(zoo.find("nuclei")).geometry
    assert report.measured.proved
    assert report.classes == ("background", "nucleus")
    assert 0 < report.effective_border < report.measured.field.largest
    assert all(0 <= share < 0.1 for share in report.changed_labels.values())


def test_a_model_that_is_not_what_its_file_says_is_refused(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(depth=1)
    monkeypatch.setattr(ModelDescription, "geometry", unet_geometry(2))
    with pytest.raises(ModelError, match="says border 20, .* shows border 8, alignment 2"):
        ts.check(model)


def test_precisions_are_compared_on_the_image_that_is_given(
    make_model: MakeModel, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "i.zarr", random_pixels((3, 100, 130), "uint8"))
    report = ts.check(make_model(depth=1), image=image)
    assert report.samples == str(image)


def test_an_image_with_other_channels_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    image = write_image(tmp_path / "i.zarr", random_pixels((2, 100, 130), "uint8"))
    with pytest.raises(ModelError, match=r"takes 3 channel\(s\)"):
        ts.check(make_model(depth=1), image=image)


def test_tiles_are_on_the_grid_and_the_halo_costs_what_it_costs() -> None:
    network = nn.Sequential(nn.MaxPool2d(3), nn.Upsample(scale_factor=3), nn.Conv2d(1, 2, 1))
    tiles = check_network(network, 1, network=network).tiles
    assert [(tile.tile, tile.input) for tile in tiles[:2]] == [(258, 264), (513, 519)]
    assert tiles[0].compute_amplification == (264 / 258) ** 2


def test_a_network_without_a_border_has_no_tiles() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.InstanceNorm2d(2))
    report = check_network(network, 1)
    assert not report.measured.local
    assert report.tiles == ()
    assert "InstanceNorm" in " ".join(report.measured.reasons)


def test_the_only_tile_of_a_fixed_size_is_what_the_halo_leaves() -> None:
    network = nn.Conv2d(1, 2, 5, padding=2)
    (tile,) = check_network(network, 1, fixed_size=100).tiles
    assert (tile.tile, tile.input) == (96, 100)
