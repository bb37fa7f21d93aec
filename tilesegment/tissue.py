"""Where the tissue is on a slide, from a coarse picture of it.

Otsu's threshold (1979) on the optical density where the background is bright (stained slides),
and on the square root of the intensity, which evens out photon noise, where it is dark
(fluorescence). A slide without background would be split within the tissue: the
threshold is therefore bounded by what is tissue in any case.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_TAILS = (0.5, 99.5)
"""Percentiles that stand for the darkest and the brightest pixel."""
_SMOOTHING = 1.5
"""Standard deviation of the Gaussian, pixels: noise and dust do not count."""
_SURE_DENSITY = 0.15
"""Optical density (natural logarithm) above which stained tissue is certain: 86 % of the light
passes. The bound of Macenko et al. (2009)."""
_SURE_GLOW = 0.25
"""The same for fluorescence: share of the range of the square roots."""
_BINS = 256


def find_tissue(pixels: npt.NDArray[np.number]) -> npt.NDArray[np.bool_]:
    """Tissue on a picture of a slide.

    Args:
        pixels: (c, y, x), any number of channels, of any range.

    Returns:
        (y, x); nothing but True where all pixels are equal, for there is nothing to tell by.
    """
    light = pixels.astype(np.float32)
    low, high = np.percentile(light, _TAILS, axis=(1, 2), keepdims=True)
    has_bright_background = np.median(light) > (low.mean() + high.mean()) / 2
    if has_bright_background:
        signal, sure = _optical_density(light, high), _SURE_DENSITY
    else:
        signal, sure = _glow(light, low, high), _SURE_GLOW
    signal = ndimage.gaussian_filter(signal, _SMOOTHING, mode="nearest")
    if signal.min() == signal.max():
        return np.ones(signal.shape, bool)
    tissue: npt.NDArray[np.bool_] = signal > min(otsu_threshold(signal), sure)
    return ndimage.binary_fill_holes(tissue)  # type: ignore[no-any-return]


def _optical_density(
    light: npt.NDArray[np.float32], glass: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """Of the channel that is absorbed most: (y, x), 0 where all the light passes.

    Also 0 where no channel has any light: the scanner was not there.
    """
    glass = np.maximum(glass, np.finfo(np.float32).tiny)
    darkest = glass / 255
    density = -np.log(np.maximum(light, darkest) / glass)
    density *= light.any(axis=0)
    strongest: npt.NDArray[np.float32] = np.clip(density, 0, None).max(axis=0).astype(np.float32)
    return strongest


def _glow(
    light: npt.NDArray[np.float32],
    low: npt.NDArray[np.floating],
    high: npt.NDArray[np.floating],
) -> npt.NDArray[np.float32]:
    """Of the brightest channel: (y, x), from 0, the background, to 1.

    One scale for all channels: an empty one would otherwise be nothing but bright noise.
    """
    scaled = (light - low) / max((high - low).max(), np.finfo(np.float32).tiny)
    brightest: npt.NDArray[np.float32] = np.sqrt(np.clip(scaled, 0, 1)).max(axis=0)
    return brightest.astype(np.float32)


def otsu_threshold(values: npt.NDArray[np.floating]) -> float:
    """The threshold that separates two classes with the largest variance between them.

    >>> otsu_threshold(np.array([0.0, 0.1, 0.9, 1.0])) > 0.1
    True
    """
    counts, edges = np.histogram(values, _BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + np.nanargmax(between[:-1])])
