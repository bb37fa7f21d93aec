"""``tilesegment calibrate``."""

import json
from dataclasses import asdict

import click


@click.command(
    epilog="""\b
Examples:
  tilesegment calibrate nuclei slide.zarr --output nuclei-int8.safetensors
  tilesegment calibrate my.safetensors a.zarr b.zarr c.zarr --output my-int8.safetensors
  tilesegment run slide.zarr --model my-int8.safetensors --precision int8
"""
)
@click.argument("model", metavar="MODEL")
@click.argument("images", type=click.Path(), nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    required=True,
    metavar="MODEL.safetensors",
    help="The model file to write.",
)
@click.option(
    "--windows",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="How many windows of each image to show the network; as many more are compared.",
)
@click.option("--level", type=click.IntRange(0), help="As for `run`.")
@click.option("--pixel-size", type=float, metavar="UM", help="As for `run`.")
@click.option("--overwrite", is_flag=True, help="Replace the model file if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def calibrate(
    model: str,
    images: tuple[str, ...],
    output: str,
    windows: int,
    level: int | None,
    pixel_size: float | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a copy of MODEL that can compute in 8-bit integers (`run --precision int8`).

    The values of its feature maps are measured on windows of the IMAGEs, which should be of the
    kind that it is to segment. The weights stay what they are, and so do the other precisions.
    Integers are several times as fast on CPUs that have VNNI, and change a few labels: how many is
    measured on other windows of the same images.
    """
    from tilesegment.config import RunOptions
    from tilesegment.usecases.calibrate import calibrate as write_calibrated

    found = write_calibrated(
        model,
        images,
        output,
        windows=windows,
        options=RunOptions(level=level, pixel_size_um=pixel_size),
        overwrite=overwrite,
    )
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    click.echo(
        f"Model:  {found.model}\n"
        f"Shown:  {found.windows} windows\n"
        f"int8:   changes {found.changed_labels:.3%} of the labels of float32 in as many others"
    )
