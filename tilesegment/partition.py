"""One image for several independent runs: which of them does which tiles, and who excludes whom."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilesegment.errors import OptionError

_WRITTEN = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True)
class Partition:
    """What one driver does of an output that `of` drivers share."""

    number: int
    """From 1; 0 is the driver that publishes what the others have done."""
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def excludes(self, other: "Partition") -> bool:
        """Whether only one of two drivers may be at work: they might write the same tiles.

        >>> Partition(1, 4).excludes(Partition(2, 4)), Partition(1, 4).excludes(Partition(2, 3))
        (False, True)
        """
        return self.of != other.of or self.number == other.number

    @property
    def publisher(self) -> "Partition":
        """The driver that publishes what all have done."""
        return Partition(0, self.of)

    @property
    def publishes(self) -> bool:
        return self.number == 0


WHOLE = Partition(1, 1)
"""A run that does everything itself, and excludes every other."""


def parse_partition(text: str) -> Partition:
    """The partition that is written as "2/4".

    Raises:
        OptionError: if there is no such partition.
    """
    written = _WRITTEN.fullmatch(text)
    if written is None:
        raise OptionError(f"--partition {text} is no partition; write 2/4 for the second of four")
    number, of = map(int, written.groups())
    if not 1 <= number <= of:
        raise OptionError(
            f"--partition {text} does not exist; {max(of, 1)} partitions count from 1 to "
            f"{max(of, 1)} (for a job array: --array=1-{max(of, 1)})"
        )
    return Partition(number, of)


def deal(costs: npt.ArrayLike, of: int) -> npt.NDArray[np.int64]:
    """Cut work into `of` runs of neighbours that cost about the same.

    Each item has one owner, owners never decrease, and what two of them have to do differs by
    less than two items' cost.

    Args:
        costs: of each item, in the order of working; positive integers.
        of: number of owners.

    Returns:
        The owner of each item, from 1.

    >>> deal([1, 1, 1, 1, 4], of=2).tolist()
    [1, 1, 1, 1, 2]
    """
    costs = np.asarray(costs, np.int64)
    before: npt.NDArray[np.int64] = np.cumsum(costs) - costs
    return before * of // max(int(costs.sum()), 1) + np.int64(1)
