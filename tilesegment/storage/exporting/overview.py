"""A picture of an image with its labels on top: what a person looks at first."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import zarr

from tilesegment.colours import RGB
from tilesegment.errors import InputError, OptionError, OutputError
from tilesegment.storage.image import Image, open_image
from tilesegment.storage.labels import LabelProperties, read_classes

if TYPE_CHECKING:
    from PIL import Image as PILImage

Picture = npt.NDArray[np.uint8]

_FILL = 0.2
"""Opacity of a class inside its outline."""
_BAND = 1024
"""Rows that are read at once."""
_LEGEND = 46
_INK: RGB = (20, 20, 20)
_LABELS_FORMATS = (".png",)


def write_overview(
    image: str | Path, labels: str, path: str | Path, largest: int = 2000, plane: int = 0
) -> Path:
    """Write a PNG of the image with outlines and tints of its classes, a legend and a scale bar.

    Args:
        image: path of an OME-Zarr image.
        labels: name of a label image in it.
        path: the file to write, ``.png``.
        largest: pixels of the longer side; more detail than the image has is not invented.
        plane: index over the flattened leading axes (t, z).

    Raises:
        InputError: the image or the labels are absent.
        OptionError: the path does not end with ``.png``, or there is no such plane.
    """
    path = Path(path)
    if path.suffix.lower() not in _LABELS_FORMATS:
        raise OptionError(f"{path} cannot be written: this version exports pictures, .png")
    opened = open_image(image)
    if labels not in opened.label_names():
        there = ", ".join(opened.label_names()) or "none"
        raise InputError(f"{image} has no labels {labels!r}; there are: {there}")
    if not 0 <= plane < opened.planes(0):
        raise OptionError(f"plane {plane} does not exist: {image} has {opened.planes(0)}")
    labelled = open_image(Path(image) / "labels" / labels)
    level, step = _detail(opened, largest)
    if [item.shape[-2:] for item in labelled.levels] != [item.shape[-2:] for item in opened.levels]:
        raise InputError(f"the labels {labels!r} of {image} have other levels than the image")
    classes = read_classes(labelled.group)
    values = _read_labels(labelled.group[labelled.levels[level].path], plane, step)
    picture = paint(_read_picture(opened, level, plane, step), values, classes)
    size = opened.pixel_size_um(level)
    pixel_um = None if size is None else size[1] * step
    drawn = _with_legend(picture, values, classes, pixel_um)
    try:
        drawn.save(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def paint(
    picture: Picture, labels: npt.NDArray[Any], classes: Sequence[LabelProperties]
) -> Picture:
    """Tint and outline every class but the background.

    Args:
        picture: (y, x, 3).
        labels: (y, x).
        classes: value, name and colour of each class.

    Returns:
        (y, x, 3).
    """
    painted = picture.astype(np.float32)
    outlines = _outlines(labels)
    for item in classes:
        if item.value == 0:
            continue
        colour = np.array(item.colour, np.float32)
        inside = labels == item.value
        painted[inside] += _FILL * (colour - painted[inside])
        painted[inside & outlines] = colour
    return painted.round().astype(np.uint8)


def _outlines(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Pixels with a neighbour of another label, 4-connected."""
    outlines = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    outlines[1:] |= down
    outlines[:-1] |= down
    outlines[:, 1:] |= right
    outlines[:, :-1] |= right
    return outlines


def _detail(image: Image, largest: int) -> tuple[int, int]:
    """The coarsest level that still has `largest` pixels, and the step that thins it to them."""
    level = 0
    for index in range(len(image.levels)):
        if max(image.plane_shape(index)) >= largest:
            level = index
    return level, max(1, -(-max(image.plane_shape(level)) // largest))


def _read_picture(image: Image, level: int, plane: int, step: int) -> Picture:
    """(y, x, 3): the first three channels, or the first as grey; other types are stretched."""
    pixels = image.pixels(level)
    height, width = image.plane_shape(level)
    bands = []
    for top in range(0, height, _BAND * step):
        bottom = min(top + _BAND * step, height)
        bands.append(pixels.stored(plane, top, bottom, 0, width)[:, ::step, ::step])
    channels = np.concatenate(bands, axis=1)
    channels = channels[:3] if len(channels) >= 3 else channels[:1].repeat(3, axis=0)
    if channels.dtype != np.uint8:
        low, high = np.percentile(channels.astype(np.float64), (0.5, 99.5))
        channels = np.clip((channels - low) / max(high - low, 1e-12) * 255, 0, 255)
    return np.moveaxis(channels, 0, -1).astype(np.uint8)


def _read_labels(array: zarr.Array, plane: int, step: int) -> npt.NDArray[Any]:
    index = tuple(int(part) for part in np.unravel_index(plane, array.shape[:-2]))
    bands = [
        np.asarray(array[(*index, slice(top, top + _BAND * step))])[::step, ::step]
        for top in range(0, array.shape[-2], _BAND * step)
    ]
    return np.concatenate(bands)


def _with_legend(
    picture: Picture,
    labels: npt.NDArray[Any],
    classes: Sequence[LabelProperties],
    pixel_um: float | None,
) -> "PILImage.Image":
    """The picture with a strip below it: each class with its share, and a scale bar."""
    try:
        from PIL import Image as PILImage
        from PIL import ImageDraw, ImageFont
    except ModuleNotFoundError as error:
        raise OptionError(
            "pictures need Pillow; install it with: pip install 'tilesegment[slide]'"
        ) from error

    height, width = picture.shape[:2]
    canvas = PILImage.new("RGB", (width, height + _LEGEND), "white")
    canvas.paste(PILImage.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=18)
    x, middle = 12, height + _LEGEND // 2
    for item in classes:
        if item.value == 0:
            continue
        text = f"{item.name}  {np.mean(labels == item.value):.1%}"
        draw.rectangle((x, middle - 8, x + 16, middle + 8), fill=item.colour)
        draw.text((x + 24, middle), text, fill=_INK, font=font, anchor="lm")
        x += 24 + int(draw.textlength(text, font=font)) + 28
    if pixel_um is not None:
        length_um = _round_length(width * pixel_um / 5)
        length = round(length_um / pixel_um)
        end = width - 14
        draw.rectangle((end - length, middle + 6, end, middle + 10), fill=_INK)
        caption = f"{length_um:g} um"
        draw.text((end - length // 2, middle + 2), caption, fill=_INK, font=font, anchor="ms")
    return canvas


def _round_length(length: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... that is not above `length`."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step * power for step in (1, 2, 5) if step * power <= length))
