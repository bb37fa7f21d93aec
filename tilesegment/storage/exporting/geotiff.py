"""Labels as a cloud-optimised GeoTIFF: tiles, overviews by mode, colours, class names, CRS.

Probabilities too: a band for each class, overviews by the mean.

Any TIFF reader opens it, also where the image has no place on the Earth.
"""

import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError  # what GDAL raises on writing; rasterio has no other name
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from tilesegment.errors import OutputError
from tilesegment.storage.exporting.coordinates import read_crs
from tilesegment.storage.exporting.labelled import BLOCK, Labelled
from tilesegment.storage.probabilities import (
    LARGEST_VALUE,
    ClassChannel,
    class_channels,
    open_probabilities,
)
from tilesegment.tiling import Window

_TILE = 512
_COLOUR_TYPES = ("uint8", "uint16")
"""Types for which TIFF has colour tables."""
_CENTIMETRE = "3"
_ENVIRONMENT = {"GDAL_CACHEMAX": 256, "GDAL_NUM_THREADS": "ALL_CPUS"}


@dataclass(frozen=True)
class _Raster:
    """What one file holds."""

    bands: int
    dtype: str
    read: Callable[[Window], npt.NDArray[Any]]
    """(bands, y, x) of a window."""
    describe: Callable[[Any], None]
    """Names and colours, given the open file."""
    overviews: str
    """How they are made of pixels, as GDAL calls it."""


def write_geotiff(
    labelled: Labelled, plane: int, path: Path, progress: Callable[[int], None]
) -> None:
    """Write one plane of labels; `progress` is told of pixels as they are written.

    Raises:
        InputError: if a chunk of the labels is damaged.
        OutputError: if GDAL cannot write.
    """
    raster = _Raster(
        bands=1,
        dtype=labelled.dtype.name,
        read=lambda window: labelled.read(plane, window)[None],
        describe=lambda dataset: _describe_labels(dataset, labelled),
        overviews="MODE",
    )
    _write(labelled, raster, path, progress)


def write_probabilities(
    labelled: Labelled, plane: int, path: Path, progress: Callable[[int], None]
) -> None:
    """Write the probabilities of one plane: a band for each class, 255 times the probability.

    Raises:
        InputError: if there are none, or a chunk of them is damaged.
        OutputError: if GDAL cannot write.
    """
    probabilities = open_probabilities(labelled.labels)
    pixels, classes = probabilities.pixels(0), class_channels(probabilities)

    def read(window: Window) -> npt.NDArray[Any]:
        bottom, right = window.y + window.height, window.x + window.width
        return pixels.stored(plane, window.y, bottom, window.x, right)

    raster = _Raster(
        bands=len(classes),
        dtype="uint8",
        read=read,
        describe=lambda dataset: _describe_probabilities(dataset, classes),
        overviews="AVERAGE",
    )
    _write(labelled, raster, path, progress)


def _write(
    labelled: Labelled, raster: _Raster, path: Path, progress: Callable[[int], None]
) -> None:
    plain = path.with_name("plain.tif")
    checksums = []
    try:
        with warnings.catch_warnings(), rasterio.Env(**_ENVIRONMENT):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(plain, "w", **_profile(labelled, raster)) as dataset:
                raster.describe(dataset)
                _describe_size(dataset, labelled)
                for window in labelled.blocks(block=BLOCK):
                    values = raster.read(window)
                    checksums.append(zlib.crc32(values.tobytes()))
                    dataset.write(values, window=_placed(window))
                    progress(window.height * window.width)
            rasterio.shutil.copy(
                plain,
                path,
                driver="COG",
                compress="DEFLATE",
                blocksize=_TILE,
                bigtiff="IF_SAFER",
                overview_resampling=raster.overviews,
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
            if zlib.crc32(dataset.read(window=_placed(window)).tobytes()) != checksum:
                raise OutputError(
                    f"{path.name}: GDAL could not write all of it; see whether the disk is full"
                )


def _profile(labelled: Labelled, raster: _Raster) -> dict[str, Any]:
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
        "count": raster.bands,
        "dtype": raster.dtype,
        # Three bands are no red, green and blue.
        **({"photometric": "minisblack"} if raster.bands > 1 else {}),
        "tiled": True,
        "blockxsize": _TILE,
        "blockysize": _TILE,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "yes",
        **located,
    }


def _describe_labels(dataset: Any, labelled: Labelled) -> None:
    """Colours and names of the classes.

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


def _describe_probabilities(dataset: Any, classes: Sequence[ClassChannel]) -> None:
    """Names of the classes, and what the values mean."""
    for band, item in enumerate(classes, start=1):
        dataset.set_band_description(band, item.name)
    dataset.scales = [1 / LARGEST_VALUE] * dataset.count


def _describe_size(dataset: Any, labelled: Labelled) -> None:
    """The pixel size, where there is no affine."""
    size = labelled.pixel_size_um
    if labelled.place is None and size is not None:
        dataset.update_tags(
            TIFFTAG_RESOLUTIONUNIT=_CENTIMETRE,
            TIFFTAG_XRESOLUTION=f"{1e4 / size[1]:.6f}",
            TIFFTAG_YRESOLUTION=f"{1e4 / size[0]:.6f}",
        )


def _placed(window: Window) -> Any:
    return rasterio.windows.Window(window.x, window.y, window.width, window.height)
