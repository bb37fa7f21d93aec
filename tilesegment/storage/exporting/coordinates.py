"""From pixel corners to the coordinates of a CRS."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import CRSError

from tilesegment.errors import InputError
from tilesegment.storage.exporting.labelled import Labelled
from tilesegment.storage.geozarr import Affine


@dataclass(frozen=True)
class Coordinates:
    """What the coordinates of polygons mean, and how large a pixel is in them."""

    transform: Affine | None
    """From pixel corners; None where the coordinates are pixel corners."""
    crs: Any
    """A rasterio CRS, or None."""
    pixel_area: float | None
    """In squares of `unit`."""
    unit: str | None
    """"m" or "um"; None where nobody knows how large a pixel is."""

    def of(self, corners: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Coordinates of pixel corners; both (n, 2) in (x, y)."""
        if self.transform is None:
            return corners
        a, b, c, d, e, f = self.transform
        x, y = corners[:, 0], corners[:, 1]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)


def coordinates_of(labelled: Labelled) -> Coordinates:
    """Those of the image's CRS and affine, or else its pixels.

    Raises:
        InputError: if the CRS is none that PROJ knows.
    """
    place, size = labelled.place, labelled.pixel_size_um
    if place is None:
        area = None if size is None else size[0] * size[1]
        return Coordinates(None, None, area, None if area is None else "um")
    crs = None if place.crs is None else read_crs(place.crs)
    if crs is None or not crs.is_projected:
        return Coordinates(place.transform, crs, None, None)
    _, metres = crs.linear_units_factor
    return Coordinates(place.transform, crs, place.transform.pixel_area * metres**2, "m")


def read_crs(text: str) -> Any:
    """A rasterio CRS from a code, WKT or PROJJSON.

    Raises:
        InputError: if PROJ does not know it.
    """
    try:
        return rasterio.CRS.from_user_input(text)
    except CRSError as error:
        raise InputError(
            f"the image states a CRS that PROJ does not know ({text[:60]}); mend its metadata"
        ) from error
