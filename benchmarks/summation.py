"""How often a part of an image gives other last bits than the whole, by how it is convolved.

    python benchmarks/summation.py [--trials 4000]

First single convolutions of random size, cut from larger ones; then whole U-Nets, tiles against
one pass. "torch" is the plain network, which chooses a library by input size; "fused" is what
tilesegment runs on a CPU (tilesegment/model/fuse.py).
"""

import argparse
import random
from collections.abc import Callable

import torch
from common import save_results
from torch import Tensor, nn

import tilesegment as ts
from tilesegment.geometry import round_up
from tilesegment.model.fuse import _Convolution, fuse

Network = Callable[[Tensor], Tensor]


def equal_in_part(convolve: Network, image: Tensor) -> bool:
    """Whether a random window of the image gives the same numbers as the whole there."""
    height, width = image.shape[-2:]
    rows, columns = random.randint(3, height), random.randint(3, width)
    top, left = random.randint(0, height - rows), random.randint(0, width - columns)
    window = image[..., top : top + rows, left : left + columns]
    part = convolve(window.contiguous(memory_format=torch.channels_last))
    whole = convolve(image)
    shrunk = image.shape[-1] - whole.shape[-1]
    return torch.equal(part, whole[..., top : top + rows - shrunk, left : left + columns - shrunk])


def convolutions(trials: int) -> dict[str, int]:
    """Convolutions that differ, of `trials`."""
    differing = {"torch": 0, "fused": 0}
    for _ in range(trials):
        inputs, outputs = (random.choice([1, 2, 3, 4, 8, 16, 24, 32, 64]) for _ in "io")
        layer = nn.Conv2d(inputs, outputs, random.choice([1, 3, 3]), padding="valid")
        plain = layer.to(memory_format=torch.channels_last)
        image = torch.randn(1, inputs, random.randint(8, 90), random.randint(8, 90))
        image = image.contiguous(memory_format=torch.channels_last)
        differing["torch"] += not equal_in_part(plain, image)
        differing["fused"] += not equal_in_part(_Convolution(layer, relu=False), image)
    return differing


def networks(trials: int) -> dict[str, int]:
    """U-Nets of which a tile differs from the whole image, of `trials`."""
    differing = {"torch": 0, "fused": 0}
    for _ in range(trials):
        network = ts.UNet(
            random.randint(1, 4),
            random.randint(1, 4),
            base_channels=random.choice([1, 2, 4, 8, 16, 24]),
            depth=random.randint(1, 4),
            padding=random.choice(["valid", "same"]),
        ).eval()
        geometry = network.geometry
        tile = geometry.smallest_tile + geometry.alignment * random.randint(0, 4)
        size = [round_up(random.randint(1, 3 * tile), tile) + 2 * geometry.halo for _ in "yx"]
        image = torch.rand(1, int(network.arguments["in_channels"]), *size)
        image = image.contiguous(memory_format=torch.channels_last)
        plain = network.to(memory_format=torch.channels_last)
        differing["torch"] += not tiles_equal(plain, image, tile)
        differing["fused"] += not tiles_equal(fuse(network), image, tile)
    return differing


def tiles_equal(network: ts.UNet, image: Tensor, tile: int) -> bool:
    """Whether every tile of a mirrored image equals the whole pass there."""
    crop, side = network.geometry.crop, network.geometry.input_size(tile)
    whole = network(image)[..., crop:, crop:]
    for top in range(0, image.shape[-2] - side + 1, tile):
        for left in range(0, image.shape[-1] - side + 1, tile):
            window = image[..., top : top + side, left : left + side]
            part = network(window.contiguous(memory_format=torch.channels_last))
            part = part[..., crop : crop + tile, crop : crop + tile]
            if not torch.equal(part, whole[..., top : top + tile, left : left + tile]):
                return False
    return True


def main() -> None:
    """Measure, print, and write benchmarks/results/summation.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000)
    trials = parser.parse_args().trials
    random.seed(0)
    torch.manual_seed(0)
    with torch.inference_mode():
        results = {
            "convolutions": {"trials": trials, "differing": convolutions(trials)},
            "networks": {"trials": trials // 25, "differing": networks(trials // 25)},
        }
    print(results)
    save_results("summation", results)


if __name__ == "__main__":
    main()
