"""``tilesegment import``."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tilesegment_cli.options import human_bytes

if TYPE_CHECKING:
    from tilesegment.storage.importing import ImportSummary


@click.command(
    name="import",
    epilog="""\b
Examples:
  tilesegment import slide.svs slide.zarr
  tilesegment import scan.tif scan.zarr --pixel-size 0.5
  tilesegment import cells.ome.tif cells.zarr --overwrite --json
""",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("image", type=click.Path(path_type=Path), metavar="IMAGE.zarr")
@click.option(
    "--pixel-size",
    type=float,
    metavar="UM",
    help="Micrometres per pixel, where SOURCE does not say or is wrong.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an image of this name, with the labels in it, once the new one is whole.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def import_(
    source: Path, image: Path, pixel_size: float | None, overwrite: bool, as_json: bool
) -> None:
    """Turn a slide, TIFF or picture into an OME-Zarr image.

    SOURCE is a slide of a pathology scanner (SVS, NDPI, MRXS, SCN, ...), a TIFF, OME-TIFF or
    BigTIFF of any size, a PNG or a JPEG. What it is, is told from its content. IMAGE.zarr gets
    a pyramid of levels; it appears once it is whole, and an import that is stopped leaves
    nothing behind.
    """
    from tilesegment.storage.importing import import_image

    # tifffile logs what is odd in a file besides raising; the error alone is the one clear line.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    with _progress_bar(f"Importing {source.name}") as progress:
        summary = import_image(
            source, image, pixel_size_um=pixel_size, overwrite=overwrite, progress=progress
        )
    click.echo(_json(summary) if as_json else _text(summary))


@contextmanager
def _progress_bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr that counts pixels; none where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

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


def _json(summary: "ImportSummary") -> str:
    pitch = summary.pixel_size_um
    facts = asdict(summary) | {
        "path": str(summary.path),
        "pixel_size_um": None if pitch is None else pitch._asdict(),
    }
    return json.dumps(facts)


def _text(summary: "ImportSummary") -> str:
    size = f"{' x '.join(map(str, summary.shape))} ({', '.join(summary.axes)})"
    pitch = summary.pixel_size_um
    scale = "unknown pixel size" if pitch is None else f"{pitch.y:g} x {pitch.x:g} um per pixel"
    return (
        f"{summary.path}: {size}, {summary.dtype}, {summary.levels} levels, {scale}, "
        f"{human_bytes(summary.bytes)}, from {summary.format} in {summary.seconds:.1f} s"
    )
