"""The weight map that opens gaps between touching cells (Ronneberger et al. 2015, section 3).

    w(x) = w_c(x) + w0 * exp(-(d1(x) + d2(x))**2 / (2 * sigma**2))            equation (2)

The first term balances the class frequencies of the whole data set, the second one is large
where two objects are near: d1 and d2 are the distances to the nearest and second nearest one.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

REACH = 6.0
"""Distances beyond this many sigma are not looked at: exp(-18) is below float32's resolution."""


@dataclass(frozen=True)
class BorderWeight:
    """The second term of equation (2)."""

    w0: float = 10.0
    """Weight of a pixel that touches two objects; 0 turns the term off."""
    sigma: float = 5.0
    """How fast it falls with the distance to both, in pixels."""


def separate_touching(instances: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Put a background ridge, one pixel wide, between objects that touch.

    "In the segmentation, touching cells are separated by a small background ridge" (section 3).
    Of two touching objects the one with the lower number gives the pixel.

    >>> separate_touching(np.array([[1, 1, 1, 2, 2, 2]]))
    array([[1, 1, 0, 2, 2, 2]])

    Args:
        instances: (y, x), integer; 0 is background, every other number one object.

    Returns:
        A copy in which no two objects are neighbours, not even diagonally.
    """
    highest = ndimage.maximum_filter(instances, size=3, mode="nearest")
    ridge = (instances > 0) & (highest > instances)
    return np.where(ridge, 0, instances)


def border_weights(
    instances: npt.NDArray[np.integer], weight: BorderWeight
) -> npt.NDArray[np.float32]:
    """The second term of equation (2) for every pixel, (y, x) float32.

    Inside an object its own distance d1 is 0. Where there are fewer than two objects within six
    sigma the term is 0.
    """
    if weight.w0 == 0:
        return np.zeros(instances.shape, np.float32)
    nearest, second = _two_distances(instances, math.ceil(REACH * weight.sigma))
    fall = np.exp(-((nearest + second) ** 2) / (2 * weight.sigma**2))
    weights: npt.NDArray[np.float32] = (weight.w0 * fall).astype(np.float32)
    return weights


def _two_distances(
    instances: npt.NDArray[np.integer], reach: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Distances to the nearest and second nearest object, infinite beyond `reach` pixels."""
    nearest = np.full(instances.shape, np.inf, np.float32)
    second = nearest.copy()
    numbers, compact = np.unique(instances, return_inverse=True)
    labels = compact.reshape(instances.shape) + (0 if numbers[0] == 0 else 1)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        around = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in box)
        distance = ndimage.distance_transform_edt(labels[around] != number).astype(np.float32)
        second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
        nearest[around] = np.minimum(nearest[around], distance)
    return nearest, second


def class_weights(pixels: npt.NDArray[np.integer], balance: float = 1.0) -> npt.NDArray[np.float32]:
    """w_c of equation (2): one weight per class, so that their mean over all pixels is 1.

    Args:
        pixels: how many pixels each class has in the training pictures, all above 0.
        balance: 1 gives every class the same total weight, 0 every pixel; between, between.

    >>> class_weights(np.array([900, 100]), balance=1.0)
    array([0.5555556, 5.       ], dtype=float32)
    """
    share = pixels / pixels.sum()
    weights = share**-balance
    scaled: npt.NDArray[np.float32] = (weights / (weights * share).sum()).astype(np.float32)
    return scaled
