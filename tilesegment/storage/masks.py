"""Reading a mask: tissue found on a coarse level of the image, or pixels stored by somebody."""

from math import prod

import numpy as np
import zarr
from zarr.errors import ArrayNotFoundError, NodeTypeValidationError

from tilesegment.errors import InputError
from tilesegment.geometry import YX
from tilesegment.mask import Mask, Wanted, dilate, stretch
from tilesegment.storage.image import Image, MirroredPixels, open_image
from tilesegment.storage.pyramid import level_factors
from tilesegment.storage.remote import Location, absolute, locate, zarr_store
from tilesegment.tissue import find_tissue

_TISSUE_SIDE = 1024
"""Pixels of the longer side that a level must have for tissue to be seen on it."""
_LARGEST_PICTURE = 2**26
"""Pixels of a level on which tissue is looked for, all of which are held in memory."""
_LARGEST_MASK = 2**27
"""Pixels of a mask, which is held in the driver's memory, a byte each."""


def absolute_source(source: str) -> str:
    """What names the same mask from another directory."""
    return source if source in ("none", "tissue") else str(absolute(locate(source)))


def read_mask(source: str, image: Image, level: int, halo: int) -> Mask | None:
    """The mask of a run.

    Args:
        source: "none", "tissue", or the path of an OME-Zarr label image or a Zarr array, whose
            pixels other than 0 are wanted.
        image: what is segmented.
        level: which of its levels.
        halo: of the network, pixels of that level: so far are the surroundings of tissue wanted.

    Returns:
        None where all pixels are wanted.

    Raises:
        InputError: there is no such mask, or it is too large or of other axes than the image.
    """
    if source == "none":
        return None
    if source == "tissue":
        return _find_tissue(image, level, halo)
    planes = _read_stored(locate(source), image, level)
    return stretch(planes, image.plane_shape(level))


def _find_tissue(image: Image, level: int, halo: int) -> Mask:
    """Tissue of any plane, which counts for all planes.

    It is looked for on the darkest and on the brightest of all planes: each plane by itself may
    be empty, and an empty one tells nothing.
    """
    coarse = max(_picture_level(image), level)
    size = image.plane_shape(coarse)
    if size.y * size.x > _LARGEST_PICTURE:
        raise InputError(
            f"{image.location} has no level of less than {_LARGEST_PICTURE:,} pixels to look for "
            "tissue on; add coarser levels, or give a mask of your own: --mask STORE"
        )
    pixels = image.pixels(coarse)
    darkest = brightest = pixels.stored(0, 0, size.y, 0, size.x)
    for plane in range(1, image.planes(coarse)):
        here = pixels.stored(plane, 0, size.y, 0, size.x)
        darkest, brightest = np.minimum(darkest, here), np.maximum(brightest, here)
    tissue = find_tissue(np.concatenate([darkest, brightest]))
    step = YX(
        *level_factors(
            size, image.levels[coarse].scale[-2:],
            image.plane_shape(level), image.levels[level].scale[-2:],
        )
    )  # fmt: skip
    margin = YX(-(-halo // step.y), -(-halo // step.x))
    return Mask(dilate(tissue, margin)[None], size, YX(size.y * step.y, size.x * step.x))


def _picture_level(image: Image) -> int:
    """The coarsest level that is still large enough."""
    enough = [
        number
        for number in range(len(image.levels))
        if max(image.plane_shape(number)) >= _TISSUE_SIDE
    ]
    return max(enough, default=0)


def _read_stored(path: Location, image: Image, level: int) -> Wanted:
    """The wanted pixels of a stored mask: (plane, y, x)."""
    if not path.exists():
        raise InputError(
            f"there is no mask at {path}; give none, tissue, or the path of an OME-Zarr label "
            "image or a Zarr array"
        )
    pixels = _open(path, image.plane_shape(level))
    shape = pixels.array.shape
    if prod(shape) > _LARGEST_MASK:
        raise InputError(
            f"the mask {path} has {prod(shape):,} pixels, {_LARGEST_MASK:,} are the most; give a "
            "coarser one: it is spread over the image"
        )
    planes = prod(shape[index] for index in pixels.leading)
    if len(shape) < 2 or 0 in shape or planes not in (1, image.planes(level)):
        raise InputError(
            f"the mask {path} has the shape {shape}; it needs (y, x), or as many planes as the "
            f"image: {image.planes(level)}"
        )
    height, width = pixels.plane_shape
    return np.stack(
        [pixels.stored(plane, 0, height, 0, width).any(axis=0) for plane in range(planes)]
    )


def _open(path: Location, wanted: YX) -> MirroredPixels:
    """A plain array, or the level of a label image that suits an image of `wanted` pixels."""
    try:
        array = zarr.open_array(zarr_store(path), mode="r")
    except (ArrayNotFoundError, NodeTypeValidationError):
        mask = open_image(path)
        return mask.pixels(_suitable_level(mask, wanted))
    return MirroredPixels(array, None, tuple(range(array.ndim - 2)))


def _suitable_level(mask: Image, wanted: YX) -> int:
    """The level on the image's own grid, or else the finest that is not too large."""
    small = [n for n, level in enumerate(mask.levels) if prod(level.shape) <= _LARGEST_MASK]
    fitting = [number for number in small if mask.plane_shape(number) == wanted]
    return (fitting or small or [len(mask.levels) - 1])[0]
