"""The network in bands and without its margin, beside the same network at once."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures import balanced
from tilesegment.model.banded import BandedUNet
from tilesegment.model.fuse import can_fuse, fuse
from tilesegment.model.quantise import can_quantise, measure_ranges, quantise
from tilesegment.model.unet import UNet

pytestmark = pytest.mark.skipif(not can_fuse(), reason="this torch has no oneDNN")

NETWORKS = st.fixed_dictionaries(
    {
        "in_channels": st.integers(1, 3),
        "base_channels": st.integers(1, 5),
        "depth": st.integers(1, 3),
        "padding": st.sampled_from(("valid", "same")),
        "upsampling": st.sampled_from(("transposed", "interpolate")),
        "batch_norm": st.booleans(),
    }
)
SETTINGS = settings(max_examples=60, deadline=None)


def draw_image(network: UNet, channels: int, data: st.DataObject) -> torch.Tensor:
    """Bytes as floats, of a legal size that differs between the axes."""
    geometry = network.geometry
    sides = [
        geometry.input_size(geometry.alignment * data.draw(st.integers(1, 3))) for _ in range(2)
    ]
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, channels, *sides), generator=generator).float()
    return image.contiguous(memory_format=torch.channels_last)


def banded_and_whole(network: UNet, image: torch.Tensor, data: st.DataObject) -> list[torch.Tensor]:
    """The logits without a margin, by bands and cut out of those of the network at once."""
    height, width = image.shape[-2:]
    is_padded = network.geometry.loss == 0
    margin = data.draw(st.integers(0, (min(height, width) - 1) // 2), "margin") * is_padded
    band_bytes = data.draw(st.sampled_from((1, 1000, 4000, 20_000)), "band_bytes")
    large_bytes = data.draw(st.sampled_from((0, 10**9)), "large_bytes")
    banded = BandedUNet(network, margin, large_bytes, band_bytes)
    whole = network(image)
    inner = whole[..., margin : whole.shape[-2] - margin, margin : whole.shape[-1] - margin]
    return [banded(image), inner]


@SETTINGS
@given(data=st.data(), arguments=NETWORKS)
def test_bands_hold_the_same_bits_as_the_whole(
    data: st.DataObject, arguments: dict[str, object]
) -> None:
    network = balanced(UNet(classes=2, **arguments)).eval()
    image = draw_image(network, arguments["in_channels"], data) / 255
    with torch.inference_mode():
        assert torch.equal(*banded_and_whole(fuse(network), image, data))


@pytest.mark.skipif(not can_quantise(), reason="this CPU has no VNNI")
@SETTINGS
@given(data=st.data(), arguments=NETWORKS)
def test_so_do_bands_of_bytes(data: st.DataObject, arguments: dict[str, object]) -> None:
    network = balanced(UNet(classes=2, **arguments)).eval()
    image = draw_image(network, arguments["in_channels"], data)
    with torch.inference_mode():
        ranges = measure_ranges(copy.deepcopy(network), [image / 255])
        scale, offset = torch.tensor(1 / 255), torch.tensor(0.0)
        network = quantise(network, ranges, scale, offset)
        assert torch.equal(*banded_and_whole(network, image.to(torch.uint8), data))
