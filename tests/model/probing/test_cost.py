"""Parameters, arithmetic and memory of networks small enough to count by hand."""

import torch
from torch import nn

from tilesegment.model.probing.cost import measure_cost
from tilesegment.model.probing.subject import Subject
from tilesegment.model.unet import UNet


def test_a_convolution_is_counted() -> None:
    network = nn.Conv2d(2, 5, 3, padding=1)
    cost = measure_cost(Subject(network, 2), network, first=1, step=1)
    assert cost.parameters == 2 * 5 * 9 + 5
    assert cost.multiply_adds == 2 * 5 * 9
    assert cost.memory_bytes == (2 + 5) * 4


def test_maps_that_live_at_the_same_time_are_added() -> None:
    """What a chain no longer needs is not counted; what is kept for later is."""
    network = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(4)))
    chain = measure_cost(Subject(network, 3), network, first=1, step=1)
    kept = measure_cost(
        Subject(lambda image: torch.cat([network(image), network(image)], dim=1), 3), None, 1, 1
    )
    assert chain.memory_bytes == (3 + 2 * 3) * 4
    assert kept.memory_bytes == (3 + 2 * 3 + 6) * 4


def test_multiply_adds_leave_the_halo_out() -> None:
    """Per output pixel of a large image: at full size 2, at half size 3, by hand."""
    network = UNet(1, 2, base_channels=4, depth=1)
    by_hand = 9 * (1 * 4 + 4 * 4) + 9 * (4 * 8 + 8 * 8) / 4 + 8 * 4 + 9 * (8 * 4 + 4 * 4) + 4 * 2
    assert measure_cost(Subject(network, 1), network, first=18, step=2).multiply_adds == by_hand


def test_what_torch_does_not_run_is_not_known() -> None:
    cost = measure_cost(Subject(lambda image: image.detach(), 1), None, first=1, step=1)
    assert (cost.parameters, cost.multiply_adds) == (None, None)
