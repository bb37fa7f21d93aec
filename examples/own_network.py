"""Segment an image with a network of one's own, from Python.

    python examples/own_network.py IMAGE.zarr

The network here has random weights: put yours in its place.
"""

import sys

import tilesegment as ts


def main() -> None:
    """Save a network, look at the plan, run it."""
    image = sys.argv[1]
    channels = ts.open_image(image).channels
    network = ts.UNet(channels, classes=2, base_channels=8, depth=3)
    model = ts.save_model(network, "own.safetensors", classes=["background", "mine"])
    options = ts.RunOptions(tile=512)
    planned = ts.plan(image, model, options)
    print(f"{len(planned.grid)} tiles, halo {planned.halo} px")
    summary = ts.segment(image, model, options=options)
    print(f"{summary.labels}: {summary.shares}")


if __name__ == "__main__":  # worker processes import this file
    main()
