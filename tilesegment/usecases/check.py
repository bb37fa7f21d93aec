"""`tilesegment check`: what a network is, found by running it."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import nn

from tilesegment.config import ForeignOptions
from tilesegment.errors import ModelError
from tilesegment.geometry import YX, NetworkGeometry, round_up
from tilesegment.model import zoo
from tilesegment.model.file import ModelDescription, load_model, read_description
from tilesegment.model.foreign.opening import open_runnable
from tilesegment.model.opening import foreign_kind
from tilesegment.model.predictor import Device
from tilesegment.model.probe import Measured, measure
from tilesegment.model.probing.cost import Cost, measure_cost
from tilesegment.model.probing.energy import effective_border
from tilesegment.model.probing.precision import changed_labels
from tilesegment.model.probing.subject import Run, Subject
from tilesegment.storage.image import MirroredPixels, open_image
from tilesegment.tiling import Window

_TILES = (256, 512, 1024, 2048, 4096)
"""Pixels per side that are costed, each rounded up to the network's alignment."""
_SAMPLES = YX(2, 2)
"""Tiles that precisions are compared on, per axis."""
_SAMPLE_TILE = 256
_EFFECT_MARGIN = 32
"""Pixels beyond the field, for the positions at which the effect of a pixel is measured."""
_NOT_LOCAL_SIZE = 256
"""Input in which the effect of a pixel is measured where the field has no end."""


@dataclass(frozen=True)
class TileCost:
    """What tiles of one size cost."""

    tile: int
    input: int
    """Pixels per side that the network is given."""
    compute_amplification: float
    """Pixels given to the network over pixels of the tile."""
    memory_bytes: float | None
    """Of feature maps; None if not known."""


@dataclass(frozen=True)
class CheckReport:
    """What was found about a network."""

    name: str
    channels: int
    """Of its input."""
    measured: Measured
    effective_border: int
    """Pixels within which 99.9 % of the effect of an input pixel lies, on random pictures."""
    cost: Cost
    tiles: tuple[TileCost, ...]
    """Sizes to choose from; none if the network is not local."""
    classes: tuple[str, ...] = ()
    """Names; empty if they are not known."""
    changed_labels: dict[str, float] = field(default_factory=dict)
    """Share of labels that differ from float32's, by reduced precision that the device has."""
    samples: str = ""
    """What `changed_labels` was measured on."""


def check(
    model: str | Path = zoo.DEFAULT,
    *,
    image: str | Path | None = None,
    foreign: ForeignOptions = ForeignOptions(),  # noqa: B008 - frozen
) -> CheckReport:
    """Run a model and report its border, alignment, costs, and what reduced precision changes.

    Args:
        model: path of a model file, name of a bundled model, or a foreign network.
        image: an OME-Zarr image, on whose middle the precisions are compared; a random texture
            by default. Foreign networks compute in float32 only.
        foreign: what a foreign network cannot say of itself.

    Raises:
        ModelError: if the model cannot be used, or is not what its file says.
        InputError: if the image cannot be used.
    """
    kind = foreign_kind(model)
    if kind is not None:
        opened, run, channels = open_runnable(str(model), kind, foreign)
        fixed = opened.network.fixed_input
        return check_network(run, channels, fixed_size=fixed, name=str(model))
    path = zoo.find(model)
    description = read_description(path)
    samples = _texture_tiles(description) if image is None else _image_tiles(description, image)
    network = load_model(path)
    report = check_network(network, description.in_channels, network=network, name=str(model))
    _compare(report.measured, description.geometry, path)
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    return replace(
        report,
        classes=tuple(item.name for item in description.classes),
        changed_labels=changed_labels(
            path.read_bytes(), description, samples, samples[0].dtype, device
        ),
        samples="a random texture" if image is None else str(image),
    )


def check_network(
    run: Run,
    channels: int,
    *,
    network: nn.Module | None = None,
    fixed_size: int | None = None,
    name: str = "network",
) -> CheckReport:
    """Run any network and report its border, alignment and costs.

    Args:
        run: the network, (1, channels, y, x) float32 to (1, outputs, y', x').
        channels: of its input.
        network: the modules behind `run`, if there are any.
        fixed_size: the only size of y and x that it takes, if so.
        name: for the report.

    Raises:
        ModelError: if it runs on no size, or cannot be tiled.
    """
    measured = measure(run, channels, fixed_size=fixed_size, network=network)
    subject = Subject(run, channels)
    step = 0 if measured.fixed_size else measured.legal_step
    cost = measure_cost(subject, network, measured.smallest_input, step)
    return CheckReport(
        name=name,
        channels=channels,
        measured=measured,
        effective_border=effective_border(subject, _effect_size(measured), measured.offset),
        cost=cost,
        tiles=_tile_costs(measured, cost) if measured.local else (),
    )


def _effect_size(measured: Measured) -> int:
    """A legal input in whose middle a pixel's effect can be seen whole."""
    if measured.fixed_size is not None:
        return measured.fixed_size
    size = _NOT_LOCAL_SIZE
    if measured.field is not None:
        size = 2 * (measured.field.largest + _EFFECT_MARGIN) + measured.loss.y
    more = round_up(max(size - measured.smallest_input, 0), measured.legal_step)
    return measured.smallest_input + more


def _tile_costs(measured: Measured, cost: Cost) -> tuple[TileCost, ...]:
    geometry = measured.geometry
    if measured.fixed_size is not None:
        only = measured.fixed_size - 2 * geometry.halo
        return (_tile_cost(only, geometry, cost),) if only >= geometry.smallest_tile else ()
    tiles = {max(round_up(tile, geometry.alignment), geometry.smallest_tile) for tile in _TILES}
    return tuple(_tile_cost(tile, geometry, cost) for tile in sorted(tiles))


def _tile_cost(tile: int, geometry: NetworkGeometry, cost: Cost) -> TileCost:
    size = geometry.input_size(tile)
    memory = None if cost.memory_bytes is None else cost.memory_bytes * size**2
    return TileCost(tile, size, (size / tile) ** 2, memory)


def _compare(measured: Measured, stated: NetworkGeometry, path: Path) -> None:
    """Refuse a model that is not what its file says.

    Raises:
        ModelError: with both geometries.
    """
    if not measured.local:
        raise ModelError(f"{path} is not local: {'; '.join(measured.reasons)}")
    if measured.geometry != stated:
        raise ModelError(
            f"{path} says {_numbers(stated)}, but running it shows {_numbers(measured.geometry)}; "
            "export it again"
        )


def _numbers(geometry: NetworkGeometry) -> str:
    return f"border {geometry.border}, alignment {geometry.alignment}, loss {geometry.loss}"


def _texture_tiles(description: ModelDescription) -> list[npt.NDArray[np.uint8]]:
    """Blobs and grain of random colours, the same ones every time."""
    side = description.geometry.input_size(_sample_tile(description.geometry))
    generator = np.random.default_rng(0)
    tiles = []
    for _ in range(_SAMPLES.y * _SAMPLES.x):
        noise = generator.standard_normal((description.in_channels, side, side))
        blobs = 8 * ndimage.gaussian_filter(noise, (0, 6, 6))
        tiles.append(np.clip(128 + 60 * blobs + 20 * noise, 0, 255).astype(np.uint8))
    return tiles


def _image_tiles(description: ModelDescription, image: str | Path) -> list[npt.NDArray[np.generic]]:
    """Neighbouring tiles in the middle of the image's first plane, at full resolution."""
    opened = open_image(image)
    description.check_channels(opened.channels, opened.location)
    pixels: MirroredPixels = opened.pixels(0)
    geometry = description.geometry
    tile = _sample_tile(geometry)
    middle = YX(*(size // 2 for size in pixels.plane_shape))
    return [
        pixels.read(
            0,
            Window(middle.y - row * tile, middle.x - column * tile, tile, tile).grown(
                geometry.halo
            ),
        )
        for row in range(_SAMPLES.y)
        for column in range(_SAMPLES.x)
    ]


def _sample_tile(geometry: NetworkGeometry) -> int:
    return max(round_up(_SAMPLE_TILE, geometry.alignment), geometry.smallest_tile)
