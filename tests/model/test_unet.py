"""The network against the paper, sentence by sentence."""

import math

import pytest
import torch
from torch import nn

from tilesegment.model.unet import UNet


def paper() -> UNet:
    return UNet(in_channels=1, classes=2)


def test_23_convolutional_layers() -> None:
    """Section 2: "In total the network has 23 convolutional layers."."""
    layers = [m for m in paper().modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == 23
    assert sum(parameter.numel() for parameter in paper().parameters()) == 31_030_658


def test_572_in_388_out() -> None:
    """Figure 1: input image tile 572 x 572, output segmentation map 388 x 388."""
    network = UNet(1, 2, base_channels=2)
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)


def test_channels_double_on_the_way_down() -> None:
    """Section 2: "At each downsampling step we double the number of feature channels."."""
    widths = [level[0].out_channels for level in paper().contracting]
    assert widths == [64, 128, 256, 512, 1024]


def test_weights_are_drawn_with_variance_two_over_incoming_nodes() -> None:
    """Section 3: "a Gaussian distribution with a standard deviation of sqrt(2/N)"."""
    torch.manual_seed(0)
    for layer in paper().modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 10_000:
            incoming = layer.in_channels * layer.kernel_size[0] ** 2
            assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / incoming), rel=0.02)
            assert layer.bias is not None
            assert not layer.bias.any()


def test_signal_keeps_its_size_through_the_layers() -> None:
    """Section 3: "each feature map in the network has approximately unit variance"."""
    torch.manual_seed(0)
    network = UNet(1, 2, base_channels=32, depth=2).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, 1, 124, 124))
    assert 0.2 < logits.std().item() < 5


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("upsampling", ["transposed", "interpolate"])
def test_same_padding_keeps_the_size(depth: int, classes: int, upsampling: str) -> None:
    network = UNet(
        2, classes, base_channels=3, depth=depth, padding="same", batch_norm=True,
        upsampling=upsampling,
    )  # fmt: skip
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 2, 48, 64)).shape == (1, classes, 48, 64)


def test_gradients_reach_every_weight() -> None:
    torch.manual_seed(0)
    network = UNet(1, 2, base_channels=4, depth=4, dropout=0.0)
    size = network.geometry.input_size(96)
    network(torch.randn(1, 1, size, size)).square().mean().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name
