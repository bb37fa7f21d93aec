"""Convolutions of any size by one library."""

from pathlib import Path

import torch
from torch import nn

from tests.foreign import sha256, write_torchscript
from tilesegment.model.foreign.summation import OneLibrary
from tilesegment.model.foreign.torch_file import open_torch_file

Layer = nn.Conv2d | nn.ConvTranspose2d


def differing(layer: Layer, wide: int, narrow: int) -> int:
    """Values of a narrow input's output that differ from a wide one's."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, layer.in_channels, 24, wide, generator=generator)
    with torch.inference_mode():
        whole, part = layer(image), layer(image[..., :narrow])
    kept = part.shape[-1] - 2
    return int((whole[..., :kept] != part[..., :kept]).sum())


def layers() -> list[Layer]:
    torch.manual_seed(0)
    return [
        *(nn.Conv2d(inputs, 5, 3) for inputs in (1, 3, 16)),
        nn.Conv2d(4, 8, 3, padding="same", groups=2),
        nn.Conv2d(6, 3, 3, dilation=2),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
    ]


def test_torch_alone_sums_small_inputs_in_another_order() -> None:
    """What `OneLibrary` is for; if this fails, it may be needed no more."""
    assert sum(differing(layer, 640, 20) for layer in layers())


def test_the_size_of_the_input_changes_no_bit() -> None:
    with OneLibrary():
        assert [differing(layer, 640, 20) for layer in layers()] == [0] * 6


def test_scripted_networks_are_intercepted_too(tmp_path: Path) -> None:
    layer = layers()[2]
    image = torch.rand(1, 16, 12, 12)
    path = write_torchscript(layer, tmp_path / "m.pt", image)
    trusted = f"sha256:{sha256(path)}"
    run = open_torch_file(path, trusted, None).load()
    with torch.inference_mode(), OneLibrary():
        assert torch.equal(run(image), layer(image))


def test_it_computes_what_torch_does() -> None:
    for layer in layers():
        image = torch.rand(1, layer.in_channels, 9, 9)
        with torch.inference_mode():
            plain = layer(image)
            with OneLibrary():
                found = layer(image)
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-6)
