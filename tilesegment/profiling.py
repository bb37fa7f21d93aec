"""Where the time of a run went: thread-seconds of each step on each worker, as JSON and a chart.

The steps overlap: tiles are read and written while the network runs. What decides how long a
run takes is the thread of the network, so a worker is idle while that one waits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

Step = str
"""One of `STEPS`."""

STEPS: Mapping[Step, str] = {
    "reading": "decoding pixels",
    "halo": "joining neighbours",
    "resampling": "to the network's pixel size",
    "inference": "the network",
    "writing": "encoding and storing labels",
    "levels": "the pyramid of the labels",
    "other": "all else",
    "transfer": "pixels from worker to worker",
}
"""What the workers do, and what that means."""

_STEP_OF = {
    "pixels": "reading",
    "summary": "reading",
    "getitem": "halo",
    "overlap": "halo",
    "concatenate": "halo",
    "shown": "resampling",
    "labels": "inference",
    "tile": "inference",
    "check": "inference",
    "record": "writing",
    "level": "levels",
}
"""Steps by the first word of a task's name, see `tilesegment.execution.engine`."""


def step_of(name: str) -> Step:
    """The step that a task of this name belongs to.

    >>> step_of("labels-tilesegment-5d0c-0-32-0-0")
    'inference'
    """
    return _STEP_OF.get(name.partition("-")[0], "other")


@dataclass
class WorkerTimes:
    """What one worker did."""

    seconds: dict[Step, float] = field(default_factory=dict)
    """Of its threads, together."""
    tasks: dict[Step, int] = field(default_factory=dict)
    sent_bytes: int = 0
    """To other workers, and records to the driver."""
    first: float = float("inf")
    """When the first task began, seconds since the epoch."""
    last: float = 0.0
    """When the last one ended."""

    def add(self, step: Step, start: float, stop: float) -> None:
        self.seconds[step] = self.seconds.get(step, 0.0) + stop - start
        self.first, self.last = min(self.first, start), max(self.last, stop)

    def count(self, step: Step) -> None:
        self.tasks[step] = self.tasks.get(step, 0) + 1


@dataclass(frozen=True)
class Profile:
    """Where the time of a run went."""

    seconds: float
    """From the first task of all workers to the end of the last."""
    workers: int
    tiles: int
    """That the network was run on, or asked about."""
    tasks_per_tile: float
    steps: Mapping[Step, float]
    """Thread-seconds, all workers together."""
    idle_share: float
    """Of the workers' time, in which their networks waited."""
    sent_bytes: int
    """Pixels to other workers, and records to the driver."""
    per_worker: Mapping[str, Mapping[str, float]]
    """By address: tiles, tiles per second, idle share, bytes sent."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def summarise_times(times: Mapping[str, WorkerTimes]) -> Profile:
    """The profile of a run from what each of its workers did, by address."""
    began = min((one.first for one in times.values()), default=0.0)
    seconds = max((one.last for one in times.values()), default=began) - began
    tasks = sum(sum(one.tasks.values()) for one in times.values())
    tiles = sum(one.tasks.get("inference", 0) for one in times.values())
    busy = sum(one.seconds.get("inference", 0.0) for one in times.values())
    return Profile(
        seconds=round(seconds, 3),
        workers=len(times),
        tiles=tiles,
        tasks_per_tile=round(tasks / tiles, 2) if tiles else 0.0,
        steps={
            step: round(sum(one.seconds.get(step, 0.0) for one in times.values()), 3)
            for step in STEPS
        },
        idle_share=_idle(busy, seconds * len(times)),
        sent_bytes=sum(one.sent_bytes for one in times.values()),
        per_worker={address: _facts(one, seconds) for address, one in sorted(times.items())},
    )


def _facts(one: WorkerTimes, seconds: float) -> dict[str, float]:
    tiles = one.tasks.get("inference", 0)
    return {
        "tiles": tiles,
        "tiles_per_second": round(tiles / seconds, 4) if seconds else 0.0,
        "idle_share": _idle(one.seconds.get("inference", 0.0), seconds),
        "sent_bytes": one.sent_bytes,
    }


def _idle(busy: float, available: float) -> float:
    return round(1 - min(busy / available, 1), 4) if available else 0.0


_ROW, _LABELS, _BARS, _END = 26, 280, 420, 90
"""Pixels of the chart: height of a row, width of its text, of the longest bar, of its figure."""


def draw_profile(profile: Profile) -> str:
    """A chart of the steps as SVG: a bar for each, in thread-seconds."""
    shown = {step: seconds for step, seconds in profile.steps.items() if seconds}
    longest = max(shown.values(), default=1.0)
    title = (
        f"{profile.seconds:.1f} s on {profile.workers} worker(s), {profile.tiles} tiles; "
        f"the network waited {profile.idle_share:.1%} of the time"
    )
    rows = [
        part
        for row, (step, seconds) in enumerate(shown.items(), start=1)
        for part in _bar(row, step, seconds, seconds / longest)
    ]
    return _svg(_LABELS + _BARS + _END, _ROW * (len(shown) + 1) + 10, [_text(8, 0, title), *rows])


def _bar(row: int, step: Step, seconds: float, share: float) -> Iterable[str]:
    colour = "#0072b2" if step == "inference" else "#999999"
    width = max(share * _BARS, 1)
    yield _text(8, row, f"{step}: {STEPS[step]}")
    yield (
        f'<rect x="{_LABELS}" y="{row * _ROW + 6}" width="{width:.1f}" height="16" '
        f'fill="{colour}"/>'
    )
    yield _text(_LABELS + width + 6, row, f"{seconds:.1f} s")


def _text(x: float, row: int, content: str) -> str:
    return f'<text x="{x:.1f}" y="{row * _ROW + 19}">{escape(content)}</text>'


def _svg(width: int, height: int, parts: Iterable[str]) -> str:
    size = f'width="{width}" height="{height}"'
    lines = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">',
        f'<rect {size} fill="#ffffff"/>',
        *parts,
        "</svg>\n",
    )
    return "\n".join(lines)
