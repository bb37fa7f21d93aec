"""How much of a network's field matters: its effective border."""

import torch
from torch import Tensor

from tilesegment.geometry import YX
from tilesegment.model.probing.subject import Subject

SHARE = 0.999
"""Of the energy that must lie within the effective border."""
_PIXELS = 8
"""Positions that are disturbed."""


def effective_border(subject: Subject, size: int, offset: YX) -> int:
    """Distance within which 99.9 % of the effect of a pixel lies, on random pictures.

    One pixel after another is inverted; the squared changes of the output are added up by their
    distance from it (the larger of rows and columns). Compare Luo et al. 2016,
    arXiv 1701.04128, who do it by gradients.

    Args:
        subject: the network.
        size: legal, of the input; larger than twice the field.
        offset: position in the input of the output's first pixel.

    Returns:
        Pixels; 0 if no output changes.
    """
    picture = subject.picture(YX(size, size))
    plain = subject.output(picture)
    energy = torch.zeros(2 * size, dtype=torch.float64)
    for index in range(_PIXELS):
        y, x = size // 2 + index, size // 2 - 3 * index % _PIXELS
        disturbed = picture.clone()
        disturbed[:, y, x] = 1 - disturbed[:, y, x]
        change = (subject.output(disturbed) - plain).double().square().sum(dim=0)
        distance = _distances(change, y - offset.y, x - offset.x)
        energy.index_add_(0, distance.flatten(), change.flatten())
    within = energy.cumsum(dim=0)
    return int((within < SHARE * within[-1]).sum())


def _distances(output: Tensor, y: int, x: int) -> Tensor:
    """Of each output pixel from one position: the larger of rows and columns, (y', x') int."""
    rows = (torch.arange(output.shape[0]) - y).abs()
    columns = (torch.arange(output.shape[1]) - x).abs()
    return torch.maximum(rows[:, None], columns[None, :])
