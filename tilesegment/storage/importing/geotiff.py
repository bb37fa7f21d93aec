"""What GeoTIFF and world files add to a picture: CRS, affine, nodata, band names, by rasterio.

The pixels come from `tiff.py` and `picture.py`; GDAL knows the many ways in which a place can be
written down (tiepoints, PixelIsPoint, a matrix).
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import rasterio
import zarr_cm  # noqa: F401  (geozarr.py imports it late, and would fail in the middle)
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError

from tilesegment.errors import InputError
from tilesegment.storage.geozarr import Affine, Georeferencing
from tilesegment.storage.importing.picture import PictureSource
from tilesegment.storage.importing.source import ImageInfo, PixelSize
from tilesegment.storage.importing.tiff import TiffSource

logger = logging.getLogger(__name__)


Located = TypeVar("Located", TiffSource, PictureSource)


def georeferenced(source: Located, path: Path, driver: str) -> Located:
    """The same source, with what GDAL's driver knows of its place and bands.

    Raises InputError if GDAL cannot read the file, or means another image in it.
    """
    kind = "GeoTIFF" if driver == "GTiff" else driver
    with gdal_dataset(path, driver) as dataset:
        source.info = read_description(source.info, dataset, path, kind)
    return source


@contextmanager
def gdal_dataset(path: Path, driver: str) -> Iterator[Any]:
    """A file as GDAL sees it. Raises InputError if it is damaged, or GDAL cannot read this kind."""
    try:
        with warnings.catch_warnings():
            # Told below, in words that say what to do.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver=driver) as dataset:
                yield dataset
    except (RasterioError, CRSError) as error:
        raise InputError(
            f"{path}: it is damaged, or GDAL ({driver}) cannot read this kind ({error}); "
            "copy or export it again"
        ) from error


def read_description(info: ImageInfo, dataset: Any, path: Path, kind: str) -> ImageInfo:
    """What is known of an image, with what GDAL knows of it."""
    if (info.shape.y, info.shape.x) != dataset.shape:
        raise InputError(
            f"{path}: its largest image is not the one that is georeferenced; take one out of it "
            "first (gdal_translate)"
        )
    place = _place(dataset, path)
    names = tuple(dataset.descriptions)
    return replace(
        info,
        format=kind,
        georeferencing=place,
        pixel_size=_pixel_size(dataset, place) if place else info.pixel_size,
        nodata=dataset.nodata,
        channel_names=names if len(names) == info.shape.c and all(names) else info.channel_names,
    )


def _place(dataset: Any, path: Path) -> Georeferencing | None:
    if dataset.transform.is_identity:
        if dataset.crs or dataset.gcps[0]:
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
