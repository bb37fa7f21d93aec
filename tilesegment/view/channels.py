"""How the channels of an image are drawn at first: their names, colours and contrast."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tilesegment.colours import RGB, class_colour
from tilesegment.storage.image import Image

_SAMPLE = 1024
"""Pixels per side of the part of the coarsest level whose brightness decides the contrast."""
_SHOWN_CHANNELS = 4
"""Channels that are visible at first, if the image does not say."""
_RGB: tuple[RGB, ...] = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
_GREY: RGB = (255, 255, 255)


def describe_channels(image: Image) -> list[dict[str, Any]]:
    """Name, colour, contrast and visibility of each channel: as the image says, or by sight."""
    stored, names = _omero_channels(image), channel_names(image)
    sample = _sample(image)
    colours = _default_colours(image)
    channels = []
    for number in range(image.channels):
        omero = stored[number] if number < len(stored) else {}
        low, high = _range(sample[number])
        window = omero.get("window") or {}
        start, end = window.get("start"), window.get("end")
        if start is None or end is None or start >= end:
            start, end = _contrast(sample[number])
        channels.append(
            {
                "name": names[number],
                "colour": _hex_colour(omero.get("color")) or colours[number],
                "window": [start, end],
                "range": [min(low, start), max(high, end)],
                "visible": bool(omero.get("active", number < _SHOWN_CHANNELS)),
            }
        )
    return channels


def channel_names(image: Image) -> list[str]:
    """The name of each channel, as the image says or as it is called here."""
    stored = _omero_channels(image)
    stated = [item.get("label") for item in stored] + [None] * image.channels
    return [str(stated[number] or _channel_name(image, number)) for number in range(image.channels)]


def _omero_channels(image: Image) -> list[dict[str, Any]]:
    """The rendering settings of the specification's "omero" entry, if they can be used."""
    attributes: Any = dict(image.group.attrs)
    omero = attributes.get("ome", attributes).get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list) or not all(isinstance(item, dict) for item in channels):
        return []
    return channels


def _is_colour_picture(image: Image) -> bool:
    return image.channels == 3 and image.levels[0].dtype == np.uint8


def _default_colours(image: Image) -> list[RGB]:
    if image.channels == 1:
        return [_GREY]
    if image.channels <= len(_RGB):
        return list(_RGB[: image.channels])
    return [class_colour(number + 1) for number in range(image.channels)]


def _channel_name(image: Image, number: int) -> str:
    if _is_colour_picture(image):
        return ("Red", "Green", "Blue")[number]
    return "Intensity" if image.channels == 1 else f"Channel {number + 1}"


def _hex_colour(text: object) -> RGB | None:
    """A colour of the "omero" entry, six hexadecimal digits."""
    try:
        red, green, blue = bytes.fromhex(str(text).removeprefix("#"))[:3]
    except ValueError:
        return None
    return red, green, blue


def _sample(image: Image) -> npt.NDArray[Any]:
    """The middle of the coarsest level's middle plane: (c, y, x)."""
    level = len(image.levels) - 1
    shape = image.plane_shape(level)
    top, left = (max(0, (size - _SAMPLE) // 2) for size in shape)
    bottom, right = min(top + _SAMPLE, shape.y), min(left + _SAMPLE, shape.x)
    plane = image.planes(level) // 2
    return image.pixels(level).stored(plane, top, bottom, left, right)


def _range(pixels: npt.NDArray[Any]) -> tuple[float, float]:
    """The span over which the contrast can be set."""
    if pixels.dtype == np.uint8:
        return 0, 255
    finite = pixels[np.isfinite(pixels)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _contrast(pixels: npt.NDArray[Any]) -> tuple[float, float]:
    """Bytes as they are; other types from nearly their darkest to nearly their brightest pixel."""
    if pixels.dtype == np.uint8:
        return 0, 255
    finite = pixels[np.isfinite(pixels)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, (0.5, 99.5)))
    return (low, high) if low < high else (low, low + 1.0)
