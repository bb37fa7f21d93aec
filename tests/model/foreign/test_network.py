"""Axes in any order."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from tilesegment.model.foreign.network import ForeignNetwork, Run


@dataclass(frozen=True)
class Echo:
    """A network that gives what it is given, and notes its shape."""

    seen: list[tuple[int, ...]] = field(default_factory=list)

    def load(self, content: bytes, device: str) -> Run:
        def run(image: Tensor) -> Tensor:
            self.seen.append(tuple(image.shape))
            return image

        return run


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("bcyx", (1, 3, 5, 7)), ("byxc", (1, 5, 7, 3)), ("cyx", (3, 5, 7)), ("yxc", (5, 7, 3))],
)
def test_a_network_sees_its_own_order_of_axes(axes: str, shape: tuple[int, ...]) -> None:
    echo = Echo()
    network = ForeignNetwork(echo, input_axes=axes, output_axes=axes)
    image = torch.rand(1, 3, 5, 7)
    assert torch.equal(network.load(b"", "cpu")(image), image)
    assert echo.seen == [shape]


def test_one_channel_of_the_output_is_used_where_one_is_chosen() -> None:
    image = torch.rand(1, 3, 5, 7)
    found = ForeignNetwork(Echo(), output_channel=2).load(b"", "cpu")(image)
    assert torch.equal(found, image[:, 2:])
