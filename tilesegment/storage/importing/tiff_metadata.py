"""Pixel size and channel names of a TIFF: OME-XML, ImageJ, or the resolution tags."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tifffile

from tilesegment.storage.importing.source import PixelSize, scanned_size

_UM: Mapping[str, float] = {
    "m": 1e6,
    "cm": 1e4,
    "mm": 1e3,
    "µm": 1.0,  # micro sign
    "μm": 1.0,  # Greek mu
    "\\u00B5m": 1.0,  # as ImageJ writes it
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "nm": 1e-3,
    "pm": 1e-6,
    "Å": 1e-4,
    "inch": 25400.0,
    "in": 25400.0,
}
"""Micrometres per unit, by the names that OME and ImageJ use."""

_TAG_UNIT_UM: Mapping[int, float] = {2: 25400.0, 3: 10000.0}
"""Micrometres per unit of the tag ResolutionUnit: inch and centimetre."""


@dataclass(frozen=True)
class OmeImage:
    """What the OME-XML says of one image; empty where there is none."""

    pixel_size: PixelSize | None
    channel_names: tuple[str, ...]


def ome_image(tiff: tifffile.TiffFile, number: int) -> OmeImage:
    """What is stated of the image with this number."""
    pixels = _ome_pixels(tiff, number)
    names = tuple(str(channel.get("Name", "")) for channel in _as_list(pixels.get("Channel")))
    y, x, z = (_ome_length(pixels, axis) for axis in "YXZ")
    return OmeImage(
        pixel_size=PixelSize(y, x, z) if y is not None and x is not None else None,
        channel_names=names if all(names) else (),
    )


def stated_pixel_size(
    tiff: tifffile.TiffFile, number: int, page: tifffile.TiffPage
) -> PixelSize | None:
    """The pixel size, from the most trustworthy place that has one."""
    if tiff.is_ome:
        return ome_image(tiff, number).pixel_size
    if tiff.is_imagej:
        return _imagej_size(tiff.imagej_metadata or {}, page)
    unit = _TAG_UNIT_UM.get(int(page.resolutionunit or 1))
    pitch = _pitch(page)
    return scanned_size(pitch[0] * unit, pitch[1] * unit) if unit and pitch else None


def _ome_pixels(tiff: tifffile.TiffFile, number: int) -> Mapping[str, Any]:
    if not tiff.is_ome or not tiff.ome_metadata:
        return {}
    images = _as_list(tifffile.xml2dict(tiff.ome_metadata).get("OME", {}).get("Image"))
    pixels = images[number].get("Pixels", {}) if number < len(images) else {}
    return pixels if isinstance(pixels, Mapping) else {}


def _ome_length(pixels: Mapping[str, Any], axis: str) -> float | None:
    """Physical size along an axis in micrometres, which is also OME's default unit."""
    value = pixels.get(f"PhysicalSize{axis}")
    unit = _UM.get(str(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
    return _positive(value, unit)


def _imagej_size(metadata: Mapping[str, Any], page: tifffile.TiffPage) -> PixelSize | None:
    unit = _UM.get(str(metadata.get("unit", "")))
    pitch = _pitch(page)
    if unit is None or pitch is None:
        return None
    return PixelSize(pitch[0] * unit, pitch[1] * unit, _positive(metadata.get("spacing"), unit))


def _pitch(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Units per pixel along y and x, from the resolution tags."""
    tags = [page.tags.get(name) for name in ("YResolution", "XResolution")]
    if any(tag is None for tag in tags):
        return None
    (pixels_y, units_y), (pixels_x, units_x) = (tag.value for tag in tags if tag is not None)
    if not (pixels_y and units_y and pixels_x and units_x):
        return None
    return units_y / pixels_y, units_x / pixels_x


def _positive(value: Any, unit: float | None) -> float | None:
    """`value` times `unit`, if it is a length at all."""
    if unit is None or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value * unit if value > 0 else None


def _as_list(found: Any) -> list[Mapping[str, Any]]:
    """xml2dict gives a list for several elements, and the element itself for one."""
    return found if isinstance(found, list) else [found] if isinstance(found, Mapping) else []
