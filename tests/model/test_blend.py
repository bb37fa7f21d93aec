"""Windows of a network without a finite border: the same for every tile."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.pictures import mirrored, random_pixels
from tilesegment.blending import Blend
from tilesegment.config import BlendKind
from tilesegment.geometry import YX, NetworkGeometry
from tilesegment.model.blend import BlendedNetwork
from tilesegment.tiling import TileGrid

CPU = torch.device("cpu")
GEOMETRY = NetworkGeometry(border=0, alignment=4, loss=0, residue=0)


class NotLocal(nn.Module):
    """Every output pixel depends on the whole input: instance normalisation, pooled features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.norm = nn.InstanceNorm2d(6)
        self.last = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.first(image)))
        logits: Tensor = self.last(features + features.mean(dim=(-2, -1), keepdim=True))
        return logits


def by_tiles(blended: BlendedNetwork, plane: np.ndarray, tile: int) -> np.ndarray:
    grid = TileGrid(YX(*plane.shape[-2:]), 1, tile)
    result = np.zeros((3, *plane.shape[-2:]), np.float32)
    with torch.inference_mode():
        for item in grid.tiles():
            pixels = mirrored(plane, grid.read_window(item, blended.blend.geometry.halo))
            logits = blended(torch.from_numpy(pixels)[None])[0].numpy()
            window = grid.write_window(item)
            result[(slice(None), *window.slices)] = logits[:, : window.height, : window.width]
    return result


@settings(max_examples=12)
@given(data=st.data())
def test_every_tile_size_gives_the_same_bits(data: st.DataObject) -> None:
    kind: BlendKind = data.draw(st.sampled_from(["gaussian", "mean"]))
    steps = data.draw(st.integers(3, 8))
    blend = Blend(kind, 32, 4 * steps, GEOMETRY)
    blended = BlendedNetwork(NotLocal().eval(), blend, CPU)
    plane = random_pixels((2, *(data.draw(st.integers(1, 70)) for _ in "yx")), "float32")
    torch.set_num_threads(data.draw(st.integers(1, 2)))
    whole = by_tiles(blended, plane, blend.step * (70 // blend.step + 1))
    torch.set_num_threads(data.draw(st.integers(1, 2)))
    tile = blend.step * data.draw(st.integers(2, 4))
    np.testing.assert_array_equal(by_tiles(blended, plane, tile), whole)


@pytest.mark.parametrize("kind", ["gaussian", "mean"])
def test_a_pixel_is_the_weighted_mean_of_the_windows_that_touch_it(kind: BlendKind) -> None:
    """By brute force over a plane that needs no mirroring."""
    network = NotLocal().eval()
    blend = Blend(kind, 32, 16, GEOMETRY)
    plane = random_pixels((2, 96, 96), "float32")
    total, weight = np.zeros((3, 96, 96)), np.zeros((96, 96))
    with torch.inference_mode():
        for y in range(0, 65, 16):
            for x in range(0, 65, 16):
                window = torch.from_numpy(plane[:, y : y + 32, x : x + 32])[None]
                total[:, y : y + 32, x : x + 32] += network(window)[0].numpy() * blend.weights()
                weight[y : y + 32, x : x + 32] += blend.weights()
    found = by_tiles(BlendedNetwork(network, blend, CPU), plane, 48)
    inside = slice(16, 80)
    np.testing.assert_allclose(
        found[:, inside, inside], (total / weight)[:, inside, inside], rtol=0, atol=1e-4
    )


def test_without_blending_such_tiles_differ() -> None:
    """What the windows are for: the same network shown whole tiles."""
    network, plane = NotLocal().eval(), random_pixels((2, 64, 64), "float32")
    blend = Blend("mean", 64, 64, GEOMETRY)
    other = Blend("mean", 32, 32, GEOMETRY)
    large = by_tiles(BlendedNetwork(network, blend, CPU), plane, 64)
    small = by_tiles(BlendedNetwork(network, other, CPU), plane, 32)
    assert not np.allclose(large, small, atol=1e-3)
