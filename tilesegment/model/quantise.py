"""The U-Net in 8-bit integers, for CPUs that multiply them fast (VNNI).

Feature maps are bytes with a scale and a zero point per map, weights signed bytes with a scale per
output channel (Jacob et al. 2018, section 2). Products are summed in 32-bit integers, where the
order of summation does not matter: tiles equal the whole image here, too. What the values of a
map may be, its range, is measured by `tilesegment calibrate` and kept in the model file.

The operator is the one that ``torch.compile`` emits for quantised networks on x86-64 CPUs.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tilesegment.model.file import Ranges
from tilesegment.model.fuse import Convolution as FloatConvolution
from tilesegment.model.fuse import MaxPool, as_pointwise, fold_batch_norm, fuse, spread
from tilesegment.model.unet import UNet

_STEPS = 255
"""From the smallest to the largest byte."""
_LARGEST_WEIGHT = 127
_KEPT = 0.9999
"""Share of a map's values that its range holds; the others are clipped."""
_SAMPLED = 1 << 20
"""Values of a map that its range is taken from."""


def can_quantise() -> bool:
    """Whether this CPU sums products of bytes in 32 bits; older ones saturate at 16."""
    return bool(torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported())  # type: ignore[no-untyped-call]


class _Steps:
    """How the values of a feature map become bytes."""

    def __init__(self, *ranges: tuple[float, float]) -> None:
        """The steps of a map that holds the values of all these ranges, and 0 exactly."""
        low, high = min(0.0, *(low for low, _ in ranges)), max(high for _, high in ranges)
        self.scale = max(high - low, 1e-6) / _STEPS
        self.zero = round(-low / self.scale)


_AS_IT_IS = _Steps((0, _STEPS))


def quantise(network: UNet, ranges: Ranges, scale: Tensor, offset: Tensor) -> UNet:
    """The same network on bytes; `network` is changed.

    Args:
        network: with float32 weights.
        ranges: of its feature maps, as `measure_ranges` gives them.
        scale: (channels, 1, 1) or one, by which bytes are multiplied before the network,
        offset: and what is then added to them.

    Returns:
        A network from (n, channels, h, w) to logits in float32. It takes bytes, before they are
        multiplied, or float32, after.
    """
    network.eval()
    depth = len(network.up)
    # Where maps are joined, both have the same steps.
    left: list[_Steps] = []
    features = _AS_IT_IS
    for level, convolutions in enumerate(network.contracting):
        first, second = fold_batch_norm(convolutions)
        between = _Steps(ranges[_name("contracting", level, 0)])
        joined = [ranges[f"up.{level}"]] if level < depth else []
        left.append(_Steps(ranges[_name("contracting", level, 1)], *joined))
        network.contracting[level] = nn.Sequential(
            _Convolution(first, features, between)
            if level
            else _Entry(first, between, scale, offset),
            _Convolution(second, between, left[level]),
        )
        features = left[level]
    for level in reversed(range(depth)):
        network.up[level] = _quantise_up(network.up[level], features, left[level])
        first, second = fold_batch_norm(network.expansive[level])
        between, after = (_Steps(ranges[_name("expansive", level, index)]) for index in (0, 1))
        network.expansive[level] = nn.Sequential(
            _Convolution(first, left[level], between), _Convolution(second, between, after)
        )
        features = after
    network.head = _Convolution(network.head, features, None)  # type: ignore[assignment]
    network.pool = MaxPool()  # type: ignore[assignment]
    return network


def _name(path: str, level: int, index: int) -> str:
    """Of the map behind the first or second convolution of a level."""
    return f"{path}.{level}.{index}"


def _quantise_up(up: nn.Module, before: _Steps, after: _Steps) -> nn.Module:
    if isinstance(up, nn.ConvTranspose2d):
        return _UpConvolution(up, before, after)
    upsample, convolution = up.children()
    assert isinstance(convolution, nn.Conv2d)  # noqa: S101 - narrows the type, see UNet
    return nn.Sequential(upsample, _Convolution(convolution, before, after, relu=False))


class _Convolution(nn.Module):
    """A convolution of stride 1 and the ReLU behind it, from bytes to bytes, or to float32."""

    def __init__(
        self, convolution: nn.Conv2d, before: _Steps, after: _Steps | None, relu: bool = True
    ) -> None:
        super().__init__()
        side = convolution.kernel_size[0] // 2 if convolution.padding == "same" else 0
        self.padding = [side, side]
        self.before = before
        weight = convolution.weight.detach().float()
        largest = weight.abs().amax((1, 2, 3)).clamp(min=1e-12)
        self.scales = largest / _LARGEST_WEIGHT
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        bytes_ = (weight / self.scales[:, None, None, None]).round().to(torch.int8)
        # The input size only guides the choice of the weights' memory layout.
        example = [1, weight.shape[1], 256, 256]
        self.weight = torch.ops.onednn.qconv_prepack(
            bytes_, self.scales, before.scale, before.zero,
            [1, 1], self.padding, [1, 1], 1, example,
        )  # fmt: skip
        self.bias = None if convolution.bias is None else convolution.bias.detach().float()
        self.after: tuple[Any, ...] = (1.0, 0, torch.float32, "none")
        if after is not None:
            self.after = (after.scale, after.zero, torch.uint8, "relu" if relu else "none")

    def forward(self, image: Tensor) -> Tensor:
        scale, zero, dtype, then = self.after
        result: Tensor = torch.ops.onednn.qconv2d_pointwise(
            image, self.before.scale, self.before.zero, self.weight, self.scales, self.zeros,
            self.bias, [1, 1], self.padding, [1, 1], 1, scale, zero, dtype, then, [], "",
        )  # fmt: skip
        return result


class _UpConvolution(nn.Module):
    """A 2x2 transposed convolution of stride 2."""

    def __init__(self, up: nn.ConvTranspose2d, before: _Steps, after: _Steps) -> None:
        super().__init__()
        self.pointwise = _Convolution(as_pointwise(up), before, after, relu=False)

    def forward(self, image: Tensor) -> Tensor:
        return spread(self.pointwise(image))


class _Entry(nn.Module):
    """The first convolution: of bytes as they are in the image, or of float32."""

    def __init__(
        self, convolution: nn.Conv2d, after: _Steps, scale: Tensor, offset: Tensor
    ) -> None:
        super().__init__()
        self.after = after
        self.floats = FloatConvolution(convolution, relu=True)
        weight = convolution.weight.detach()
        raw = copy.deepcopy(convolution)
        with torch.no_grad():
            raw.weight.mul_(scale)
            assert raw.bias is not None  # noqa: S101 - as in every U-Net
            raw.bias.add_((weight * offset).sum((1, 2, 3)))
        self.bytes = _Convolution(raw, _AS_IT_IS, after)

    def forward(self, image: Tensor) -> Tensor:
        if image.dtype == torch.uint8:
            result: Tensor = self.bytes(image)
            return result
        steps: Tensor = self.floats(image).div_(self.after.scale).round_().add_(self.after.zero)
        return steps.clamp_(0, _STEPS).to(torch.uint8)


def measure_ranges(network: UNet, inputs: Iterable[Tensor]) -> Ranges:
    """The ranges of the feature maps on some inputs, without the rarest values.

    Args:
        network: with float32 weights; it is changed.
        inputs: (1, channels, h, w) float32, normalised.

    Returns:
        Smallest and largest value by the name of the map.
    """
    ranges: dict[str, tuple[float, float]] = {}
    network = fuse(network)

    def watch(name: str, module: nn.Module) -> None:
        def record(module: nn.Module, given: Any, values: Tensor) -> None:
            found = _range_of(values)
            known = ranges.get(name, found)
            ranges[name] = min(known[0], found[0]), max(known[1], found[1])

        module.register_forward_hook(record)

    paths: Mapping[str, nn.ModuleList] = {
        "contracting": network.contracting,
        "expansive": network.expansive,
    }
    for path, levels in paths.items():
        for level, convolutions in enumerate(levels):
            for index, convolution in enumerate(convolutions.children()):
                watch(_name(path, level, index), convolution)
    for level, up in enumerate(network.up):
        watch(f"up.{level}", up)
    with torch.inference_mode():
        for image in inputs:
            network(image.contiguous(memory_format=torch.channels_last))
    return ranges


def _range_of(values: Tensor) -> tuple[float, float]:
    """What all but the rarest values lie in."""
    flat = values.permute(0, 2, 3, 1).flatten()
    sample = flat[:: max(len(flat) // _SAMPLED, 1)].float().sort().values
    outside = int(len(sample) * (1 - _KEPT) / 2)
    return float(sample[outside]), float(sample[-1 - outside])
