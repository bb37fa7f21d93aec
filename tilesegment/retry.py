"""What is tried again, when, and who is given up: decisions only, nothing here waits or runs.

Three kinds of fault:

- transient: a disk or network that hiccups. Tried again where it happened, after a pause.
- of a tile: its pixels are lost, damaged or not finite. Tried once more, elsewhere if there is
  another worker, then quarantined: the run goes on without it.
- of a worker: anything unforeseen. The tile is tried elsewhere; a worker on which several
  tiles fail and none succeeds is retired, and its failures are not the tiles' any more.
"""

import errno
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from tilesegment.errors import TilesegmentError

Result = TypeVar("Result")

_TRANSIENT = {
    errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ENETDOWN, errno.ENETUNREACH,
    errno.EHOSTUNREACH, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO,
}  # fmt: skip

_SLOWEST_TILES = 50
"""How often the time of the slowest tile one may take that does not hang."""
_LIMITS_OF_THE_FIRST = 6
"""While nobody knows what a tile takes."""
_GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class Backoff:
    """Pauses between tries, each longer than the last."""

    tries: int = 5
    first_seconds: float = 0.1
    factor: float = 3.0
    longest_seconds: float = 30.0

    def pause(self, failures: int, jitter: float) -> float | None:
        """Seconds to wait after so many failures; None if it is not worth another try.

        Args:
            failures: so far, at least 1.
            jitter: from 0 to 1; many workers that failed together must not come back together.

        >>> [Backoff(tries=3, first_seconds=1).pause(failures, jitter=1) for failures in (1, 2, 3)]
        [1.0, 3.0, None]
        """
        if failures >= self.tries:
            return None
        longest = min(self.first_seconds * self.factor ** (failures - 1), self.longest_seconds)
        return longest * (0.5 + jitter / 2)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may well succeed a little later."""
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT


def retried(
    action: Callable[[], Result],
    backoff: Backoff,
    sleep: Callable[[float], None],
    random: Callable[[], float],
    worth: Callable[[BaseException], bool] = is_transient,
) -> Result:
    """The result of `action`, tried again after each error that is worth it.

    Raises:
        Exception: the last, as `action` raised it.
    """
    failures = 0
    while True:
        try:
            return action()
        except Exception as error:
            failures += 1
            pause = backoff.pause(failures, random()) if worth(error) else None
            if pause is None:
                raise
        sleep(pause)


async def retried_async(
    action: Callable[[], Awaitable[Result]],
    backoff: Backoff,
    sleep: Callable[[float], Awaitable[None]],
    random: Callable[[], float],
    worth: Callable[[BaseException], bool] = is_transient,
) -> Result:
    """As `retried`, for an action that is awaited."""
    failures = 0
    while True:
        try:
            return await action()
        except Exception as error:
            failures += 1
            pause = backoff.pause(failures, random()) if worth(error) else None
            if pause is None:
                raise
        await sleep(pause)


@dataclass(frozen=True)
class Failure:
    """One tile that failed once."""

    tile: int
    """Its number."""
    worker: str | None
    """Address; None if the worker died with it."""
    error: TilesegmentError
    of_tile: bool
    """Whether the tile's own data is to blame, and not the worker."""


@dataclass(frozen=True)
class Limits:
    """How much failing is borne."""

    tries_of_a_tile: int = 2
    """Failures, on workers that are not retired, after which a tile is quarantined."""
    failures_of_a_worker: int = 3
    """Different tiles that fail on a worker without one that succeeds: it is retired."""
    hopeless: int = 20
    """Different tiles that fail, and workers that are retired, before the first succeeds: the run
    is given up."""
    hopeless_twice: int = 3
    """The same, of tiles that are quarantined: also where each takes its worker with it."""


@dataclass
class Trouble:
    """The failures of a run, and what follows from them."""

    limits: Limits = Limits()
    resumed: bool = False
    """Whether tiles were finished before: then those that fail now are to blame, not the run."""
    retired: set[str] = field(default_factory=set)
    noted: int = 0
    """Failures so far."""
    _failures: dict[int, list[Failure]] = field(default_factory=lambda: defaultdict(list))
    _successes: Counter[str] = field(default_factory=Counter)

    def succeeded(self, tile: int, worker: str | None) -> None:
        self._failures.pop(tile, None)
        self._successes[worker or ""] += 1

    def failed(self, failure: Failure) -> str | None:
        """Note a failure.

        Returns:
            Address of the worker if it is to be retired: again with each failure of one that is,
            because dask keeps a worker whose pixels nobody can take over.
        """
        self.noted += 1
        self._failures[failure.tile].append(failure)
        worker = failure.worker
        if worker in self.retired:
            return worker
        if worker is None or failure.of_tile or self._successes[worker]:
            return None
        tiles = {
            item.tile
            for failures in self._failures.values()
            for item in failures
            if item.worker == worker and not item.of_tile
        }
        if len(tiles) < self.limits.failures_of_a_worker:
            return None
        self.retired.add(worker)
        return worker

    @property
    def hopeless(self) -> bool:
        """Whether nothing has succeeded, and too much has failed to go on.

        What was lost once with a worker says nothing: that takes many tiles with it. What failed
        on a retired one says no more than that it was broken.
        """
        if self.resumed or self._successes.total():
            return False
        told = sum(
            any(item.worker not in (None, *self.retired) for item in failures)
            for failures in self._failures.values()
        )
        if told + len(self.retired) >= self.limits.hopeless:
            return True
        return len(self.quarantined()) >= self.limits.hopeless_twice

    def again(self) -> list[int]:
        """Numbers of the tiles that deserve another try."""
        given_up = self.quarantined()
        return sorted(tile for tile in self._failures if tile not in given_up)

    def quarantined(self) -> dict[int, Failure]:
        """The last failure of each tile that is given up, by number."""
        return {
            tile: failures[-1]
            for tile, failures in self._failures.items()
            if sum(item.worker not in self.retired for item in failures)
            >= self.limits.tries_of_a_tile
        }

    def last(self, tile: int) -> Failure:
        """The last failure of a tile that has failed."""
        return self._failures[tile][-1]


@dataclass
class Patience:
    """How long a run goes on without a worker."""

    limit_seconds: float
    _alone_since: float | None = None

    def alone(self, workers: int, now: float) -> float | None:
        """Seconds without a worker so far; None while there are some.

        >>> patience = Patience(60)
        >>> [patience.alone(workers, now) for workers, now in ((1, 0), (0, 5), (0, 9), (2, 12))]
        [None, 0, 4, None]
        """
        if workers:
            self._alone_since = None
            return None
        if self._alone_since is None:
            self._alone_since = now
        return now - self._alone_since

    def is_over(self, alone_seconds: float) -> bool:
        return alone_seconds > self.limit_seconds


@dataclass
class TileLimit:
    """How long a tile may take before it is taken to hang."""

    least_seconds: float
    """The limit is never shorter; 0: there is none."""
    slowest_seconds: float = 0.0
    """Of the tiles so far; 0 before the first."""
    _since: dict[Hashable, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """The limit, far beyond what a tile takes: a slow one that is given up would be lost.

        >>> [TileLimit(600, slowest).seconds for slowest in (0, 2, 60)]
        [3600, 600, 3000]
        """
        if not self.slowest_seconds:
            return _LIMITS_OF_THE_FIRST * self.least_seconds
        return max(self.least_seconds, _SLOWEST_TILES * self.slowest_seconds)

    def hung(self, overdue: Iterable[Hashable], now: float) -> list[Hashable]:
        """Which of the tasks that are beyond the limit are so for another minute.

        When a machine wakes from sleep, or its clock is set, everything is overdue for a moment.
        """
        self._since = {task: self._since.get(task, now) for task in overdue}
        grace = min(self.least_seconds, _GRACE_SECONDS)
        return [task for task, since in self._since.items() if now - since >= grace]
