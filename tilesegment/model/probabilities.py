"""From a network's output to the probabilities of the classes, and to what is stored of them.

Every step is one of single pixels, and sums go through the classes in their order: a pixel gets the
same bits in any tile.
"""

import torch
from torch import Tensor

_LARGEST = 255
"""What is stored for a probability of 1, see `tilesegment.storage.probabilities`."""


def probabilities_of(output: Tensor, are_given: bool) -> Tensor:
    """The probability of each class.

    Args:
        output: (outputs, y, x); one output channel is the foreground's.
        are_given: whether the network gives probabilities itself, and no logits.

    Returns:
        (classes, y, x) float32: their softmax; for one channel the sigmoid and its complement.
    """
    output = output.float().contiguous()
    if are_given:
        output = output.clamp(0, 1)
        return torch.cat([1 - output, output]) if len(output) == 1 else output
    if len(output) == 1:
        output = torch.cat([torch.zeros_like(output), output])
    return normalised(output.sub(output.amax(dim=0)).exp_())


def normalised(weights: Tensor) -> Tensor:
    """Weights (classes, y, x) divided by their sum."""
    total = weights[0].clone()
    for weight in weights[1:]:
        total.add_(weight)
    return weights.div_(total)


def as_stored(probabilities: Tensor) -> Tensor:
    """Probabilities in steps of 1/255, rounded.

    >>> as_stored(torch.tensor([0.0, 0.5, 1.0]))
    tensor([  0, 128, 255], dtype=torch.uint8)
    """
    return probabilities.mul(_LARGEST).add_(0.5).to(torch.uint8)
