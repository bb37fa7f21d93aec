"""Import of slides, TIFF and pictures into OME-Zarr 0.5."""

from tilesegment.storage.importing.source import PixelSize
from tilesegment.storage.importing.writer import ImportSummary, import_image

__all__ = ["ImportSummary", "PixelSize", "import_image"]
