"""What each worker of a run did: counted by the driver, record by record."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Account:
    """The tiles of one worker."""

    since: float
    """When it began its first tile."""
    until: float
    """When its last tile was recorded."""
    tiles: int = 0
    pixels: int = 0
    busy_seconds: float = 0.0
    """That its network has computed."""

    @property
    def idle_share(self) -> float:
        """Of the time between its first and its last tile in which its network had none."""
        return max(0.0, 1 - self.busy_seconds / max(self.until - self.since, 1e-9))


@dataclass
class Accounts:
    """All workers of a run, also those that have left."""

    retries: int = 0
    """Tiles that failed and were tried again, or given up."""
    _workers: dict[str, Account] = field(default_factory=dict)

    def note(self, worker: str, pixels: int, seconds: float, now: float) -> None:
        """Note a tile.

        Args:
            worker: its address.
            pixels: of the tile.
            seconds: that the network took.
            now: on the driver's clock.

        >>> accounts = Accounts()
        >>> for now in (2.0, 5.0, 6.0):
        ...     accounts.note("tls://a:1", 1_000_000, seconds=1.0, now=now)
        >>> accounts.report(moved_bytes=7)["workers"]
        [{'worker': 'tls://a:1', 'tiles': 3, 'megapixels_per_second': 0.6, 'idle_share': 0.4}]
        """
        account = self._workers.setdefault(worker, Account(now - seconds, now))
        account.until = now
        account.tiles += 1
        account.pixels += pixels
        account.busy_seconds += seconds

    def report(self, moved_bytes: int) -> dict[str, Any]:
        """What a summary says of the workers; JSON.

        Args:
            moved_bytes: that workers have sent to each other and to the driver.
        """
        workers = [
            {
                "worker": address,
                "tiles": account.tiles,
                "megapixels_per_second": round(
                    account.pixels / 1e6 / max(account.until - account.since, 1e-9), 3
                ),
                "idle_share": round(account.idle_share, 3),
            }
            for address, account in sorted(self._workers.items())
        ]
        return {"workers": workers, "retries": self.retries, "moved_bytes": moved_bytes}
