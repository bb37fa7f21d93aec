"""``tilesegment import``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tilesegment_cli.options import Numbers, crs_name, human_bytes, json_option, pixel_size_text

if TYPE_CHECKING:
    from tilesegment.storage.importing import ImportSummary


@click.command(
    name="import",
    epilog="""\b
Examples:
  tilesegment import slide.svs slide.zarr
  tilesegment import scan.tif scan.zarr --pixel-size 0.5
  tilesegment import scene.tif scene.zarr --fill-nodata 0
  tilesegment import sentinel.jp2 scene.zarr --bands 4,3,2 --region 0,5000,4000,4000
  tilesegment import slide.svs s3://slides/case-7.zarr
  tilesegment import cells.ome.tif cells.zarr --overwrite --json
""",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("image", metavar="IMAGE.zarr")
@click.option(
    "--pixel-size",
    type=float,
    metavar="UM",
    help="Micrometres per pixel, where SOURCE does not say or is wrong.",
)
@click.option(
    "--fill-nodata",
    type=float,
    metavar="VALUE",
    help="Put VALUE in the place of pixels that hold nothing: NaN, and a GeoTIFF's nodata value.",
)
@click.option(
    "--bands",
    type=Numbers(),
    metavar="N,N,...",
    help="Only these bands, counted from 1, in this order.",
)
@click.option(
    "--region",
    type=Numbers(4),
    metavar="Y,X,HEIGHT,WIDTH",
    help="Only this rectangle of SOURCE: its first row and column, and its size in pixels.",
)
@click.option(
    "--level",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Begin with the pixels averaged N times two by two.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace an image of this name, with the labels in it, once the new one is whole.",
)
@json_option
def import_(
    source: Path,
    image: str,
    pixel_size: float | None,
    fill_nodata: float | None,
    bands: tuple[int, ...] | None,
    region: tuple[int, ...] | None,
    level: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Turn a slide, TIFF, GeoTIFF or picture into an OME-Zarr image.

    SOURCE is a slide of a pathology scanner (SVS, NDPI, MRXS, SCN, ...), a TIFF, OME-TIFF,
    GeoTIFF or BigTIFF of any size, a JPEG 2000, PNG or JPEG. What it is, is told from its content.
    The CRS and affine of a GeoTIFF, or of a world file beside a picture, are kept. IMAGE.zarr gets
    a pyramid of levels; it appears once it is whole, and an import that is stopped leaves nothing
    behind. It may be in an object store (s3://bucket/image.zarr).
    """
    from tilesegment.storage.importing import Part, import_image
    from tilesegment.storage.importing.source import Window
    from tilesegment_cli.progress import pixel_bar

    with pixel_bar(f"Importing {source.name}") as progress:
        summary = import_image(
            source,
            image,
            pixel_size_um=pixel_size,
            fill_nodata=fill_nodata,
            part=Part(None if region is None else Window.at(*region), level, bands),
            overwrite=overwrite,
            progress=progress,
        )
    click.echo(_json(summary) if as_json else _text(summary))


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
    scale = (
        "unknown pixel size" if pitch is None else f"{pixel_size_text(pitch.y, pitch.x)} per pixel"
    )
    place = "" if summary.crs is None else f"{crs_name(summary.crs)}, "
    return (
        f"{summary.path}: {size}, {summary.dtype}, {summary.levels} levels, {scale}, {place}"
        f"{human_bytes(summary.bytes)}, from {summary.format} in {summary.seconds:.1f} s"
    )
