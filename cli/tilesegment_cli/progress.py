"""What a person sees while a run goes on: a bar on a terminal, a line now and then elsewhere."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tilesegment.errors import IncompleteError, PreemptedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tilesegment.usecases.workers import Progress as RunProgress

_PHASES = {
    "statistics": "Statistics",
    "tiles": "Segmenting",
    "levels": "Pyramid",
    "windows": "Verifying",
    "regions": "Regions",
    "holes": "Holes",
    "cleaning": "Cleaning",
    "objects": "Objects",
    "identities": "Identities",
    "range": "Brightness",
    "measurements": "Measuring",
}
_QUIET_SECONDS = 30


@contextmanager
def show_run() -> "Iterator[Callable[[RunProgress], None]]":
    """A callback for `tilesegment.segment` that shows tiles, Mpx/s and the time left."""
    if not sys.stderr.isatty():
        yield _Lines().update
        return
    with _progress() as progress:
        yield _Bars(progress).update


@contextmanager
def stopped_by_signals() -> "Iterator[None]":
    """SIGTERM and Ctrl-C become the errors that say how to go on."""
    try:
        with _stop_on_sigterm():
            yield
    except _Terminated as signalled:
        raise PreemptedError(
            "asked to stop (SIGTERM); run the same command again to go on: finished tiles are kept"
        ) from signalled
    except KeyboardInterrupt as interrupt:
        raise IncompleteError(
            "stopped; run the same command again to go on: finished tiles are kept"
        ) from interrupt


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as batch systems send it some time before they kill."""


@contextmanager
def _stop_on_sigterm() -> "Iterator[None]":
    """Let SIGTERM stop the run as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def show_batch() -> "Iterator[Callable[[str, RunProgress], None]]":
    """A callback for `tilesegment.segment_many`: each image in turn gets the display of a run."""
    if not sys.stderr.isatty():
        yield _Images(lambda text: click.echo(text, err=True), _Lines).update
        return
    with _progress() as progress:

        def clear() -> _Bars:
            for task in progress.task_ids:
                progress.remove_task(task)
            return _Bars(progress)

        def say(text: str) -> None:
            progress.console.print(text, highlight=False, markup=False)

        yield _Images(say, clear).update


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}  {task.fields[rate]:>6} Mpx/s "),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class _Images:
    """A line for each image that is begun, and a display of its own."""

    def __init__(self, say: "Callable[[str], None]", make: "Callable[[], _Bars | _Lines]") -> None:
        self._say, self._make = say, make
        self._image = ""
        self._begun = 0
        self._display: _Bars | _Lines

    def update(self, image: str, run: "RunProgress") -> None:
        if image != self._image:
            if not self._begun and run.dashboard:
                self._say(f"Dashboard: {run.dashboard}")
            self._image, self._begun, self._display = image, self._begun + 1, self._make()
            self._say(f"{image}:")
        self._display.update(replace(run, dashboard=None))


def _unit(run: "RunProgress") -> str:
    return "windows" if run.phase == "windows" else "tiles"


def _workers(run: "RunProgress") -> str:
    return f", {run.workers} worker{'s' if run.workers > 1 else ''}" if run.workers else ""


class _Rate:
    """Megapixels per second of one phase, from its first report on."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, pixels: int) -> str:
        seconds = time.monotonic() - self._started
        return f"{pixels / 1e6 / seconds:.2f}" if pixels and seconds > 0 else "-"


class _Bars:
    """A bar for each phase."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, tuple[TaskID, _Rate]] = {}

    def update(self, run: "RunProgress") -> None:
        if run.phase not in self._tasks:
            if not self._tasks and run.dashboard:
                self._progress.console.print(f"Dashboard: {run.dashboard}", highlight=False)
            task = self._progress.add_task(
                _PHASES[run.phase], total=run.total, rate="-", unit=_unit(run)
            )
            self._progress.update(task, completed=run.done)
            self._tasks[run.phase] = task, _Rate()
        task, rate = self._tasks[run.phase]
        self._progress.update(
            task,
            completed=run.done,
            total=run.total,
            rate=rate(run.pixels),
            unit=_unit(run) + _workers(run),
        )


class _Lines:
    """A line at the start, one each half minute, and one at the end of a phase."""

    def __init__(self) -> None:
        self._phase = ""
        self._rate = _Rate()
        self._spoken = 0.0

    def update(self, run: "RunProgress") -> None:
        if not self._phase and run.dashboard:
            click.echo(f"Dashboard: {run.dashboard}", err=True)
        if run.phase != self._phase:
            self._phase, self._rate, self._spoken = run.phase, _Rate(), 0.0
        now = time.monotonic()
        if run.done == run.total or now - self._spoken > _QUIET_SECONDS:
            self._spoken = now
            click.echo(
                f"{_PHASES[run.phase]}: {run.done} of {run.total} {_unit(run)}, "
                f"{self._rate(run.pixels)} Mpx/s{_workers(run)}",
                err=True,
            )


@contextmanager
def pixel_bar(title: str) -> "Iterator[Callable[[int, int], None] | None]":
    """A bar on stderr that counts pixels; none where stderr is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    speed = TextColumn("{task.fields[speed]}")
    with Progress(*columns, speed, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(title, total=None, speed="")

        def show(done: int, total: int) -> None:
            seconds = bar.tasks[0].elapsed or 0
            speed = f"{done / seconds / 1e6:.1f} Mpx/s" if seconds else ""
            bar.update(task, completed=done, total=total, speed=speed)

        yield show
