"""Overlapping windows on one grid, for networks whose output depends on all that they are shown.

One axis of one tile, with windows that overlap by half::

                 |============ tile ============|
      |--- 0 ---|---------|
           |--- 1 ---|                                   window k begins at k * step
                |--- 2 ---|                              of the image, whatever the tile
                      ...
                                           |--- n ---|

A pixel's output is the weighted mean over the windows that touch it. Every tile computes all the
windows that touch it, so that a window between two tiles is computed in both. That makes any
network one with a finite border: what the windows reach beyond the tile.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from tilesegment.config import BlendKind
from tilesegment.errors import OptionError
from tilesegment.geometry import YX, NetworkGeometry, round_up

_WINDOW = 512
"""Pixels per side of a window; a size of the network's own would be better, where it has one."""
_DEFAULT_OVERLAP = 0.5
_LARGEST_OVERLAP = 0.9
_DEVIATION = 1 / 8
"""Of the Gaussian, in windows; as in nnU-Net (Isensee et al. 2021) and MONAI."""


@dataclass(frozen=True)
class Blend:
    """Windows and their weights."""

    kind: BlendKind
    """gaussian: weights fall from the window's centre; mean: all count the same."""
    window: int
    """Pixels per side of a window's output."""
    step: int
    """Pixels between the beginnings of windows; a multiple of the network's alignment."""
    network: NetworkGeometry
    """Of the network that is shown the windows."""

    @property
    def geometry(self) -> NetworkGeometry:
        """The whole, as a network with a finite border whose alignment is the step."""
        border = self._before * self.step + self.network.halo
        return NetworkGeometry(border, self.step, border, residue=2 * border % self.step)

    @property
    def _before(self) -> int:
        """Windows that begin before a tile and touch its first pixel."""
        return ceil(self.window / self.step) - 1

    @property
    def window_input(self) -> int:
        """Pixels per side that the network is shown for a window."""
        return self.network.input_size(self.window)

    def starts(self, size: int) -> range:
        """Where the windows begin in an input of `size` pixels, a tile with this geometry's halo.

        >>> blend = Blend("mean", 64, 32, NetworkGeometry(0, 1, 0, 0))
        >>> list(blend.starts(96 + 2 * blend.geometry.halo))
        [0, 32, 64, 96]
        """
        return range(0, size - 2 * self.geometry.halo + self._before * self.step, self.step)

    def computed(self, shown: YX) -> int:
        """Pixels that the network is given for an input of `shown`, in all windows together."""
        windows = len(self.starts(shown.y)) * len(self.starts(shown.x))
        return windows * self.window_input**2

    def weights(self) -> npt.NDArray[np.float32]:
        """How much each pixel of a window counts: (window, window), above 0."""
        if self.kind == "mean":
            return np.ones((self.window, self.window), np.float32)
        centre = (self.window - 1) / 2
        distances = (np.arange(self.window) - centre) / (self.window * _DEVIATION)
        line = np.exp(-(distances**2) / 2)
        return np.outer(line, line).astype(np.float32)


def choose_blend(
    kind: BlendKind | None,
    overlap: float | None,
    network: NetworkGeometry,
    fixed_input: int | None = None,
) -> Blend | None:
    """The windows for `--blend` and `--overlap`; None without them.

    Args:
        kind: the user's choice.
        overlap: share of a window's side that the next one covers too; None takes one half.
        network: of the network that is shown the windows.
        fixed_input: the only input size that it takes, pixels per side, if so.

    Raises:
        OptionError: if the overlap is out of range, or given without a kind.
    """
    if kind is None:
        if overlap is not None:
            raise OptionError("--overlap is for windows; add --blend gaussian or --blend mean")
        return None
    overlap = _DEFAULT_OVERLAP if overlap is None else overlap
    if not 0 <= overlap <= _LARGEST_OVERLAP:
        raise OptionError(f"--overlap {overlap:g} is not between 0 and {_LARGEST_OVERLAP:g}")
    window = round_up(_WINDOW, network.alignment)
    if fixed_input is not None:
        window = fixed_input - 2 * network.halo
    steps = round(window * (1 - overlap) / network.alignment)
    return Blend(kind, window, max(steps, 1) * network.alignment, network)
