"""Borders, halos and legal sizes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesegment.geometry import nearest_multiples, round_up, unet_geometry
from tilesegment.model.unet import UNet

PADDINGS = ["valid", "same"]
UPSAMPLINGS = ["transposed", "interpolate"]


@pytest.mark.parametrize(("depth", "loss"), [(1, 8), (2, 20), (3, 44), (4, 92), (5, 188)])
def test_the_papers_network_loses_6_times_2_to_the_depth_minus_4(depth: int, loss: int) -> None:
    assert unet_geometry(depth).loss == 6 * 2**depth - 4 == loss


def test_572_is_legal_and_gives_388() -> None:
    """Figure 1: "U-net architecture (example for 32x32 pixels in the lowest resolution)"."""
    geometry = unet_geometry(4)
    assert geometry.is_legal_input(572)
    assert 572 - 2 * geometry.loss == 388
    assert not any(geometry.is_legal_input(size) for size in range(573, 588))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_output_size_of_the_real_network(padding: str, upsampling: str, depth: int) -> None:
    network = UNet(1, 2, base_channels=1, depth=depth, padding=padding, upsampling=upsampling)
    geometry = network.geometry
    size = geometry.input_size(geometry.smallest_tile)
    assert geometry.is_legal_input(size)
    with torch.no_grad():
        assert network(torch.zeros(1, 1, size, size)).shape[-1] == size - 2 * geometry.loss


def reach(network: UNet, size: int, phase: int) -> tuple[int, int]:
    """How far left and right of an output pixel the input changes it, by gradient."""
    image = torch.zeros(1, 1, size, size, requires_grad=True)
    row = size // 2 // 16 * 16 + phase
    network(image)[0, 0, row, size // 2].backward()
    touched = image.grad.abs().sum(dim=(0, 1, 3)).nonzero()[:, 0]
    return row - int(touched.min()), int(touched.max()) - row


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_border_of_same_padding_is_what_a_gradient_finds(upsampling: str, depth: int) -> None:
    """With positive weights and mean pooling nothing cancels and nothing is cut off."""
    network = UNet(1, 1, base_channels=1, depth=depth, padding="same", upsampling=upsampling)
    network.eval()
    network.pool = torch.nn.AvgPool2d(2)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.abs() + 0.01)
    size = 16 * (2 * network.geometry.border // 16 + 3)
    found = max(max(reach(network, size, phase)) for phase in range(2**depth))
    assert found == network.geometry.border


@settings(max_examples=200)
@given(
    st.integers(1, 6), st.sampled_from(PADDINGS), st.sampled_from(UPSAMPLINGS), st.integers(1, 9)
)
def test_every_tile_of_the_grid_has_a_legal_input(
    depth: int, padding: str, upsampling: str, factor: int
) -> None:
    geometry = unet_geometry(depth, padding, upsampling)
    tile = geometry.alignment * factor
    assert geometry.halo >= geometry.border
    assert geometry.is_legal_input(geometry.input_size(tile))
    assert geometry.input_size(tile) - 2 * geometry.loss - 2 * geometry.crop == tile
    assert geometry.halo - geometry.border < geometry.alignment


@given(st.integers(1, 10_000), st.sampled_from([1, 2, 8, 16, 32]))
def test_nearest_multiples_enclose(size: int, multiple: int) -> None:
    below, above = nearest_multiples(size, multiple)
    assert below % multiple == above % multiple == 0
    assert below > 0
    assert above >= size
    assert below <= max(size, multiple)
    assert round_up(size, multiple) == above
