"""`tilesegment calibrate`: what a model needs to compute in 8-bit integers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tilesegment.config import RunOptions
from tilesegment.errors import OptionError
from tilesegment.model.file import ModelDescription, save_with_ranges
from tilesegment.model.opening import Model, foreign_kind, open_model
from tilesegment.model.probing.precision import changed_labels, find_ranges
from tilesegment.model.quantise import can_quantise
from tilesegment.sampling import window_side
from tilesegment.storage.exporting.destination import check_free
from tilesegment.storage.image import open_image
from tilesegment.tiling import Window
from tilesegment.usecases.job import plan_job

_CANDIDATES = 8
"""Windows per axis of an image, from which those with the most contrast are taken."""


@dataclass(frozen=True)
class Calibration:
    """A calibrated model."""

    model: str
    """Path of the new file."""
    windows: int
    """On which the ranges were measured; as many others were compared."""
    changed_labels: float
    """Share of labels in those others that differ from float32's."""


def calibrate(
    model: str | Path,
    images: Sequence[str | Path],
    output: str | Path,
    *,
    windows: int = 8,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    overwrite: bool = False,
) -> Calibration:
    """Measure what the values of the network's feature maps are, and write them into a new model.

    Args:
        model: path of a model file, or name of a bundled one.
        images: paths of images of the kind that the model is to segment.
        output: the model file to write.
        windows: how many windows of each image to show the network; as many more are compared.
        options: the level, or the pixel size, as for a run.
        overwrite: replace the output.

    Raises:
        InputError, ModelError, OptionError, OutputError: as `segment`; the model is foreign; the
            CPU has no fast arithmetic of bytes; the output exists.
    """
    out = Path(output)
    if out.suffix != ".safetensors":
        raise OptionError(f"a model file ends in .safetensors, got {out}")
    check_free(out, overwrite)
    if not can_quantise():
        raise OptionError(
            "this CPU cannot compute in int8; it needs the instructions VNNI, calibrate elsewhere"
        )
    if foreign_kind(model) is not None:
        raise OptionError(f"{model} is no model of tilesegment; only those compute in int8")
    opened = open_model(model)
    description = cast("ModelDescription", opened.description)
    samples = [_sample(image, opened, options, 2 * windows) for image in images]
    if len({sample.pixels for sample in samples}) > 1:
        raise OptionError("the images have several types of pixels; give images of one type")
    # Every other one, so that both halves show the same kinds of places.
    measured = [tile for sample in samples for tile in sample.tiles[0::2]]
    compared = [tile for sample in samples for tile in sample.tiles[1::2]] or measured
    pixels = samples[0].pixels
    description = replace(
        description, ranges=find_ranges(opened.content, description, measured, pixels)
    )
    changed = changed_labels(opened.content, description, compared, pixels, "cpu", ["int8"])
    save_with_ranges(opened.content, description.ranges, out)
    return Calibration(str(out), len(measured), changed["int8"])


@dataclass(frozen=True)
class _Sample:
    """Of one image."""

    tiles: list[npt.NDArray[Any]]
    """Inputs of the network with their halo, (c, y, x)."""
    pixels: np.dtype[Any]
    """Type of the image's pixels."""


def _sample(image: str | Path, model: Model, options: RunOptions, count: int) -> _Sample:
    """Of windows on a regular grid those with the most contrast: not the empty background."""
    opened = open_image(image, options.axes)
    plan = plan_job(opened, model, options)[0]
    source = opened.pixels(plan.source.level)
    side = window_side(plan.tile, plan.geometry.alignment)
    windows = [
        Window(y, x, side, side)
        for y, x in product(*(_spread(size, side) for size in plan.source.shape))
    ]
    contrasts = [float(source.read(0, window).std()) for window in windows]
    tiles = []
    for index in np.argsort(contrasts)[::-1][:count]:
        window = windows[index]
        tile = source.read(0, window.grown(plan.halo))
        tiles.append(tile if plan.resampling is None else plan.resampling.shown(tile, window))
    return _Sample(tiles, opened.levels[plan.source.level].dtype)


def _spread(size: int, side: int) -> list[int]:
    """Where up to `_CANDIDATES` windows that do not overlap begin along an axis.

    >>> _spread(1000, 256), _spread(100, 256)
    ([0, 256, 512], [0])
    """
    places = max(size // side, 1)
    step = max(places / _CANDIDATES, 1)
    return [int(index * step) * side for index in range(min(places, _CANDIDATES))]
