"""Where an image lies on the Earth, beside its OME metadata: the conventions of GeoZarr.

Three conventions (https://github.com/zarr-conventions: spatial, proj, multiscales) stand in the
attributes of the same group as "ome". They are proposals and still move, so nothing outside
this module knows their keys. OME counts from pixel centres, GeoZarr and GDAL from corners::

    corner (0, 0) of the first pixel ->  +-------+   GeoZarr, GDAL: origin of the affine
                                         |   o   |   OME: origin of scale and translation
                                         +-------+

That is why a coarser level keeps the origin of its affine, and has a translation in OME.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tilesegment.errors import InputError
from tilesegment.geometry import YX

_PREFIXES = ("spatial:", "proj:")
_NAMES = ("spatial", "proj", "multiscales")


class Affine(NamedTuple):
    """From pixel corners to coordinates.

    x = a * column + b * row + c and y = d * column + e * row + f. The order is that of
    rasterio and GeoZarr; GDAL's own starts with c.
    """

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    @property
    def is_rotated(self) -> bool:
        return self.b != 0 or self.d != 0

    @property
    def pixel_sides(self) -> tuple[float, float]:
        """Lengths of a pixel's sides along rows and columns, (y, x), in the unit of the CRS.

        >>> Affine(0.5, 0, 100, 0, -2.0, 900).pixel_sides
        (2.0, 0.5)
        """
        return math.hypot(self.b, self.e), math.hypot(self.a, self.d)

    @property
    def pixel_area(self) -> float:
        """In the squared unit of the CRS."""
        return abs(self.a * self.e - self.b * self.d)

    def enlarged(self, factor: float) -> "Affine":
        """The affine of a level whose pixels are `factor` times as wide and high."""
        a, b, c, d, e, f = self
        return Affine(a * factor, b * factor, c, d * factor, e * factor, f)

    def from_centres(self) -> "Affine":
        """The affine of corners, if this one was that of pixel centres."""
        a, b, c, d, e, f = self
        return Affine(a, b, c - (a + b) / 2, d, e, f - (d + e) / 2)


@dataclass(frozen=True)
class Georeferencing:
    """Where the finest level of an image lies."""

    transform: Affine
    crs: str | None
    """"EPSG:32633", WKT 2, or PROJJSON; None where nobody has told."""


def geozarr_attributes(
    place: Georeferencing, paths: Sequence[str], shapes: Sequence[YX]
) -> dict[str, Any]:
    """Attributes of a group whose arrays are levels, each of them half the one before.

    Needs zarr-cm.
    """
    import zarr_cm

    levels = [
        {
            "spatial:shape": list(shape),
            "spatial:transform": list(place.transform.enlarged(2**number)),
        }
        for number, shape in enumerate(shapes)
    ]
    layout: list[dict[str, Any]] = []
    for number, path in enumerate(paths):
        derived = {
            "derived_from": paths[number - 1],
            "transform": {"scale": [2.0, 2.0], "translation": [0.0, 0.0]},
        }
        layout.append({"asset": path, **(derived if number else {}), **levels[number]})
    conventions: dict[Any, Any] = {
        "spatial": {
            "spatial:dimensions": ["y", "x"],
            "spatial:registration": "pixel",
            **levels[0],
        },
        "multiscales": {"layout": layout, "resampling_method": "average"},
    }
    if place.crs is not None:
        is_code = place.crs.startswith("EPSG:")
        conventions["proj"] = {"proj:code" if is_code else "proj:wkt2": place.crs}
    return dict(zarr_cm.create_many(conventions))


def carried_attributes(attributes: Mapping[str, Any], ome_version: str) -> dict[str, Any]:
    """What a label image takes over from the attributes of its image, whose levels it shares.

    In version 0.4 the key "multiscales" is OME's own, so that convention is left out.
    """
    carried = {key: value for key, value in attributes.items() if key.startswith(_PREFIXES)}
    if not carried:
        return {}
    names = list(_NAMES)
    levels = attributes.get("multiscales")
    if ome_version == "0.5" and isinstance(levels, dict):
        carried["multiscales"] = {**levels, "resampling_method": "mode"}
    else:
        names.remove("multiscales")
    declared = attributes.get("zarr_conventions") or []
    carried["zarr_conventions"] = [item for item in declared if item.get("name") in names]
    return carried


def read_georeferencing(attributes: Mapping[str, Any], location: str) -> Georeferencing | None:
    """Where an image lies, from the attributes of its group; None if they do not say.

    Raises:
        InputError: if what they say is no affine.
    """
    spatial = _spatial(attributes)
    numbers = spatial.get("spatial:transform")
    if numbers is None:
        return None
    if not _is_affine(numbers):
        raise InputError(
            f"{location} has damaged georeferencing: spatial:transform is {numbers}, but six "
            "numbers [a, b, c, d, e, f] are needed; mend its metadata"
        )
    transform = Affine(*(float(number) for number in numbers))
    if spatial.get("spatial:registration") == "node":
        transform = transform.from_centres()
    return Georeferencing(transform, _crs(attributes))


def _spatial(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The group's spatial keys, with those of its finest level where it has none itself."""
    levels = attributes.get("multiscales")
    layout = levels.get("layout") if isinstance(levels, dict) else None
    finest = layout[0] if isinstance(layout, list) and layout else {}
    return {**finest, **attributes} if isinstance(finest, dict) else attributes


def _is_affine(numbers: Any) -> bool:
    return (
        isinstance(numbers, list)
        and len(numbers) == 6
        and all(isinstance(number, int | float) for number in numbers)
        and all(math.isfinite(number) for number in numbers)
        and Affine(*numbers).pixel_area > 0
    )


def _crs(attributes: Mapping[str, Any]) -> str | None:
    code = attributes.get("proj:code") or attributes.get("proj:wkt2")
    if code is not None:
        return str(code)
    projjson = attributes.get("proj:projjson")
    return None if projjson is None else json.dumps(projjson)
