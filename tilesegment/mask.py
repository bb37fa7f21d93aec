"""Which pixels of an image are wanted; all others get the background class.

A mask is a property of pixels, not of tiles: its own pixels lie on a fixed grid over the
image, and each pixel of the image asks the one that its centre falls into. So the labels do not
depend on how the image is cut.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from tilesegment.geometry import YX
from tilesegment.tiling import TileGrid, Window

Cover = Literal["none", "some", "all"]
Wanted = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Mask:
    """The wanted pixels of the level that is segmented."""

    wanted: Wanted
    """(plane, y, x), from `first` on; one plane stands for all planes of the image."""
    size: YX
    """Pixels of the whole mask: no more than the image has."""
    extent: YX
    """Pixels of the image that the whole mask is spread over; the image may end before, or go on
    beyond, where the mask's last pixels are repeated."""
    first: YX = YX(0, 0)  # noqa: RUF009 - immutable
    """Where `wanted` begins, in pixels of the mask."""

    def read(self, plane: int, window: Window) -> Wanted:
        """Whether each pixel of a window inside the image is wanted: (height, width)."""
        rows, columns = self._behind(window)
        wanted: Wanted = self._plane(plane)[rows[:, None], columns]
        return wanted

    def cover(self, plane: int, window: Window) -> Cover:
        """How many pixels of a window are wanted."""
        rows, columns = self._behind(window)
        wanted = self._plane(plane)[np.unique(rows)[:, None], np.unique(columns)]
        return "all" if wanted.all() else "some" if wanted.any() else "none"

    def cut(self, plane: int, window: Window) -> "Mask":
        """A mask that answers for this window only, small enough to travel with a task."""
        rows, columns = self._behind(window)
        top, left = int(rows[0]), int(columns[0])
        part = self._plane(plane)[top : rows[-1] + 1, left : columns[-1] + 1]
        first = YX(self.first.y + top, self.first.x + left)
        return replace(self, wanted=part[None].copy(), first=first)

    def count_unwanted(self, grid: TileGrid) -> int:
        """Tiles of which no pixel is wanted."""
        return sum(
            self.cover(tile.plane, grid.write_window(tile)) == "none" for tile in grid.tiles()
        )

    @property
    def digest(self) -> str:
        """What two masks that want the same pixels have in common, as ``sha256:…``."""
        told = hashlib.sha256(repr((self.wanted.shape, self.extent)).encode())
        told.update(np.packbits(self.wanted).tobytes())
        return f"sha256:{told.hexdigest()}"

    def _plane(self, plane: int) -> Wanted:
        wanted: Wanted = self.wanted[min(plane, len(self.wanted) - 1)]
        return wanted

    def _behind(self, window: Window) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Positions in `wanted` behind the rows and the columns of a window."""
        rows = _centres_fall_into(window.y, window.height, self.size.y, self.extent.y)
        columns = _centres_fall_into(window.x, window.width, self.size.x, self.extent.x)
        return rows - self.first.y, columns - self.first.x


def stretch(wanted: Wanted, image: YX) -> Mask:
    """A mask of any resolution, (plane, y, x), spread over the whole image."""
    size = YX(*wanted.shape[-2:])
    coarse = YX(min(size.y, image.y), min(size.x, image.x))
    rows = _centres_fall_into(0, coarse.y, size.y, coarse.y)
    columns = _centres_fall_into(0, coarse.x, size.x, coarse.x)
    return Mask(wanted[:, rows[:, None], columns], coarse, extent=image)


def dilate(wanted: Wanted, margin: YX) -> Wanted:
    """The pixels, (y, x), with a wanted one at most `margin` rows and columns away."""
    # It takes a tenth of a second to load, and every worker loads this file.
    from scipy import ndimage

    size = (2 * margin.y + 1, 2 * margin.x + 1)
    grown: Wanted = ndimage.maximum_filter(wanted, size, mode="constant", cval=False)
    return grown


def _centres_fall_into(start: int, count: int, size: int, extent: int) -> npt.NDArray[np.intp]:
    """The mask pixels, of `size` over `extent`, that hold the centres of start..start + count.

    >>> _centres_fall_into(0, 7, size=2, extent=6).tolist()
    [0, 0, 0, 1, 1, 1, 1]
    """
    twice_the_centres = 2 * np.arange(start, start + count) + 1
    return np.minimum(twice_the_centres * size // (2 * extent), size - 1)
