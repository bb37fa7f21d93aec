"""What GeoTIFF adds to TIFF: CRS, affine, nodata and band names, through rasterio.

The pixels come from `tiff.py`; GDAL knows the many ways in which a place can be written down
(tiepoints, PixelIsPoint, a matrix).
"""

import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import rasterio
import zarr_cm  # noqa: F401  (geozarr.py imports it late, and would fail in the middle)
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError

from tilesegment.errors import InputError
from tilesegment.storage.geozarr import Affine, Georeferencing
from tilesegment.storage.importing.source import PixelSize
from tilesegment.storage.importing.tiff import TiffSource

logger = logging.getLogger(__name__)


def georeferenced(source: TiffSource, path: Path) -> TiffSource:
    """The same source, with what rasterio knows of its place and bands.

    Raises InputError if GDAL cannot read the file, or means another image in it.
    """
    try:
        with warnings.catch_warnings():
            # Told below, in words that say what to do.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver="GTiff") as dataset:
                source.info = _described(source, dataset, path)
    except (RasterioError, CRSError) as error:
        raise InputError(
            f"{path}: the GeoTIFF is damaged, or GDAL cannot read this kind ({error}); "
            "copy or export it again"
        ) from error
    return source


def _described(source: TiffSource, dataset: Any, path: Path) -> Any:
    info = source.info
    if (info.shape.y, info.shape.x) != dataset.shape:
        raise InputError(
            f"{path}: its largest image is not the one that is georeferenced; take one out of it "
            "first (gdal_translate)"
        )
    place = _place(dataset, path)
    names = tuple(dataset.descriptions)
    return replace(
        info,
        format="GeoTIFF",
        georeferencing=place,
        pixel_size=_pixel_size(dataset, place) if place else info.pixel_size,
        nodata=dataset.nodata,
        channel_names=names if len(names) == info.shape.c and all(names) else info.channel_names,
    )


def _place(dataset: Any, path: Path) -> Georeferencing | None:
    if dataset.transform.is_identity:
        logger.warning("%s: its place is lost, since %s", path, _reason(dataset))
        return None
    transform = Affine(*tuple(dataset.transform)[:6])
    if transform.is_rotated:
        logger.warning(
            "%s: it is rotated against its coordinates; it is shown as it is stored, and exports "
            "are placed by its affine",
            path,
        )
    if not dataset.crs:
        logger.warning(
            "%s: it has an affine but no CRS, and so will its exports "
            "(give it one: rio edit-info --crs EPSG:... FILE)",
            path,
        )
    return Georeferencing(transform, _crs_text(dataset.crs) if dataset.crs else None)


def _reason(dataset: Any) -> str:
    if dataset.gcps[0]:
        return "it has ground control points instead of an affine; warp it first (gdalwarp)"
    return "it has a CRS but no affine; give it one first (gdal_translate -a_ullr)"


def _crs_text(crs: Any) -> str:
    """The code where it says all that the file says, or else WKT 2."""
    code = crs.to_epsg(confidence_threshold=100)
    if code is not None and rasterio.CRS.from_epsg(code) == crs:
        return f"EPSG:{code}"
    return str(crs.to_wkt(version="WKT2_2019"))


def _pixel_size(dataset: Any, place: Georeferencing) -> PixelSize | None:
    """In micrometres; None if the CRS counts in degrees, or is unknown."""
    if not dataset.crs or not dataset.crs.is_projected:
        return None
    _, metres = dataset.crs.linear_units_factor
    y, x = (side * metres * 1e6 for side in place.transform.pixel_sides)
    return PixelSize(y, x)
