"""The energy function (Ronneberger et al. 2015, section 3, equation 1)."""

import torch
from torch import Tensor

IGNORED = 255
"""Class of pixels that nobody annotated."""


def weighted_cross_entropy(
    logits: Tensor, classes: Tensor, border: Tensor, class_weights: Tensor
) -> Tensor:
    """Pixel-wise softmax with cross-entropy, weighted by w(x) = w_c(x) + border(x).

    "The energy function is computed by a pixel-wise soft-max over the final feature map combined
    with the cross entropy loss function" (section 3). Divided by the number of annotated pixels,
    so that the learning rate does not depend on the tile size.

    Args:
        logits: (n, k, y, x) float.
        classes: (n, y, x) int64, `IGNORED` where nobody annotated.
        border: (n, y, x) float, the second term of equation (2).
        class_weights: (k,) float, the first.

    Returns:
        One number; 0, with zero gradients, if no pixel is annotated.
    """
    annotated = classes != IGNORED
    entropy = torch.nn.functional.cross_entropy(
        logits.float(), classes, ignore_index=IGNORED, reduction="none"
    )
    weights = class_weights[classes.where(annotated, 0)] + border
    return (entropy * weights * annotated).sum() / annotated.sum().clamp(min=1)
