"""The OME-Zarr 0.5 metadata of an imported image (https://ngff.openmicroscopy.org/0.5/)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from ome_zarr_models.common.omero import Channel, Omero
from ome_zarr_models.common.omero import Window as DisplayWindow
from ome_zarr_models.v05.axes import Axis
from ome_zarr_models.v05.image import Image
from pydantic_zarr.v3 import ArraySpec

from tilesegment.colours import OKABE_ITO, RGB
from tilesegment.geometry import YX
from tilesegment.storage.geozarr import geozarr_attributes
from tilesegment.storage.importing.pyramid import level_scale, level_translation
from tilesegment.storage.importing.source import ImageInfo, Pixels, PixelSize

_AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_PRIMARIES: tuple[RGB, ...] = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
_WHITE: tuple[RGB, ...] = ((255, 255, 255),)


@dataclass(frozen=True)
class ValueRange:
    """Smallest and largest value of each channel; NaN where a channel has nothing else."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, pixels: Pixels) -> "ValueRange":
        """Of the channels of a block, (c, y, x)."""
        low, high = np.fmin.reduce(pixels, (1, 2)), np.fmax.reduce(pixels, (1, 2))
        return cls(tuple(low.astype(float).tolist()), tuple(high.astype(float).tolist()))

    @classmethod
    def over(cls, ranges: Iterable["ValueRange"]) -> "ValueRange":
        """Of the channels of all blocks."""
        lows, highs = zip(*((each.low, each.high) for each in ranges), strict=True)
        return cls(
            tuple(np.fmin.reduce(lows, 0).tolist()), tuple(np.fmax.reduce(highs, 0).tolist())
        )


def image_attributes(
    arrays: Sequence[zarr.Array[Any]],
    axes: str,
    pixel_size: PixelSize | None,
    info: ImageInfo,
    values: ValueRange,
    name: str,
) -> dict[str, Any]:
    """Attributes of the group that make arrays "0", "1", ... the levels of one image."""
    levels = range(len(arrays))
    image = Image.new(
        array_specs=[ArraySpec.from_zarr(array) for array in arrays],
        paths=[str(level) for level in levels],
        axes=[_axis(axis, pixel_size, info) for axis in axes],
        scales=[[_scale(axis, level, pixel_size, info) for axis in axes] for level in levels],
        translations=[
            [_translation(axis, level, pixel_size, info) for axis in axes] for level in levels
        ],
        name=name,
        multiscale_type="mean",
    )
    ome = image.ome_attributes.model_dump(mode="json", exclude_none=True)
    ome["omero"] = _display(info, values).model_dump(mode="json")
    return {"ome": ome, **_place(info, arrays)}


def _place(info: ImageInfo, arrays: Sequence[zarr.Array[Any]]) -> dict[str, Any]:
    if info.georeferencing is None:
        return {}
    paths = [str(level) for level in range(len(arrays))]
    shapes = [YX(*array.shape[-2:]) for array in arrays]
    return geozarr_attributes(info.georeferencing, paths, shapes)


def _axis(axis: str, pixel_size: PixelSize | None, info: ImageInfo) -> Axis:
    is_known = pixel_size is not None and getattr(pixel_size, axis, None) is not None
    unit = "micrometer" if info.georeferencing is None else "meter"
    return Axis(name=axis, type=_AXIS_TYPES[axis], unit=unit if is_known else None)


def _pixel_size_along(axis: str, pixel_size: PixelSize | None, info: ImageInfo) -> float:
    """In the unit of `_axis`, or 1 for an axis that has no known size."""
    micrometres = getattr(pixel_size, axis, None)
    if micrometres is None:
        return 1.0
    return float(micrometres if info.georeferencing is None else micrometres / 1e6)


def _scale(axis: str, level: int, pixel_size: PixelSize | None, info: ImageInfo) -> float:
    factor = level_scale(level) if axis in "yx" else 1.0
    return factor * _pixel_size_along(axis, pixel_size, info)


def _translation(axis: str, level: int, pixel_size: PixelSize | None, info: ImageInfo) -> float:
    factor = level_translation(level) if axis in "yx" else 0.0
    return factor * _pixel_size_along(axis, pixel_size, info)


def _display(info: ImageInfo, values: ValueRange) -> Omero:
    """How a viewer shows the channels at first: names, colours, and the values that occur."""
    colours = _colours(info)
    return Omero(
        channels=[
            Channel.model_validate(
                {
                    "label": label,
                    "color": bytes(colours[number % len(colours)]).hex().upper(),
                    "active": True,
                    "window": _window(info.dtype, values.low[number], values.high[number]),
                }
            )
            for number, label in enumerate(info.channel_names)
        ]
    )


def _colours(info: ImageInfo) -> tuple[RGB, ...]:
    if info.is_colour:
        return _PRIMARIES
    return _WHITE if info.shape.c == 1 else OKABE_ITO


def _window(dtype: np.dtype[Any], low: float, high: float) -> DisplayWindow:
    if dtype == np.uint8:
        return DisplayWindow(min=0, max=255, start=0, end=255)
    if not low < high or not np.isfinite([low, high]).all():
        low, high = (low, low + 1) if np.isfinite(low) else (0.0, 1.0)
    if dtype.kind == "u":
        return DisplayWindow(min=0, max=np.iinfo(dtype).max, start=low, end=high)
    return DisplayWindow(min=low, max=high, start=low, end=high)
