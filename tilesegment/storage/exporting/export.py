"""Labels into a file that other programs open; its ending says which format."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilesegment.errors import OptionError
from tilesegment.storage.exporting.destination import check_free, published
from tilesegment.storage.exporting.labelled import Labelled, open_labelled
from tilesegment.tiling import Window

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tilesegment.storage.exporting.geojson import ObjectType
    from tilesegment.storage.exporting.polygons import LabelPolygon

Progress = Callable[[int, int], None]
"""Called with the pixels done and the pixels in all."""

PICTURES = (".png", ".jpg", ".jpeg")
OME_TIFF = (".ome.tif", ".ome.tiff")
GEOTIFF = (".tif", ".tiff")
POLYGONS = (".geojson", ".gpkg", ".fgb", ".parquet")

LARGEST_PICTURE = 2000
"""Pixels of the longer side of a picture, where nobody says."""
_LONGEST_BORDERS = 20_000_000
"""Pixels of borders that are simplified at once: each is a point in memory."""


@dataclass(frozen=True)
class PolygonOptions:
    """Which polygons are exported, and how."""

    classes: tuple[str, ...] = ()
    """Names or labels; all but label 0 if there are none."""
    min_area: int = 0
    """Pixels that a polygon has at least."""
    simplify: float | None = None
    """About the length, in pixels, of what may be cut from borders; None leaves them."""
    object_type: "ObjectType | None" = None
    """What QuPath makes of a polygon of GeoJSON; None is "detection"."""


@dataclass(frozen=True)
class ExportSummary:
    """What an export has made."""

    path: Path
    labels: str
    """Name of the label image."""
    polygons: int | None
    """How many; None for a raster."""
    bytes: int
    seconds: float


def export_labels(
    image: str | Path,
    out: str | Path,
    labels: str | None = None,
    *,
    plane: int = 0,
    largest: int | None = None,
    polygons: PolygonOptions = PolygonOptions(),
    probabilities: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportSummary:
    """Write the labels of an image to a file, block by block, with memory that is bounded.

    The ending of `out` says how: a picture with legend (.png, .jpg), GeoTIFF (.tif), OME-TIFF
    (.ome.tif), or polygons (.geojson, .gpkg, .fgb, .parquet). The file appears once it is whole.

    Args:
        image: path of an OME-Zarr image, or of a label image in a store of its own.
        out: the file.
        labels: name of a label image in it; not needed where there is only one.
        plane: index over the flattened leading axes (t, z); an OME-TIFF gets all of them.
        largest: pixels of the longer side of a picture.
        polygons: which polygons, and how.
        probabilities: write those of the classes, a band each, and not the labels; GeoTIFF only.
        overwrite: replace a file that is there.
        progress: told of pixels as they are done.

    Raises:
        InputError: the image or the labels are absent or damaged.
        OptionError: an option cannot work here, or a library is not installed.
        OutputError: the file exists, or cannot be written.
    """
    started = time.perf_counter()
    out = Path(out)
    ending = _ending(out)
    _check_options(ending, plane, largest, polygons)
    if probabilities and ending not in GEOTIFF:
        raise OptionError(f"--probabilities become a GeoTIFF ({', '.join(GEOTIFF)}), not {ending}")
    check_free(out, overwrite)
    labelled = open_labelled(image, labels)
    labelled.check_plane(plane)
    with published(out) as path:
        try:
            if probabilities:
                from tilesegment.storage.exporting.geotiff import write_probabilities

                count = None
                write_probabilities(labelled, plane, path, _Counter(labelled, 1, progress))
            else:
                count = _write(labelled, plane, path, ending, largest, polygons, progress)
        except ImportError as error:
            raise _missing(error, ending) from error
    return ExportSummary(
        path=out,
        labels=labelled.name,
        polygons=count,
        bytes=out.stat().st_size,
        seconds=time.perf_counter() - started,
    )


def _ending(out: Path) -> str:
    """The ending in lower case. Raises OptionError for one that is no format."""
    endings = (*OME_TIFF, *GEOTIFF, *POLYGONS, *PICTURES)
    name = out.name.lower()
    for ending in endings:
        if name.endswith(ending) and name != ending:
            return ending
    raise OptionError(
        f"{out}: its ending says no format that can be written; use one of {', '.join(endings)}"
    )


def _check_options(ending: str, plane: int, largest: int | None, polygons: PolygonOptions) -> None:
    """Raises OptionError for options that would have no effect."""
    if ending not in POLYGONS and polygons != PolygonOptions():
        raise OptionError(
            "--class, --min-area, --simplify and --object-type are for polygons "
            f"({', '.join(POLYGONS)}), not for {ending}"
        )
    if ending not in PICTURES and largest is not None:
        raise OptionError(f"--largest is for pictures ({', '.join(PICTURES)}), not for {ending}")
    if ending in OME_TIFF and plane:
        raise OptionError(f"--plane is not for {ending}, which gets all planes")


def _missing(error: ImportError, ending: str) -> OptionError:
    extra = "slide" if ending in (*PICTURES, *OME_TIFF) else "geo"
    return OptionError(
        f"{ending} needs {error.name}, which is not installed: pip install 'tilesegment[{extra}]'"
    )


def _write(
    labelled: Labelled,
    plane: int,
    path: Path,
    ending: str,
    largest: int | None,
    options: PolygonOptions,
    progress: Progress | None,
) -> int | None:
    """Write one file; returns the number of polygons."""
    # The libraries are extras, and take long to import: each only where it is needed.
    if ending in PICTURES:
        from tilesegment.storage.exporting.overview import write_overview

        write_overview(labelled, plane, largest or LARGEST_PICTURE, path)
        return None
    if ending in OME_TIFF:
        from tilesegment.storage.exporting.ometiff import write_ometiff

        write_ometiff(labelled, path, _Counter(labelled, labelled.labels.planes(0), progress))
        return None
    counter = _Counter(labelled, 1, progress)
    if ending in GEOTIFF:
        from tilesegment.storage.exporting.geotiff import write_geotiff

        write_geotiff(labelled, plane, path, counter)
        return None
    return _write_polygons(labelled, plane, path, ending, options, counter)


def _write_polygons(
    labelled: Labelled,
    plane: int,
    path: Path,
    ending: str,
    options: PolygonOptions,
    counter: "_Counter",
) -> int:
    from tilesegment.storage.exporting.coordinates import coordinates_of

    coordinates = coordinates_of(labelled)
    found = _polygons(labelled, plane, options, counter)
    if ending == ".geojson" and coordinates.crs is None:
        from tilesegment.storage.exporting.geojson import write_geojson

        object_type = options.object_type or "detection"
        return write_geojson(labelled, found, coordinates, object_type, path)
    if options.object_type is not None:
        raise OptionError(
            "--object-type is for QuPath, which reads GeoJSON of images without a CRS; "
            "leave it out here"
        )
    from tilesegment.storage.exporting.vector import write_vector

    return write_vector(labelled, found, coordinates, path)


def _polygons(
    labelled: Labelled, plane: int, options: PolygonOptions, counter: "_Counter"
) -> "Iterator[LabelPolygon]":
    """The polygons that are wanted."""
    from tilesegment.storage.exporting.polygons import polygons, simplified

    def read(window: Window) -> "npt.NDArray[np.integer]":
        counter(window.height * window.width)
        return labelled.read(plane, window)

    wanted = labelled.values_of(options.classes) if options.classes else None
    found = polygons(read, labelled.size, wanted)
    large = (polygon for polygon in found if polygon.pixels >= options.min_area)
    if options.simplify is None:
        return large
    return iter(simplified(_held(large), options.simplify))


def _held(found: "Iterator[LabelPolygon]") -> "list[LabelPolygon]":
    """All polygons at once: to simplify a border, both its sides are needed.

    Raises:
        OptionError: if that would need too much memory.
    """
    held, borders = [], 0.0
    for polygon in found:
        held.append(polygon)
        borders += polygon.shape.length
        if borders > _LONGEST_BORDERS:
            raise OptionError(
                f"--simplify needs all polygons in memory, and their borders are longer than "
                f"{_LONGEST_BORDERS} pixels; leave it out, or export less with --class or "
                "--min-area"
            )
    return held


class _Counter:
    """Adds up pixels and tells the caller."""

    def __init__(self, labelled: Labelled, planes: int, progress: Progress | None) -> None:
        self._done, self._progress = 0, progress
        self._total = planes * labelled.size.y * labelled.size.x

    def __call__(self, pixels: int) -> None:
        self._done += pixels
        if self._progress is not None:
            self._progress(self._done, self._total)
