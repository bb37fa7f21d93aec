"""The effective border."""

import torch
from torch import nn

from tilesegment.geometry import YX
from tilesegment.model.probing.energy import effective_border
from tilesegment.model.probing.subject import Subject


def box(kernel: int, **options: int) -> Subject:
    convolution = nn.Conv2d(1, 1, kernel, bias=False, **options)
    nn.init.ones_(convolution.weight)
    return Subject(convolution, 1)


def test_a_uniform_kernel_matters_up_to_its_rim() -> None:
    assert effective_border(box(7, padding=3), 64, YX(0, 0)) == 3


def test_the_offset_of_an_unpadded_network_is_allowed_for() -> None:
    assert effective_border(box(7), 64, YX(3, 3)) == 3


def test_a_weak_rim_does_not_count() -> None:
    subject = box(7, padding=3)
    assert isinstance(subject.run, nn.Conv2d)
    with torch.no_grad():
        subject.run.weight[..., 1:-1, 1:-1] = 1000
    assert effective_border(subject, 64, YX(0, 0)) == 2


def test_a_network_that_ignores_its_input_has_none() -> None:
    assert effective_border(Subject(torch.zeros_like, 1), 64, YX(0, 0)) == 0
