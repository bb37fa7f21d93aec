"""Border, alignment and locality of networks of which they are known."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.model.networks import CHANNELS, ZOO, Known, build, unet
from tilesegment.errors import ModelError
from tilesegment.geometry import NetworkGeometry, Sides
from tilesegment.model.probe import measure
from tilesegment.model.probing.confirm import nothing_beyond
from tilesegment.model.probing.disturb import Disturbance
from tilesegment.model.probing.sizes import find_sizes
from tilesegment.model.probing.subject import Subject

LOCAL = [name for name, known in ZOO.items() if not known.reason]
NOT_LOCAL = [name for name, known in ZOO.items() if known.reason]


@pytest.mark.parametrize("name", LOCAL)
def test_border_and_alignment_are_exact(name: str) -> None:
    known, measured = ZOO[name], measure(build(name), CHANNELS)
    found = Known(known.build, measured.border.largest, measured.legal_step, measured.loss.y)
    assert (measured.local, measured.reasons, measured.proved) == (True, (), True)
    assert found == known
    assert measured.difference < 1e-5


@pytest.mark.parametrize("name", NOT_LOCAL)
def test_what_breaks_locality_is_named(name: str) -> None:
    measured = measure(build(name), CHANNELS)
    assert not measured.local
    assert measured.border is None
    assert any(ZOO[name].reason in reason for reason in measured.reasons)
    with pytest.raises(ModelError, match="no finite border"):
        _ = measured.geometry


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("upsampling", ["transposed", "interpolate"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_u_net_is_measured_as_its_geometry_states(
    padding: str, upsampling: str, depth: int
) -> None:
    network = unet(padding=padding, upsampling=upsampling, depth=depth)()
    assert measure(network, CHANNELS).geometry == network.geometry


def test_572_is_among_the_sizes_of_the_papers_network() -> None:
    measured = measure(build("valid U-Net, depth 4"), CHANNELS)
    assert measured.smallest_input == 188
    assert measured.geometry.is_legal_input(572)


def test_the_place_of_what_breaks_locality_is_named() -> None:
    assert "InstanceNorm at 1" in measure(build("InstanceNorm"), CHANNELS).reasons


def test_sides_differ_where_the_kernel_is_even() -> None:
    measured = measure(build("valid 2x2"), CHANNELS)
    assert measured.border == Sides(top=0, bottom=1, left=0, right=1)
    assert measured.geometry.extra_loss == 1


def test_sizes_that_shift_the_grid_are_named() -> None:
    measured = measure(build("pool 2, resized to the input"), CHANNELS)
    assert "only inputs of 2 plus multiples of 2 fit together" in measured.remarks[0]


@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
@pytest.mark.parametrize("name", ["same U-Net, depth 2", "pool 4, bilinear 4", "valid 2x2"])
def test_a_border_one_pixel_short_is_seen(name: str, side: str) -> None:
    network = build(name)
    measured = measure(network, CHANNELS)
    subject = Subject(network, CHANNELS)
    short = replace(measured.field, **{side: getattr(measured.field, side) - 1})
    within = {
        field: nothing_beyond(
            Disturbance(subject, nan_passes=True),
            find_sizes(subject, None).on_grid(measured.legal_step),
            field,
            measured.offset,
            measured.legal_step,
        )
        for field in (measured.field, short)
    }
    assert within[measured.field]
    # The 2x2 kernel reaches only down and right, so there is nothing to take away elsewhere.
    assert not within[short] or getattr(measured.field, side) == 0


def test_the_grid_is_found_where_the_weights_hide_it() -> None:
    network = nn.Sequential(build("pool 4, bilinear 4"), nn.Conv2d(CHANNELS, 2, 1))
    nn.init.zeros_(network[1].weight)
    measured = measure(network, CHANNELS)
    assert (measured.border.largest, measured.legal_step) == (5, 4)


class Swallowing(nn.Module):
    """Replaces NaN, as some networks do with their input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.network(torch.nan_to_num(image))
        return result


@pytest.mark.parametrize("name", ["same U-Net, depth 1", "dilated 1, 2, 4"])
def test_where_nan_is_swallowed_the_border_is_found_but_not_proved(name: str) -> None:
    measured = measure(Swallowing(build(name)), CHANNELS)
    assert measured.border.largest == ZOO[name].border
    assert not measured.proved
    assert "NaN does not pass" in measured.remarks[0]


@pytest.mark.parametrize(
    ("name", "size"), [("same U-Net, depth 2", 128), ("valid U-Net, depth 2", 140)]
)
def test_a_network_of_one_size_is_measured_in_it(name: str, size: int) -> None:
    network = build(name)

    def run(image: Tensor) -> Tensor:
        assert image.shape == (1, CHANNELS, size, size)
        result: Tensor = network(image)
        return result

    measured = measure(run, CHANNELS, fixed_size=size)
    assert (measured.fixed_size, measured.smallest_input) == (size, size)
    assert measured.geometry == network.geometry
    assert measured.difference < 1e-6


def test_a_fixed_size_that_is_too_small_is_not_taken_for_proof() -> None:
    measured = measure(build("same U-Net, depth 2"), CHANNELS, fixed_size=32)
    assert not measured.local


FAULTS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "output a quarter as large": (nn.AvgPool2d(4), "4 pixels per side for 16"),
    "output four times as large": (nn.Upsample(scale_factor=4), "64 pixels per side for 16"),
    "two outputs": (lambda image: (image, image), "a tuple; it must give one tensor"),
    "no image": (lambda image: image.mean((2, 3)), "shape (1, 2); it must give"),
    "not finite": (lambda image: image / 0, "not finite"),
    "other channels": (nn.Conv2d(5, 2, 3), "ran on no square"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_network_that_cannot_be_tiled_is_refused(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, message = FAULTS[fault]
    monkeypatch.setattr("tilesegment.model.probing.sizes.LARGEST_TRIED", 80)
    with pytest.raises(ModelError) as error:
        measure(run, CHANNELS)
    assert message in str(error.value)


def test_measuring_leaves_running_statistics_as_they_were() -> None:
    network = build("BatchNorm in training mode")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    measure(network, CHANNELS)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "3x3": lambda: nn.Conv2d(3, 3, 3, padding=1),
    "valid 3x3": lambda: nn.Conv2d(3, 3, 3),
    "dilated": lambda: nn.Conv2d(3, 3, 3, padding=3, dilation=3),
    "1x5": lambda: nn.Conv2d(3, 3, (1, 5), padding=(0, 2)),
    "ReLU": nn.ReLU,
    "pool 2, nearest": lambda: nn.Sequential(nn.MaxPool2d(2), nn.Upsample(scale_factor=2)),
    "pool 3, transposed": lambda: nn.Sequential(
        nn.MaxPool2d(3), nn.ConvTranspose2d(3, 3, 5, stride=3, padding=1)
    ),
    "stride 2, bilinear": lambda: nn.Sequential(
        nn.Conv2d(3, 3, 3, stride=2, padding=1), nn.Upsample(scale_factor=2, mode="bilinear")
    ),
}


def by_tiles(network: nn.Module, geometry: NetworkGeometry, picture: Tensor, tile: int) -> Tensor:
    """Outputs of tiles of a picture that has the halo around it, put together."""
    halo, crop = geometry.halo, slice(geometry.crop, geometry.crop + tile)
    height, width = (size - 2 * halo for size in picture.shape[-2:])
    rows = [
        torch.cat(
            [
                network(picture[..., y : y + tile + 2 * halo, x : x + tile + 2 * halo])[
                    ..., crop, crop
                ]
                for x in range(0, width, tile)
            ],
            dim=3,
        )
        for y in range(0, height, tile)
    ]
    return torch.cat(rows, dim=2)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_tiles_with_the_measured_halo_equal_one_pass(data: st.DataObject) -> None:
    """For any chain of layers, or with a clear refusal."""
    torch.manual_seed(data.draw(st.integers(0, 99)))
    names = data.draw(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=4))
    network = nn.Sequential(*(LAYERS[name]() for name in names)).eval()
    try:
        geometry = measure(network, 3).geometry
    except ModelError:
        # A rim that only some sizes lose, and only odd ones do without; see the refusals above.
        assume(False)
    tile = geometry.smallest_tile + geometry.alignment * data.draw(st.integers(0, 2))
    picture = torch.rand(1, 3, *(geometry.input_size(2 * tile) for _ in "yx"))
    with torch.inference_mode():
        whole = network(picture)
        crop = slice(geometry.crop, geometry.crop + 2 * tile)
        whole = whole[..., crop, crop]
        tiles = by_tiles(network, geometry, picture, tile)
    # Sums over inputs of other sizes may be made in another order (docs/exactness.md).
    torch.testing.assert_close(tiles, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
