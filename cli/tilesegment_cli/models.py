"""``tilesegment models``."""

import json
from typing import Any

import click

from tilesegment_cli.options import human_bytes, json_option


@click.command()
@json_option
def models(as_json: bool) -> None:
    """List the bundled models."""
    from tilesegment.model import zoo
    from tilesegment.model.file import read_description

    found: dict[str, dict[str, Any]] = {}
    for name in zoo.names():
        path = zoo.find(name)
        description = read_description(path)
        found[name] = {
            "channels": description.in_channels,
            "classes": [item.name for item in description.classes],
            "pixel_size_um": description.pixel_size_um,
            "bytes": path.stat().st_size,
        }
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, facts in found.items():
        size = facts["pixel_size_um"]
        scale = f", trained at {size} um per pixel" if size else ""
        click.echo(
            f"{name}: {facts['channels']} channels to {', '.join(facts['classes'])}{scale} "
            f"({human_bytes(facts['bytes'])})"
        )
