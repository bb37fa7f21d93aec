"""The U-Net of Ronneberger, Fischer and Brox (2015), arXiv 1505.04597, figure 1 and section 2."""

import math
from typing import get_args

import torch
from torch import Tensor, nn

from tilesegment.errors import ModelError
from tilesegment.geometry import NetworkGeometry, Padding, Upsampling, unet_geometry


class UNet(nn.Module):
    """Contracting path, expansive path, and a copy of the features across each level.

    With the defaults and ``UNet(1, 2)`` this is the paper's network: 23 convolutional layers,
    31 030 658 parameters, 572 x 572 in, 388 x 388 out.

    Args:
        in_channels: channels of the image.
        classes: output channels. 1 means one foreground class with a sigmoid, more mean softmax.
        base_channels: feature channels at full resolution, doubled at each level below.
        depth: number of poolings.
        padding: "valid" (the paper: unpadded convolutions, the output is smaller than the input)
            or "same" (zero padding, output as large as the input).
        batch_norm: batch normalisation between each 3x3 convolution and its ReLU. In training
            mode it makes the output depend on the whole tile; call ``eval()`` before segmenting.
        upsampling: "transposed" (the paper's 2x2 up-convolution) or "interpolate" (nearest
            neighbour, then a 3x3 convolution; Odena et al. 2016).
        dropout: probability at the end of the contracting path (section 3.1); training only.

    Raises:
        ModelError: if an argument is none of these.

    Shapes: in (n, in_channels, h, w), out (n, classes, h - 2 * loss, w - 2 * loss), float; h and w
    must be legal sizes of ``geometry``.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        base_channels: int = 64,
        depth: int = 4,
        padding: Padding = "valid",
        batch_norm: bool = False,
        upsampling: Upsampling = "transposed",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        _check(in_channels, classes, base_channels, depth, padding, upsampling)
        self.arguments: dict[str, int | float | str | bool] = {
            "in_channels": in_channels,
            "classes": classes,
            "base_channels": base_channels,
            "depth": depth,
            "padding": padding,
            "batch_norm": batch_norm,
            "upsampling": upsampling,
            "dropout": dropout,
        }
        widths = [base_channels * 2**level for level in range(depth + 1)]
        inputs = [in_channels, *widths[:-1]]
        self.contracting = nn.ModuleList(
            _double_convolution(before, width, padding, batch_norm)
            for before, width in zip(inputs, widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(
            _up_convolution(2 * width, width, padding, upsampling) for width in widths[:-1]
        )
        self.expansive = nn.ModuleList(
            _double_convolution(2 * width, width, padding, batch_norm) for width in widths[:-1]
        )
        self.head = nn.Conv2d(base_channels, classes, kernel_size=1)
        self.geometry: NetworkGeometry = unet_geometry(depth, padding, upsampling)
        self.apply(_draw_weights)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of each class: (n, in_channels, h, w) to (n, classes, h', w'), float."""
        depth = len(self.up)
        skipped = []
        features = image
        for level, convolutions in enumerate(self.contracting):
            if level:
                features = self.pool(features)
            features = convolutions(features)
            if level >= depth - 1:
                features = self.dropout(features)
            skipped.append(features)
        skipped.pop()
        for level in reversed(range(depth)):
            features = self.up[level](features)
            skip = crop_to(skipped.pop(), *features.shape[-2:])
            features = torch.cat([skip, features], dim=1)
            features = self.expansive[level](features)
        logits: Tensor = self.head(features)
        return logits


def _check(
    in_channels: int, classes: int, base_channels: int, depth: int, padding: str, upsampling: str
) -> None:
    if min(in_channels, classes, base_channels, depth) < 1:
        raise ModelError(
            f"a U-Net needs at least one channel, class, base channel and pooling; got "
            f"{in_channels}, {classes}, {base_channels}, {depth}"
        )
    if padding not in get_args(Padding) or upsampling not in get_args(Upsampling):
        raise ModelError(
            f"padding {padding!r} and upsampling {upsampling!r}: use one of "
            f"{get_args(Padding)} and of {get_args(Upsampling)}"
        )


def _double_convolution(
    before: int, width: int, padding: Padding, batch_norm: bool
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, width):
        layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=padding))
        if batch_norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _up_convolution(before: int, width: int, padding: Padding, upsampling: Upsampling) -> nn.Module:
    if upsampling == "transposed":
        return nn.ConvTranspose2d(before, width, kernel_size=2, stride=2)
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(before, width, kernel_size=3, padding=padding),
    )


def crop_to(skipped: Tensor, height: int, width: int) -> Tensor:
    """The middle of the contracting path's features, as large as those that came from below."""
    top, left = (skipped.shape[-2] - height) // 2, (skipped.shape[-1] - width) // 2
    return skipped[..., top : top + height, left : left + width]


def _draw_weights(module: nn.Module) -> None:
    """Weights from N(0, 2/N), N the incoming nodes of one neuron (section 3, He et al. 2015)."""
    if isinstance(module, nn.Conv2d):
        incoming = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
    elif isinstance(module, nn.ConvTranspose2d):
        # With stride 2 and a 2x2 kernel each output pixel receives one tap per input channel.
        incoming = module.in_channels
    else:
        return
    nn.init.normal_(module.weight, std=math.sqrt(2 / incoming))
    if module.bias is not None:
        nn.init.zeros_(module.bias)
