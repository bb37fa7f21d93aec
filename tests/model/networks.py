"""Small networks for the tests of probing, each with what is known of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.pictures import balanced
from tilesegment.model.unet import UNet

CHANNELS = 2


@dataclass(frozen=True)
class Known:
    """A network and its geometry, worked out by hand."""

    build: Callable[[], nn.Module]
    border: int = 0
    alignment: int = 1
    loss: int = 0
    """Both sides together."""
    reason: str = ""
    """What breaks locality; empty if nothing does."""


def unet(**arguments: object) -> Callable[[], nn.Module]:
    return lambda: balanced(UNet(CHANNELS, 2, **{"base_channels": 3, **arguments})).eval()


def chain(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*(layer() for layer in layers))


def conv(kernel: int = 3, width: int = 4, **options: object) -> Callable[[], nn.Module]:
    return lambda: nn.LazyConv2d(width, kernel, **options)


def up(kernel: int, stride: int, padding: int = 0) -> Callable[[], nn.Module]:
    return lambda: nn.LazyConvTranspose2d(4, kernel, stride, padding)


def upsample(scale: int, mode: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: nn.Upsample(scale_factor=scale, mode=mode, **options)


class Residual(nn.Module):
    def __init__(self, body: Callable[[], nn.Module], skip: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.body, self.skip = body(), skip()

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.body(image) + self.skip(image)
        return result


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling without the image-level branch (Chen et al. 2017)."""

    def __init__(self, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            conv(padding=dilation, dilation=dilation)() for dilation in dilations
        )

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([branch(image) for branch in self.branches], dim=1)


class SqueezeExcite(nn.Module):
    """Channels weighted by their means over the image (Hu et al. 2018)."""

    def __init__(self, mean: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.mean = mean
        self.excite = nn.Linear(4, 4)

    def forward(self, image: Tensor) -> Tensor:
        weights = self.excite(self.mean(image).flatten(1)).sigmoid()
        return image * weights[:, :, None, None]


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.flatten(2).mT
        mixed, _ = self.attention(pixels, pixels, pixels)
        return mixed.mT.reshape(image.shape)


class Between(nn.Module):
    """`inner` on a grid `scale` times coarser, resized back to whatever size came in."""

    def __init__(self, inner: Callable[[], nn.Module], scale: int) -> None:
        super().__init__()
        self.inner, self.pool = inner(), nn.MaxPool2d(scale)

    def forward(self, image: Tensor) -> Tensor:
        coarse = self.inner(self.pool(image))
        return nn.functional.interpolate(coarse, size=image.shape[-2:], mode="nearest")


class Coordinates(nn.Module):
    """Adds each pixel's row, as a share of the height."""

    def forward(self, image: Tensor) -> Tensor:
        rows = torch.linspace(0, 1, image.shape[-2])
        return image + rows[:, None]


same = conv(padding=1)
head = conv(1)
relu = nn.ReLU

ZOO: dict[str, Known] = {
    # The paper's formula, 6 * 2^d - 4 per side.
    "valid U-Net, depth 1": Known(unet(depth=1), 8, 2, 16),
    "valid U-Net, depth 2": Known(unet(depth=2), 20, 4, 40),
    "valid U-Net, depth 3": Known(unet(depth=3), 44, 8, 88),
    "valid U-Net, depth 4": Known(unet(depth=4), 92, 16, 184),
    "same U-Net, depth 1": Known(unet(depth=1, padding="same"), 9, 2),
    "same U-Net, depth 2": Known(unet(depth=2, padding="same"), 23, 4),
    "same U-Net, depth 4": Known(unet(depth=4, padding="same"), 107, 16),
    "batch norm in evaluation mode": Known(unet(depth=2, padding="same", batch_norm=True), 23, 4),
    "three 3x3 convolutions": Known(chain(same, relu, same, relu, same), 3),
    "valid 5x5 and 3x3": Known(chain(conv(5), relu, conv(3)), 3, 1, 6),
    "valid 2x2": Known(conv(2), 1, 1, 1),
    "dilated 1, 2, 4": Known(chain(*(conv(padding=rate, dilation=rate) for rate in (1, 2, 4))), 7),
    # Outputs 2i and 2i + 1 depend on 2i - 1 .. 2i + 1.
    "stride 2, transposed 2x2": Known(chain(conv(stride=2, padding=1), up(2, 2)), 2, 2),
    # Output 2i depends on 2i - 2 .. 2i + 1, output 2i + 1 on 2i .. 2i + 3.
    "pool 2, transposed 4x4": Known(chain(lambda: nn.MaxPool2d(2), up(4, 2, 1)), 2, 2),
    "pool 4, transposed 4x4": Known(chain(lambda: nn.AvgPool2d(4), up(4, 4)), 3, 4),
    # Output 4i + 1 lies between the centres of the cells 4i - 4 .. 4i - 1 and 4i .. 4i + 3.
    "pool 4, bilinear 4": Known(chain(lambda: nn.AvgPool2d(4), upsample(4, "bilinear")), 5, 4),
    "pool 3, nearest 3": Known(chain(lambda: nn.MaxPool2d(3), upsample(3, "nearest")), 2, 3),
    # Odd rows and columns reach no output; outputs 2i and 2i + 1 show pixel 2i.
    "every second pixel": Known(
        chain(lambda: nn.MaxPool2d(1, stride=2), upsample(2, "nearest")), 1, 2
    ),
    "pool 2, resized to the input": Known(lambda: Between(same, 2), 3, 2),
    "residual": Known(lambda: Residual(chain(same, relu, same), conv(1)), 2),
    "strides differ in y and x": Known(
        chain(lambda: nn.MaxPool2d((2, 4)), upsample((2, 4), "nearest")), 3, 4
    ),
    "ASPP, dilations 1, 6, 12 at stride 4": Known(
        chain(lambda: nn.MaxPool2d(4), lambda: Pyramid((1, 6, 12)), head, upsample(4, "nearest")),
        51,
        4,
    ),
    "InstanceNorm": Known(chain(same, lambda: nn.InstanceNorm2d(4), head), reason="InstanceNorm"),
    "GroupNorm": Known(chain(same, lambda: nn.GroupNorm(2, 4), head), reason="GroupNorm"),
    "squeeze-excite": Known(
        chain(same, lambda: SqueezeExcite(nn.AdaptiveAvgPool2d(1))), reason="global pooling"
    ),
    "squeeze-excite without a module": Known(
        chain(same, lambda: SqueezeExcite(lambda image: image.mean((2, 3)))),
        reason="global pooling",
    ),
    "self-attention": Known(chain(conv(8, stride=8), SelfAttention, up(8, 8)), reason="attention"),
    "BatchNorm in training mode": Known(
        chain(same, lambda: nn.BatchNorm2d(4).train()), reason="BatchNorm in training mode"
    ),
    "dropout in training mode": Known(
        chain(same, lambda: nn.Dropout().train()), reason="dropout in training mode"
    ),
    "align_corners": Known(
        chain(lambda: nn.MaxPool2d(2), same, upsample(2, "bilinear", align_corners=True)),
        reason="align_corners=True",
    ),
    "coordinates": Known(chain(same, Coordinates), reason="depends on the position"),
}


def build(name: str) -> nn.Module:
    """The network with random weights from a fixed seed."""
    torch.manual_seed(0)
    network = ZOO[name].build()
    if not isinstance(network, UNet):
        with torch.no_grad():
            network(torch.zeros(1, CHANNELS, 64, 64))  # lazy modules learn their input's channels
    return network
