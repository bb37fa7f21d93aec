"""Labels as an OME-TIFF pyramid: all planes, tiled, with pixel size and class names."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from tilesegment.storage.exporting.labelled import BLOCK, Labelled
from tilesegment.tiling import Window

_TILE = 512
_CENTIMETRE = 3


def write_ometiff(labelled: Labelled, path: Path, progress: Callable[[int], None]) -> None:
    """Write all planes and levels of labels; `progress` is told of pixels of the finest level.

    Raises:
        InputError: if a chunk of the labels is damaged.
    """
    levels = range(len(labelled.labels.levels))
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as writer:
        for level in levels:
            writer.write(
                _tiles(labelled, level, progress),
                shape=labelled.labels.levels[level].shape,
                dtype=labelled.dtype,
                tile=(_TILE, _TILE),
                photometric="minisblack",
                compression="zlib",
                **_resolution(labelled, level),
                **(
                    {"subfiletype": 1, "metadata": None}
                    if level
                    else {"subifds": len(levels) - 1, "metadata": _metadata(labelled)}
                ),
            )


def _tiles(
    labelled: Labelled, level: int, progress: Callable[[int], None]
) -> Iterator[npt.NDArray[Any]]:
    """Tiles of all planes of a level, in the order of the file: plane by plane, row by row.

    They are cut from rows of tiles, as read.
    """
    height, width = labelled.labels.plane_shape(level)
    for plane in range(labelled.labels.planes(level)):
        for top in range(0, height, _TILE):
            rows = Window(top, 0, min(_TILE, height - top), width)
            progress(rows.height * rows.width if level == 0 else 0)
            yield from _row_of_tiles(labelled, plane, level, rows)


def _row_of_tiles(
    labelled: Labelled, plane: int, level: int, rows: Window
) -> Iterator[npt.NDArray[Any]]:
    for left in range(0, rows.width, BLOCK):
        window = Window(rows.y, left, rows.height, min(BLOCK, rows.width - left))
        labels = labelled.read(plane, window, level)
        for x in range(0, window.width, _TILE):
            yield np.ascontiguousarray(labels[:, x : x + _TILE])


def _metadata(labelled: Labelled) -> dict[str, Any]:
    """What goes into the OME-XML."""
    metadata: dict[str, Any] = {
        "axes": "".join(axis.name for axis in labelled.labels.axes).upper(),
        "Name": labelled.name,
        "Channel": {"Name": labelled.name},
    }
    if labelled.classes:
        names = {str(value): item.name for value, item in labelled.classes.items()}
        metadata["MapAnnotation"] = {"Namespace": "tilesegment/classes", **names}
    size = labelled.pixel_size_um
    if size is not None:
        metadata |= {
            "PhysicalSizeY": size[0],
            "PhysicalSizeYUnit": "µm",
            "PhysicalSizeX": size[1],
            "PhysicalSizeXUnit": "µm",
        }
    return metadata


def _resolution(labelled: Labelled, level: int) -> dict[str, Any]:
    """The resolution tags of a level, in pixels per centimetre."""
    size = labelled.labels.pixel_size_um(level)
    if size is None:
        return {}
    return {"resolution": (1e4 / size[1], 1e4 / size[0]), "resolutionunit": _CENTIMETRE}
