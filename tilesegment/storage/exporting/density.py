"""How many objects there are where, on a coarse grid: a TIFF of numbers, or a picture."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilesegment.errors import OptionError
from tilesegment.geometry import YX
from tilesegment.storage.exporting.destination import published

ENDINGS = (".tif", ".tiff", ".png")
_DARK, _BRIGHT = np.array([8.0, 12, 32]), np.array([255.0, 240, 140])
_CELL_IN_PICTURE = 8
"""Pixels of a picture per side of a cell, at most."""
_LARGEST_PICTURE = 4000


@dataclass(frozen=True)
class Density:
    """Objects by the cell in which their centre lies."""

    size: YX
    """Of a plane, pixels."""
    planes: int
    cell: int
    """Pixels per side."""
    counts: npt.NDArray[np.int64] = field(init=False)
    """(plane, y, x) of cells."""

    def __post_init__(self) -> None:
        rows, columns = (-(-side // self.cell) for side in self.size)
        object.__setattr__(self, "counts", np.zeros((self.planes, rows, columns), np.int64))

    def add(
        self,
        planes: npt.NDArray[np.integer],
        y: npt.NDArray[np.floating],
        x: npt.NDArray[np.floating],
    ) -> None:
        """Count objects by the pixels that their centres, (n,) each, lie in."""
        rows = (np.floor(y + 0.5) // self.cell).astype(np.int64)
        columns = (np.floor(x + 0.5) // self.cell).astype(np.int64)
        np.add.at(self.counts, (planes, rows, columns), 1)

    def per_area(self, pixel_area: float) -> npt.NDArray[np.float32]:
        """Objects per unit of area; the cells at the rim are smaller."""
        sides = [
            np.diff(np.minimum(np.arange(count + 1) * self.cell, side))
            for count, side in zip(self.counts.shape[1:], self.size, strict=True)
        ]
        areas = np.multiply.outer(*sides) * pixel_area
        found: npt.NDArray[np.float32] = (self.counts / areas).astype(np.float32)
        return found


def check_density(path: Path, cell: int) -> None:
    """Whether a map can be written there.

    Raises:
        OptionError: if its ending is none, the cell has no size, or a library is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise OptionError(
            f"{path}: its ending says no density map; use one of {', '.join(ENDINGS)}"
        )
    if cell < 1:
        raise OptionError(f"--density-cell {cell} is no number of pixels; use 1 or more")
    try:
        import PIL  # noqa: F401
        import tifffile  # noqa: F401
    except ImportError as error:
        raise OptionError(
            f"a density map needs {error.name}, which is not installed: pip install "
            "'tilesegment[slide]'"
        ) from error


def write_density(path: Path, density: Density, pixel_size_um: tuple[float, float] | None) -> None:
    """Write objects per mm² (per pixel, where nobody knows how large one is).

    A TIFF has float32 numbers, a page for each plane; a picture the first plane from dark, no
    objects, to bright, the densest cell.

    Raises:
        OutputError: if the disk refuses.
    """
    area = 1.0 if pixel_size_um is None else pixel_size_um[0] * pixel_size_um[1] / 1e6
    values = density.per_area(area)
    content = io.BytesIO()
    if path.suffix.lower() == ".png":
        from PIL import Image as PILImage

        PILImage.fromarray(_picture(values[0])).save(content, "PNG")
    else:
        import tifffile

        unit = "objects per pixel" if pixel_size_um is None else "objects per mm2"
        facts = {"unit": unit, "cell_px": density.cell}
        tifffile.imwrite(content, values, photometric="minisblack", metadata=facts)
    with published(path) as partial:
        partial.write_bytes(content.getvalue())


def _picture(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(y, x, 3), each cell a square."""
    densest = float(values.max(initial=0))
    share = values / densest if densest else values
    colours = _DARK + share[..., None] * (_BRIGHT - _DARK)
    side = max(1, min(_CELL_IN_PICTURE, _LARGEST_PICTURE // max(values.shape)))
    picture: npt.NDArray[np.uint8] = np.rint(colours).astype(np.uint8)
    return picture.repeat(side, axis=0).repeat(side, axis=1)
