"""What a run over several images prints: a line for each, a table at the end, one JSON object."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from tilesegment_cli.options import human_seconds

if TYPE_CHECKING:
    from tilesegment.usecases.batch import ImageOutcome

_BY_SEVERITY = (0, 4, 5, 3, 2, 1)
"""Exit codes, the worst last: what running again may mend, then what needs a person."""
_STATUS = {4: "incomplete", 5: "incomplete"}
_COLUMNS = ("Image", "Status", "Tiles", "Computed", "Time", "Labels or error")


def exit_code(outcomes: Sequence["ImageOutcome"]) -> int:
    """The worst of all images."""
    codes = [outcome.error.exit_code if outcome.error else 0 for outcome in outcomes]
    return max(codes, key=_BY_SEVERITY.index, default=0)


def status(outcome: "ImageOutcome") -> str:
    if outcome.summary is not None:
        return outcome.summary.status
    return _STATUS.get(outcome.error.exit_code, "failed") if outcome.error else "failed"


def tell_finished(outcome: "ImageOutcome", number: int, total: int) -> None:
    """One line on stderr: what became of an image."""
    place = f"[{number} of {total}] {outcome.image}: "
    if outcome.error is not None:
        click.echo(f"{place}Error: {outcome.error}", err=True)
    elif outcome.summary is not None:
        click.echo(f"{place}{outcome.summary.status}", err=True)


def as_json(outcomes: Sequence["ImageOutcome"], total: int) -> dict[str, Any]:
    """One object: counts, the exit code, and for each image its summary or its error."""
    finished = sum(outcome.has_labels for outcome in outcomes)
    whole = "done" if finished == total else "partition done"
    return {
        "status": whole if len(outcomes) == total and not exit_code(outcomes) else "incomplete",
        "exit_code": exit_code(outcomes),
        "total": total,
        "finished": finished,
        "images": [_image_json(outcome) for outcome in outcomes],
    }


def _image_json(outcome: "ImageOutcome") -> dict[str, Any]:
    if outcome.summary is not None:
        return {"image": outcome.image, **asdict(outcome.summary)}
    code = outcome.error.exit_code if outcome.error else 1
    return {
        "image": outcome.image,
        "status": status(outcome),
        "error": str(outcome.error),
        "exit_code": code,
    }


def print_table(outcomes: Sequence["ImageOutcome"], total: int) -> None:
    """On stdout: a table on a terminal, columns of plain text elsewhere; then the count."""
    rows = [_row(outcome) for outcome in outcomes]
    console = Console()
    if console.is_terminal:
        table = Table(*(Column(name, overflow="fold") for name in _COLUMNS))
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
    else:
        lines = [_COLUMNS, *rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            click.echo("  ".join(cells).rstrip())
    click.echo(f"{sum(each.has_labels for each in outcomes)} of {total} images have labels")


def _row(outcome: "ImageOutcome") -> tuple[str, ...]:
    summary = outcome.summary
    if summary is None:
        return outcome.image, status(outcome), "", "", "", str(outcome.error)
    computed = str(summary.computed)
    time = human_seconds(summary.seconds)
    return outcome.image, summary.status, str(summary.tiles), computed, time, summary.labels
