"""A picture of an image with its labels on top: what a person looks at first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilesegment.colours import RGB, class_colour
from tilesegment.errors import OptionError
from tilesegment.storage.exporting.labelled import Labelled
from tilesegment.storage.image import Image
from tilesegment.storage.labels import LabelProperties
from tilesegment.tiling import Window

if TYPE_CHECKING:
    from PIL import Image as PILImage

Picture = npt.NDArray[np.uint8]

_FILL = 0.2
"""Opacity of a class inside its outline."""
_BAND = 1024
"""Rows that are read at once."""
_MARGIN = 12
_LINE = 34
"""Height of a line of the legend."""
_SWATCH = 16
_MOST_ENTRIES = 24
"""Classes in the legend; the largest of them where there are more."""
_INK: RGB = (20, 20, 20)
_LARGEST_JPEG = 65535
_JPEG_QUALITY = 92
_UNITS_UM = (("km", 1e9), ("m", 1e6), ("mm", 1e3), ("um", 1.0), ("nm", 1e-3))


def write_overview(labelled: Labelled, plane: int, largest: int, path: Path) -> None:
    """Write a PNG or JPEG of the image with outlines and tints of its classes, and a legend.

    Args:
        labelled: the labels and their image.
        plane: index over the flattened leading axes (t, z).
        largest: pixels of the longer side; more detail than the image has is not invented.
        path: the file to write, ``.png``, ``.jpg`` or ``.jpeg``.

    Raises:
        OptionError: if a JPEG cannot be as large, or there are labels only.
    """
    image = labelled.image
    if image is None:
        raise OptionError(
            f"{labelled.labels.location} holds labels without their image, which a picture needs; "
            "export another format"
        )
    is_jpeg = path.suffix.lower() != ".png"
    if is_jpeg and largest > _LARGEST_JPEG:
        raise OptionError(f"--largest {largest} is more than a JPEG can have, {_LARGEST_JPEG}")
    level, step = _detail(image, largest)
    values = _read_labels(labelled, plane, level, step)
    outlines = _outlines(values)
    values, classes = _by_class(labelled, values)
    picture = paint(_read_picture(image, level, plane, step), values, classes, outlines)
    size = image.pixel_size_um(level)
    entries = _entries(classes, _shares(labelled, values))
    drawn = _with_legend(picture, entries, None if size is None else size[1] * step)
    drawn.save(path, quality=_JPEG_QUALITY)  # which PNG has no use for


def write_thumbnail(image: Image, largest: int, path: Path) -> None:
    """Write a PNG or JPEG of the first plane of an image, without labels.

    Args:
        image: any.
        largest: pixels of the longer side, at most.
        path: the file to write, ``.png``, ``.jpg`` or ``.jpeg``.
    """
    from PIL import Image as PILImage

    level, step = _detail(image, largest)
    picture = _read_picture(image, level, 0, step)
    PILImage.fromarray(picture).save(path, quality=_JPEG_QUALITY)


def paint(
    picture: Picture,
    labels: npt.NDArray[Any],
    classes: Sequence[LabelProperties],
    outlines: npt.NDArray[np.bool_] | None = None,
) -> Picture:
    """Tint and outline every class but the background.

    Args:
        picture: (y, x, 3).
        labels: (y, x).
        classes: value, name and colour of each class.
        outlines: (y, x); by default where labels meet.

    Returns:
        (y, x, 3).
    """
    painted = picture.astype(np.float32)
    outlines = _outlines(labels) if outlines is None else outlines
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
        channels = _stretched(channels.astype(np.float64), image.nodata(level))
    return np.moveaxis(channels, 0, -1).astype(np.uint8)


def _stretched(channels: npt.NDArray[np.float64], nodata: float | None) -> npt.NDArray[np.float64]:
    """From 0 to 255; pixels that hold nothing become 0, and do not count for the contrast."""
    holds = np.isfinite(channels) & (channels != nodata)
    if not holds.any():
        return np.zeros_like(channels)
    low, high = np.percentile(channels[holds], (0.5, 99.5))
    shown = np.clip((channels - low) / max(high - low, 1e-12) * 255, 0, 255)
    return np.where(holds, shown, 0.0)


def _read_labels(labelled: Labelled, plane: int, level: int, step: int) -> npt.NDArray[Any]:
    height, width = labelled.labels.plane_shape(level)
    bands = []
    for top in range(0, height, _BAND * step):
        band = Window(top, 0, min(_BAND * step, height - top), width)
        bands.append(labelled.read(plane, band, level)[::step, ::step])
    return np.concatenate(bands)


def _by_class(
    labelled: Labelled, values: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], list[LabelProperties]]:
    """Labels and the classes to show; of objects that were measured their classes."""
    stored = labelled.measurements
    if stored is None:
        return values, _classes(labelled, values)
    found, position = np.unique(values, return_inverse=True)
    of = np.array([labelled.measured(value).get("class", 0) for value in found.tolist()])
    classes = [
        LabelProperties(value, stored.class_name(value), class_colour(value))
        for value in np.unique(of[of != 0]).tolist()
    ]
    return of[position].reshape(values.shape), classes


def _classes(labelled: Labelled, values: npt.NDArray[Any]) -> list[LabelProperties]:
    """The classes to show: those that are stated, or else the labels that occur; never 0."""
    found = list(labelled.classes) or np.unique(values).tolist()
    return [labelled.label_class(value) for value in found if value != 0]


def _with_legend(
    picture: Picture, entries: Sequence[tuple[RGB, str]], pixel_um: float | None
) -> "PILImage.Image":
    """The picture with lines below it: colour and text of the classes, and a scale bar."""
    from PIL import Image as PILImage
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(size=18)
    height, width = picture.shape[:2]
    bar, caption = (0, "") if pixel_um is None else _scale_bar(width, pixel_um)
    lengths = [2 * _SWATCH + int(font.getlength(text)) for _, text in entries]
    reserved = max(bar, int(font.getlength(caption))) + 2 * _MARGIN if caption else 0
    places = _flow(lengths, width, reserved)
    lines = 1 + max((line for line, _ in places), default=0)
    canvas = PILImage.new("RGB", (width, height + _MARGIN + lines * _LINE), "white")
    canvas.paste(PILImage.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    first = height + _MARGIN // 2 + _LINE // 2
    for (colour, text), (line, x) in zip(entries, places, strict=True):
        middle = first + line * _LINE
        draw.rectangle((x, middle - 8, x + _SWATCH, middle + 8), fill=colour)
        draw.text((x + _SWATCH + 8, middle), text, fill=_INK, font=font, anchor="lm")
    if caption:
        end, centre = width - _MARGIN, width - _MARGIN - reserved // 2 + _MARGIN
        draw.rectangle(
            (centre - bar // 2, first + 6, centre - bar // 2 + bar, first + 10), fill=_INK
        )
        draw.text((min(centre, end), first + 2), caption, fill=_INK, font=font, anchor="ms")
    return canvas


def _shares(labelled: Labelled, values: npt.NDArray[Any]) -> Mapping[int, float]:
    """Share of each label: counted over the whole image, or else as the picture shows them.

    A picture is made from coarser levels, in which small objects are lost.
    """
    counted = labelled.counted_shares
    if counted:
        return {value: counted.get(item.name, 0.0) for value, item in labelled.classes.items()}
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), (counts / values.size).tolist(), strict=True))


def _entries(
    classes: Sequence[LabelProperties], shares: Mapping[int, float]
) -> list[tuple[RGB, str]]:
    """Colour and text of each class in the legend."""
    shown = classes
    if len(classes) > _MOST_ENTRIES:
        shown = sorted(classes, key=lambda item: -shares.get(item.value, 0))[:_MOST_ENTRIES]
    entries = [(item.colour, f"{item.name}  {shares.get(item.value, 0):.1%}") for item in shown]
    if len(classes) > len(shown):
        entries.append(((255, 255, 255), f"and {len(classes) - len(shown)} more"))
    return entries


def _flow(lengths: Sequence[int], width: int, reserved: int) -> list[tuple[int, int]]:
    """Line and x of each entry; the end of the first line is kept for the scale bar.

    >>> _flow([100, 100, 100], width=300, reserved=80)
    [(0, 12), (1, 12), (1, 126)]
    """
    places, line, x = [], 0, _MARGIN
    for length in lengths:
        end = width - (reserved if line == 0 else 0)
        if x > _MARGIN and x + length > end:
            line, x = line + 1, _MARGIN
        places.append((line, x))
        x += length + _MARGIN + 2
    return places


def _scale_bar(width: int, pixel_um: float) -> tuple[int, str]:
    """Pixels and caption of a bar of a round length, at most a fifth of the picture.

    >>> _scale_bar(1000, 5e5)
    (200, '100 m')
    """
    length_um = _round_length(width * pixel_um / 5)
    unit, size = next((item for item in _UNITS_UM if length_um >= item[1]), _UNITS_UM[-1])
    return round(length_um / pixel_um), f"{length_um / size:g} {unit}"


def _round_length(length: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... that is not above `length`."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step * power for step in (1, 2, 5) if step * power <= length))
