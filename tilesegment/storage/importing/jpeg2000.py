"""JPEG 2000, as Sentinel-2 and many archives have it, in windows through GDAL."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError

from tilesegment.errors import InputError
from tilesegment.geometry import YX
from tilesegment.storage.importing.geotiff import gdal_dataset, read_description
from tilesegment.storage.importing.source import (
    TCZYX,
    ClosesItself,
    ImageInfo,
    Pixels,
    Plane,
    Window,
    channel_names,
    checked_dtype,
    flatten,
    opaque_value,
)

DRIVER = "JP2OpenJPEG"
_COLOUR = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_UNKNOWN = (ColorInterp.undefined,) * 3


class Jpeg2000Source(ClosesItself):
    """The bands of a JPEG 2000; transparency is shown on white."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mine = threading.local()
        """GDAL's datasets are for one thread each."""
        with gdal_dataset(path, DRIVER) as dataset:
            self._has_alpha = dataset.colorinterp[-1] == ColorInterp.alpha
            self.info = read_description(self._described(dataset), dataset, path, "JPEG 2000")

    def _described(self, dataset: Any) -> ImageInfo:
        count = dataset.count - self._has_alpha
        # Files without a colour space, as GDAL writes them, leave it open.
        is_colour = dataset.colorinterp[:count] in (_COLOUR, _UNKNOWN)
        return ImageInfo(
            format="JPEG 2000",
            shape=TCZYX(1, count, 1, *dataset.shape),
            dtype=checked_dtype(np.dtype(dataset.dtypes[0]), self._path),
            pixel_size=None,
            channel_names=channel_names(count, is_colour=is_colour),
            is_colour=is_colour,
            tile=YX(*dataset.block_shapes[0]),
        )

    def read(self, plane: Plane, window: Window) -> Pixels:
        rows, columns = window.slices
        try:
            if not hasattr(self._mine, "dataset"):
                self._mine.dataset = rasterio.open(self._path, driver=DRIVER)
            pixels: Pixels = self._mine.dataset.read(
                window=((rows.start, rows.stop), (columns.start, columns.stop))
            )
        except RasterioError as error:
            raise InputError(
                f"{self._path}: the JPEG 2000 is damaged or cut short ({error}); copy or export it "
                "again"
            ) from error
        if not self._has_alpha:
            return pixels
        white = [opaque_value(pixels.dtype)] * self.info.shape.c
        return flatten(pixels[:-1], pixels[-1], white, ready=False)
