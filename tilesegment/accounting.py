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
    gpu_looks: list[float] = field(default_factory=list)
    """Shares of the GPU's time in use, at looks since the first tile."""
    gpu_looks_counted: int = 0
    """Of these, those before the last tile; afterwards it has nothing to do."""
    gpu_memory_bytes: int = 0
    """Of the GPU, the most that was in use."""

    @property
    def idle_share(self) -> float:
        """Of the time between its first and its last tile in which its network had none."""
        return max(0.0, 1 - self.busy_seconds / max(self.until - self.since, 1e-9))

    def gpu(self) -> dict[str, Any]:
        """What is known of its GPU; nothing where there is none, or nobody looked."""
        looks = self.gpu_looks[: self.gpu_looks_counted]
        if not looks:
            return {}
        share = round(sum(looks) / len(looks), 3)
        return {"gpu_share": share, "gpu_memory_bytes": self.gpu_memory_bytes}


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
        account.gpu_looks_counted = len(account.gpu_looks)

    def note_gpu(self, worker: str, utilization: float | None, memory: int | None) -> None:
        """Note a look at the GPU of a worker.

        Args:
            worker: its address; ignored before its first tile.
            utilization: of the GPU, in per cent of its time; None if there is none to be seen.
            memory: of the GPU that is in use, in bytes; None if it is not known.

        >>> accounts = Accounts()
        >>> accounts.note("tls://a:1", 1_000_000, seconds=1.0, now=1.0)
        >>> accounts.note_gpu("tls://a:1", 60, memory=8)
        >>> accounts.note_gpu("tls://a:1", 100, memory=7)
        >>> accounts.note("tls://a:1", 1_000_000, seconds=1.0, now=3.0)
        >>> (worker,) = accounts.report(moved_bytes=0)["workers"]
        >>> worker["gpu_share"], worker["gpu_memory_bytes"]
        (0.8, 8)
        """
        account = self._workers.get(worker)
        if account is None or utilization is None:
            return
        account.gpu_looks.append(utilization / 100)
        account.gpu_memory_bytes = max(account.gpu_memory_bytes, memory or 0)

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
                **account.gpu(),
            }
            for address, account in sorted(self._workers.items())
        ]
        return {"workers": workers, "retries": self.retries, "moved_bytes": moved_bytes}
