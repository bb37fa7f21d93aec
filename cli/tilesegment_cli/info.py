"""``tilesegment info``."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tilesegment.model.file import ModelDescription
    from tilesegment.storage.image import Image


@click.command(
    epilog="""\b
Examples:
  tilesegment info slide.zarr
  tilesegment info my.safetensors --json
"""
)
@click.argument("path", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def info(path: str, as_json: bool) -> None:
    """Show what is in an OME-Zarr image or a model file."""
    if path.endswith(".safetensors"):
        from tilesegment.model.file import read_description

        facts = _model_facts(read_description(path))
    else:
        from tilesegment.storage.image import open_image

        facts = _image_facts(open_image(path))
    click.echo(json.dumps(facts) if as_json else _text(facts))


def _image_facts(image: "Image") -> dict[str, Any]:
    from tilesegment.storage.geozarr import read_georeferencing

    place = read_georeferencing(dict(image.group.attrs), image.location)
    located = {} if place is None else {"CRS": place.crs, "affine": list(place.transform)}
    return {
        "format": f"OME-Zarr {image.version}",
        "axes": [axis.name for axis in image.axes],
        "type": str(image.levels[0].dtype),
        "channels": image.channels,
        "pixel size": _pixel_size(image),
        **located,
        "levels": [
            " x ".join(str(size) for size in level.shape)
            + f" in chunks of {' x '.join(str(size) for size in level.chunks)}"
            for level in image.levels
        ],
        "labels": image.label_names(),
    }


def _pixel_size(image: "Image") -> str | None:
    size = image.pixel_size_um(0)
    return None if size is None else f"{size[0]:g} x {size[1]:g} um"


def _model_facts(model: "ModelDescription") -> dict[str, Any]:
    geometry = model.geometry
    return {
        "architecture": dict(model.arguments),
        "classes": [asdict(item) for item in model.classes],
        "pixel size": None if model.pixel_size_um is None else f"{model.pixel_size_um:g} um",
        "border": geometry.border,
        "alignment": geometry.alignment,
        "halo": geometry.halo,
        "training": dict(model.training),
    }


def _text(facts: dict[str, Any]) -> str:
    lines = []
    for name, value in facts.items():
        if isinstance(value, list) and value and not isinstance(value[0], dict):
            separator = "\n" + " " * 14 if name == "levels" else ", "
            value = separator.join(str(item) for item in value)
        elif isinstance(value, (dict, list)):
            value = json.dumps(value)
        lines.append(f"{name + ':':<14}{value if value not in (None, '', '[]') else 'none'}")
    return "\n".join(lines)
