"""Labels into the files of other programs: pictures, TIFF, polygons."""

from tilesegment.storage.exporting.export import ExportSummary, PolygonOptions, export_labels

__all__ = ["ExportSummary", "PolygonOptions", "export_labels"]
