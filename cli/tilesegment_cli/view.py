"""``tilesegment view``."""

import asyncio
import webbrowser
from contextlib import suppress

import click


@click.command(
    epilog="""\b
Examples:
  tilesegment view slide.zarr
  tilesegment view slide.zarr --labels other/labels.zarr
  tilesegment view slide.zarr --port 8800 --no-browser
"""
)
@click.argument("image", type=click.Path())
@click.option(
    "--labels",
    "label_stores",
    type=click.Path(),
    multiple=True,
    metavar="STORE",
    help="A label image outside of IMAGE, as `run --output` writes it; can be given repeatedly.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of the page's address; default: one that is free.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def view(image: str, label_stores: tuple[str, ...], port: int, no_browser: bool) -> None:
    """Look at IMAGE and its labels in the browser, also while a run goes on.

    Prints the page's address and serves it on this machine only, until Ctrl-C.
    """
    from tilesegment.view.description import open_scene
    from tilesegment.view.server import serve

    def ready(address: str) -> None:
        click.echo(address)
        if not no_browser:
            webbrowser.open(address)

    scene = open_scene(image, label_stores)
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(scene, port, ready))
