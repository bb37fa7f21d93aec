"""What is done with probabilities before a pixel gets its label, and how far it looks.

One axis of one tile; the network gives more than the tile, and each step uses some of it up::

    |- halo -|- margin -|============ tile ============|- margin -|- halo -|    read
             |----------|==============================|----------|    probabilities
                  |-----|==============================|-----|         smoothed
                        |==============================|               after the CRF

The definition for the whole image: the network is applied to the mirrored image, endless in y and
x, and so are these steps to what it gives. All of it together is one more network with a finite
border.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from tilesegment.config import RunOptions
from tilesegment.errors import OptionError
from tilesegment.geometry import NetworkGeometry, round_up

_TRUNCATE = 3.0
"""Standard deviations at which a Gaussian is cut off; 0.3 % of its sum lies beyond."""
LARGEST_SMOOTH = 32.0
"""Pixels."""


@dataclass(frozen=True)
class Smoothing:
    """Probabilities averaged with a truncated Gaussian."""

    deviation: float
    """Pixels that the network is shown."""

    @property
    def border(self) -> int:
        return ceil(_TRUNCATE * self.deviation)

    def weights(self) -> npt.NDArray[np.float64]:
        """From the centre outwards, (border + 1,); mirrored their sum is 1.

        >>> Smoothing(0.5).weights().round(4).tolist()
        [0.7866, 0.1065, 0.0003]
        """
        line = np.exp(-((np.arange(self.border + 1) / self.deviation) ** 2) / 2)
        weights: npt.NDArray[np.float64] = line / (2 * line.sum() - line[0])
        return weights


@dataclass(frozen=True)
class CRF:
    """A conditional random field whose pixels see a square around them (ConvCRF).

    Teichmann and Cipolla 2018, "Convolutional CRFs for Semantic Segmentation": the fully connected
    field of Krähenbühl and Koltun 2011, cut off at a radius. Here the weights of the neighbours
    are divided by their sum.
    """

    contrast: float
    """Difference that parts two pixels: root of the mean square over the channels, as a share of
    the pixel type's range; of floats as they are."""
    radius: int = 3
    """Pixels to each side that a pixel looks at."""
    iterations: int = 5
    """Of mean-field inference."""
    appearance: float = 10.0
    """Weight of the neighbours that look alike."""
    smoothness: float = 3.0
    """Weight of all neighbours."""
    deviation: float = 3.0
    """Of the Gaussian by which neighbours count less with their distance, pixels."""

    @property
    def border(self) -> int:
        return self.iterations * self.radius

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Half of the neighbours, (y, x): the others are opposite to them.

        >>> CRF(0.05, radius=1).offsets
        [(0, 1), (1, -1), (1, 0), (1, 1)]
        """
        side = range(-self.radius, self.radius + 1)
        return [(y, x) for y in side for x in side if (y, x) > (0, 0)]


@dataclass(frozen=True)
class Refinement:
    """All steps of a run, in their order."""

    smoothing: Smoothing | None = None
    crf: CRF | None = None
    thresholds: tuple[tuple[int, float], ...] = ()
    """Position of a class, and the probability from which a pixel belongs to it."""

    @property
    def border(self) -> int:
        """Pixels that the network is shown, on which a label depends beyond the network's own."""
        return sum(step.border for step in (self.smoothing, self.crf) if step is not None)

    def margin(self, network: NetworkGeometry) -> int:
        """Pixels per side beyond the tile whose probabilities are computed.

        A multiple of the alignment, so that the network's grid stays where it is.
        """
        return round_up(self.border, network.alignment)

    def geometry(self, network: NetworkGeometry) -> NetworkGeometry:
        """The network and these steps, as one network."""
        if not self.border:
            return network
        border = network.halo + self.margin(network)
        alignment = network.alignment
        return NetworkGeometry(border, alignment, border, residue=2 * border % alignment)

    def bytes_per_pixel(self, classes: int, channels: int) -> int:
        """Memory that the steps take at once, per pixel that the network is shown."""
        maps = 4 * classes
        if self.crf is not None:
            maps += len(self.crf.offsets) + channels
        return 4 * maps


def choose_refinement(options: RunOptions, classes: Sequence[str]) -> Refinement | None:
    """The steps that the user wants; None without any.

    Args:
        options: of the run.
        classes: names, in the order of the model.

    Raises:
        OptionError: if a number is out of range, or a class is not the model's.
    """
    smoothing = None if options.smooth is None else Smoothing(_check_smooth(options.smooth))
    crf = None
    if options.refine is not None:
        crf = CRF(_check_share(options.crf_contrast, "--crf-contrast"))
    elif options.crf_contrast != RunOptions.crf_contrast:
        raise OptionError("--crf-contrast is for the CRF; add --refine crf")
    thresholds = tuple(
        (_position(name, classes), _check_share(value, f"--class-threshold {name}"))
        for name, value in options.class_thresholds
    )
    if len({position for position, _ in thresholds}) < len(thresholds):
        raise OptionError("--class-threshold names a class twice; give one threshold for each")
    chosen = Refinement(smoothing, crf, thresholds)
    return None if chosen == Refinement() else chosen


def _check_smooth(deviation: float) -> float:
    if not 0 < deviation <= LARGEST_SMOOTH:
        raise OptionError(
            f"--smooth {deviation:g} is not above 0 and at most {LARGEST_SMOOTH:g} pixels"
        )
    return deviation


def _check_share(share: float, option: str) -> float:
    if not 0 < share <= 1:
        raise OptionError(f"{option}: {share:g} is not above 0 and at most 1")
    return share


def _position(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise OptionError(
            f"--class-threshold names {name!r}, which is no class of the model; it has "
            f"{', '.join(classes)}"
        )
    return list(classes).index(name)


def refinement_facts(refinement: Refinement | None) -> dict[str, object] | None:
    """What decides the labels; None without refinement."""
    if refinement is None:
        return None
    smoothing, crf = refinement.smoothing, refinement.crf
    return {
        "smooth": smoothing and smoothing.deviation,
        "crf": crf and dict(sorted(vars(crf).items())),
        "class thresholds": [list(item) for item in refinement.thresholds],
    }
