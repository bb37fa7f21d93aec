"""The U-Net as a CPU computes it: convolution and ReLU in one step, weights laid out once.

Two reasons, and the second is why this is not optional for exactness:

* speed: no second pass over each feature map, no reordering of weights for each tile;
* order of summation: ``torch.nn.functional.conv2d`` picks its implementation by the size of
  the input (below 20 480 values another library computes it), so a tile and the whole image
  could be summed in different orders and differ in the last bit. Every convolution here is
  oneDNN's, whatever the size. See docs/exactness.md for what was measured.

The operator is the one that ``torch.compile`` emits on x86-64 CPUs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tilesegment.model.unet import UNet


def can_fuse() -> bool:
    """Whether this torch has oneDNN, as on x86-64."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def fuse(network: UNet) -> UNet:
    """The same network with fused layers, for inference on a CPU; `network` is changed."""
    _replace_levels(network, lambda convolution: [Convolution(convolution, relu=True)])
    for index, up in enumerate(network.up):
        network.up[index] = _fuse_up(up)
    network.head = Convolution(network.head, relu=False)  # type: ignore[assignment]
    network.pool = MaxPool()  # type: ignore[assignment]
    return network


def fold(network: UNet) -> UNet:
    """The same network without batch normalisation, for any device; `network` is changed."""
    _replace_levels(network, lambda convolution: [convolution, nn.ReLU(inplace=True)])
    return network


def _replace_levels(network: UNet, layers: Callable[[nn.Conv2d], list[nn.Module]]) -> None:
    network.eval()
    for path in (network.contracting, network.expansive):
        for index, level in enumerate(path):
            folded = fold_batch_norm(level)
            path[index] = nn.Sequential(*(layer for one in folded for layer in layers(one)))


def fold_batch_norm(level: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of a level, each with the batch normalisation behind it, if any."""
    convolutions: list[nn.Conv2d] = []
    for layer in level.children():
        if isinstance(layer, nn.Conv2d):
            convolutions.append(layer)
        elif isinstance(layer, nn.BatchNorm2d):
            convolutions[-1] = nn.utils.fusion.fuse_conv_bn_eval(convolutions[-1], layer)
    return convolutions


def _fuse_up(up: nn.Module) -> nn.Module:
    if isinstance(up, nn.ConvTranspose2d):
        return _UpConvolution(up)
    upsample, convolution = up.children()
    assert isinstance(convolution, nn.Conv2d)  # noqa: S101 - narrows the type, see _up_convolution
    return nn.Sequential(upsample, Convolution(convolution, relu=False))


class Convolution(nn.Module):
    """A convolution of stride 1, and the ReLU behind it."""

    def __init__(self, convolution: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        side = convolution.kernel_size[0] // 2 if convolution.padding == "same" else 0
        self.padding = [side, side]
        self.after = "relu" if relu else "none"
        self.bias = convolution.bias
        weight = convolution.weight.detach()
        # For one input channel oneDNN sums in another order where the image is 3 to 6 px wide.
        self.lone_channel = convolution.in_channels == 1
        if self.lone_channel:
            weight = _with_empty_channel(weight)
        # The input size only guides the choice of the weights' memory layout.
        example = [1, weight.shape[1], 256, 256]
        self.weight = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
            weight.to_mkldnn(), self.padding, [1, 1], [1, 1], 1, example
        )

    def forward(self, image: Tensor) -> Tensor:
        if self.lone_channel:
            image = _with_empty_channel(image)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            image, self.weight, self.bias, self.padding, [1, 1], [1, 1], 1, self.after, [], ""
        )
        return result


def _with_empty_channel(tensor: Tensor) -> Tensor:
    """(n, 1, h, w) to (n, 2, h, w), the second channel 0."""
    padded = nn.functional.pad(tensor, (0, 0, 0, 0, 0, 1))
    return padded.contiguous(memory_format=torch.channels_last)


class _UpConvolution(nn.Module):
    """A 2x2 transposed convolution of stride 2, as a 1x1 convolution to four pixels at once."""

    def __init__(self, up: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.pointwise = Convolution(as_pointwise(up), relu=False)

    def forward(self, image: Tensor) -> Tensor:
        return spread(self.pointwise(image))


def as_pointwise(up: nn.ConvTranspose2d) -> nn.Conv2d:
    """A 2x2 transposed convolution of stride 2 as a 1x1 one, whose result is to be `spread`."""
    inputs, outputs = up.in_channels, up.out_channels
    pointwise = nn.Conv2d(inputs, 4 * outputs, kernel_size=1)
    with torch.no_grad():
        # (in, out, dy, dx) to (dy, dx, out, in): each pixel's channels stay together.
        weight = up.weight.permute(2, 3, 1, 0)
        pointwise.weight.copy_(weight.reshape(4 * outputs, inputs, 1, 1))
        if up.bias is not None and pointwise.bias is not None:
            pointwise.bias.copy_(up.bias.repeat(4))
    return pointwise.to(up.weight.dtype)


def spread(four: Tensor) -> Tensor:
    """(n, 4 c, h, w), channels last, to (n, c, 2 h, 2 w): each pixel becomes two by two."""
    count, channels, height, width = four.shape
    pixels = four.permute(0, 2, 3, 1).reshape(count, height, width, 2, 2, channels // 4)
    pixels = pixels.permute(0, 1, 3, 2, 4, 5)
    pixels = pixels.reshape(count, 2 * height, 2 * width, channels // 4)
    return pixels.permute(0, 3, 1, 2)


class MaxPool(nn.Module):
    """The largest of each two by two pixels, of any type; faster than torch's."""

    def forward(self, image: Tensor) -> Tensor:
        # Like torch's it leaves out the last pixel of an odd number.
        height, width = (size // 2 * 2 for size in image.shape[-2:])
        rows = torch.maximum(image[:, :, 0:height:2], image[:, :, 1:height:2])
        return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])
