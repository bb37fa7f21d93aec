"""``tilesegment export``."""

import click


@click.command(
    epilog="""\b
Examples:
  tilesegment export slide.zarr overlay.png
  tilesegment export slide.zarr overlay.png --labels tumour --largest 4000
"""
)
@click.argument("image", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--labels", default="nuclei", show_default=True, metavar="NAME", help="Which label image."
)
@click.option(
    "--largest",
    type=click.IntRange(min=64),
    default=2000,
    show_default=True,
    help="Pixels of the picture's longer side, at most.",
)
@click.option(
    "--plane",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Which plane of an image with t or z, counted through.",
)
def export(image: str, out: str, labels: str, largest: int, plane: int) -> None:
    """Write a picture (OUT.png) of IMAGE with its labels, a legend and a scale bar."""
    from tilesegment.storage.exporting.overview import write_overview

    click.echo(write_overview(image, labels, out, largest, plane))
