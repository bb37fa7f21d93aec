"""Labels as a cloud-optimised GeoTIFF: tiles, overviews by mode, colours, class names, CRS.

Any TIFF reader opens it, also where the image has no place on the Earth.
"""

import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError  # what GDAL raises on writing; rasterio has no other name
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from tilesegment.errors import OutputError
from tilesegment.storage.exporting.coordinates import read_crs
from tilesegment.storage.exporting.labelled import BLOCK, Labelled
from tilesegment.tiling import Window

_TILE = 512
_COLOUR_TYPES = ("uint8", "uint16")
"""Types for which TIFF has colour tables."""
_CENTIMETRE = "3"
_ENVIRONMENT = {"GDAL_CACHEMAX": 256, "GDAL_NUM_THREADS": "ALL_CPUS"}


def write_geotiff(
    labelled: Labelled, plane: int, path: Path, progress: Callable[[int], None]
) -> None:
    """Write one plane of labels; `progress` is told of pixels as they are written.

    Raises:
        InputError: if a chunk of the labels is damaged.
        OutputError: if GDAL cannot write.
    """
    plain = path.with_name("plain.tif")
    checksums = []
    try:
        with warnings.catch_warnings(), rasterio.Env(**_ENVIRONMENT):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(plain, "w", **_profile(labelled)) as dataset:
                _describe(dataset, labelled)
                for window in labelled.blocks(block=BLOCK):
                    labels = labelled.read(plane, window)
                    checksums.append(zlib.crc32(labels.tobytes()))
                    dataset.write(labels, 1, window=_placed(window))
                    progress(window.height * window.width)
            rasterio.shutil.copy(
                plain,
                path,
                driver="COG",
                compress="DEFLATE",
                blocksize=_TILE,
                bigtiff="IF_SAFER",
                overview_resampling="MODE",
            )
            _check_written(path, labelled.blocks(block=BLOCK), checksums)
    except (RasterioError, CPLE_BaseError) as error:
        raise OutputError(f"{path.name}: GDAL cannot write it ({error})") from error


def _check_written(path: Path, blocks: list[Window], checksums: list[int]) -> None:
    """Raises OutputError if the file does not hold what was written.

    GDAL says nothing of tiles that it could not write when a file was closed, as on a full
    disk, and reads them as 0.
    """
    with rasterio.open(path) as dataset:
        for window, checksum in zip(blocks, checksums, strict=True):
            if zlib.crc32(dataset.read(1, window=_placed(window)).tobytes()) != checksum:
                raise OutputError(
                    f"{path.name}: GDAL could not write all of it; see whether the disk is full"
                )


def _profile(labelled: Labelled) -> dict[str, Any]:
    place = labelled.place
    located: dict[str, Any] = {}
    if place is not None:
        located["transform"] = rasterio.Affine(*place.transform)
    if place is not None and place.crs is not None:
        located["crs"] = read_crs(place.crs)
    return {
        "driver": "GTiff",
        "height": labelled.size.y,
        "width": labelled.size.x,
        "count": 1,
        "dtype": labelled.dtype.name,
        "tiled": True,
        "blockxsize": _TILE,
        "blockysize": _TILE,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "yes",
        **located,
    }


def _describe(dataset: Any, labelled: Labelled) -> None:
    """Colours and names of the classes; the pixel size where there is no affine.

    No label is nodata: 0 is the background, a class like the others.
    """
    if labelled.dtype.name in _COLOUR_TYPES and labelled.classes:
        dataset.write_colormap(
            1, {value: (*item.colour, 255) for value, item in labelled.classes.items()}
        )
    dataset.set_band_description(1, labelled.name)
    dataset.update_tags(
        1, **{f"CLASS_{value}": item.name for value, item in labelled.classes.items()}
    )
    size = labelled.pixel_size_um
    if labelled.place is None and size is not None:
        dataset.update_tags(
            TIFFTAG_RESOLUTIONUNIT=_CENTIMETRE,
            TIFFTAG_XRESOLUTION=f"{1e4 / size[1]:.6f}",
            TIFFTAG_YRESOLUTION=f"{1e4 / size[0]:.6f}",
        )


def _placed(window: Window) -> Any:
    return rasterio.windows.Window(window.x, window.y, window.width, window.height)
