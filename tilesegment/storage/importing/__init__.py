"""Import of slides, TIFF and pictures into OME-Zarr 0.5."""

from tilesegment.storage.importing.part import Part
from tilesegment.storage.importing.source import PixelSize
from tilesegment.storage.importing.writer import ImportSummary, import_image

__all__ = ["ImportSummary", "Part", "PixelSize", "import_image"]
