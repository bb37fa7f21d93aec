"""All levels of an image, written from its finest one in a single pass.

::

    level 0   a b . .      a block is written, halved, and put into its quarter of the block
              c d . .      above; whoever brings the fourth quarter writes that block too, and
    level 1    A  .        so on upwards. Nothing is read again.

The blocks of level 0 may come in any order and from several threads.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilesegment.storage.importing.layout import Block, Layout
from tilesegment.storage.importing.pyramid import halve
from tilesegment.storage.importing.shards import encoded_shard
from tilesegment.storage.importing.source import Pixels

Put = Callable[[str, bytes], None]
"""Stores an object under a key, relative to the image."""


@dataclass
class _Begun:
    """A block of a coarser level of which some quarters are there."""

    pixels: Pixels
    missing: int
    """Pixels of it that are not there yet."""


class LevelWriter:
    """Writes blocks, each as one object, and the coarser ones that they complete.

    Args:
        layouts: of the levels, whose arrays are called "0", "1", ...
        nodata: value of pixels that are left out of averages.
        fill_value: of the arrays.
        put: called from any thread.
    """

    def __init__(
        self, layouts: Sequence[Layout], nodata: float | None, fill_value: Any, put: Put
    ) -> None:
        self._layouts, self._nodata = layouts, nodata
        self._fill_value, self._put = fill_value, put
        self._begun: dict[tuple[int, Block], _Begun] = {}
        self._lock = threading.Lock()

    def write(self, block: Block, pixels: Pixels, level: int = 0) -> int:
        """Write a block, (c, y, x), and all those above that are complete with it.

        Returns:
            How many pixels were written, over all levels.
        """
        layout = self._layouts[level]
        key = f"{level}/{layout.key(block)}"
        self._put(key, encoded_shard(pixels, layout, self._fill_value))
        written = block.window.pixels
        if level + 1 < len(self._layouts):
            written += self._add(block, halve(pixels, self._nodata), level + 1)
        return written

    def _add(self, below: Block, quarter: Pixels, level: int) -> int:
        block = self._layouts[level].block_above(below)
        shape = (len(quarter), *block.window.size)
        with self._lock:
            begun = self._begun.setdefault(
                (level, block), _Begun(np.empty(shape, quarter.dtype), block.window.pixels)
            )
        y = below.window.origin.y // 2 - block.window.origin.y
        x = below.window.origin.x // 2 - block.window.origin.x
        height, width = quarter.shape[-2:]
        begun.pixels[:, y : y + height, x : x + width] = quarter
        with self._lock:
            begun.missing -= height * width
            if begun.missing:
                return 0
            del self._begun[level, block]
        return self.write(block, begun.pixels, level)
