"""The probabilities beside a label image: an OME-Zarr image of its own, inside the label image.

    labels/NAME/                  the label image
    labels/NAME/probabilities/    the image: one channel per class, in the order of the classes

Values are uint8: 255 times the probability, rounded. Where nothing was computed (a mask, pixels
without data, a quarantined tile) all classes are 0. Being part of the label image, they share its
ledger, checksums, repair and publication.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import zarr

from tilesegment.colours import RGB
from tilesegment.errors import InputError
from tilesegment.storage.geozarr import carried_attributes
from tilesegment.storage.image import Image, open_image

if TYPE_CHECKING:
    from tilesegment.storage.labels import LabelLayout

PROBABILITIES_NAME = "probabilities"
LARGEST_VALUE = 255
"""What is stored for a probability of 1."""

Probabilities = npt.NDArray[np.uint8]
"""(classes, y, x)"""


def probability_attributes(image: Image, layout: "LabelLayout") -> dict[str, Any]:
    """The metadata: the image's own transformations, and a channel for each class."""
    axes = []
    for axis in _axes(image):
        entry = {"name": axis, "type": "channel" if axis == "c" else None}
        position = image.position(axis)
        if axis != "c" and position is not None:
            stated = image.axes[position]
            entry = {"name": axis, "type": stated.type, "unit": stated.unit}
        axes.append({key: value for key, value in entry.items() if value is not None})
    datasets = [
        {
            "path": layout.path(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": _with_channels(image, level.scale, 1.0)},
                {"type": "translation", "translation": _with_channels(image, level.translation, 0)},
            ],
        }
        for level in image.levels
    ]
    multiscale: dict[str, Any] = {
        "name": f"{layout.name} {PROBABILITIES_NAME}",
        "axes": axes,
        "datasets": datasets,
    }
    shared = _shared_transformations(image)
    if shared:
        multiscale["coordinateTransformations"] = shared
    carried = carried_attributes(dict(image.group.attrs), layout.version)
    if layout.version == "0.5":
        ome = {"version": "0.5", "multiscales": [multiscale], "omero": _channels(layout)}
        return {"ome": ome, **carried}
    multiscale["version"] = "0.4"
    return {"multiscales": [multiscale], "omero": _channels(layout), **carried}


def _channels(layout: "LabelLayout") -> dict[str, Any]:
    window = {"min": 0, "max": LARGEST_VALUE, "start": 0, "end": LARGEST_VALUE}
    channels = [
        {
            "label": item.name,
            "color": "{:02X}{:02X}{:02X}".format(
                *(item.colour if any(item.colour) else (255,) * 3)
            ),
            "window": window,
            "active": position > 0,
        }
        for position, item in enumerate(layout.properties)
    ]
    return {"channels": channels}


def _shared_transformations(image: Image) -> list[dict[str, Any]]:
    """The transformations that the image states once for all its levels."""
    neutral = {"scale": 1.0, "translation": 0.0}
    return [
        {"type": item["type"], item["type"]: _with_channels(image, item[item["type"]], value)}
        for item in image.metadata.get("coordinateTransformations") or []
        if (value := neutral.get(item.get("type"))) is not None and item["type"] in item
    ]


def _axes(image: Image) -> list[str]:
    """The image's axes, with one for the classes: t, c, z, y, x as far as they are there."""
    return [axis for axis in "tczyx" if axis == "c" or image.position(axis) is not None]


def _with_channels(image: Image, numbers: Any, channel: float) -> list[Any]:
    """Numbers per axis of the image, as numbers per axis of the probabilities."""
    return [channel if axis == "c" else numbers[image.position(axis)] for axis in _axes(image)]


def create_probability_array(
    group: zarr.Group, image: Image, level: int, layout: "LabelLayout"
) -> zarr.Array:
    """One level. Its shards hold all classes of a tile, its chunks one class of a viewer's tile."""
    classes = len(layout.properties)
    axes = _axes(image)

    def sizes(channels: int, side: int) -> tuple[int, ...]:
        return tuple({"c": channels, "y": side, "x": side}.get(axis, 1) for axis in axes)

    common: dict[str, Any] = {
        "name": layout.path(image.levels[level]),
        "shape": tuple(_with_channels(image, image.levels[level].shape, classes)),
        "dtype": "uint8",
        "chunks": sizes(1, layout.chunk),
        "fill_value": 0,
        # CF conventions, section 8.1: xarray turns the values into probabilities.
        "attributes": {"scale_factor": 1 / LARGEST_VALUE, "add_offset": 0.0},
    }
    if layout.version == "0.4":
        return group.create_array(
            **common,
            compressors=layout.compressor,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
    return group.create_array(
        **common,
        shards=sizes(classes, layout.tile),
        compressors=layout.compressor,
        dimension_names=axes,
    )


def channel_position(axes: Sequence[str]) -> int:
    """Where the classes' axis stands among those of the probabilities.

    Args:
        axes: names of the labels' axes.

    >>> channel_position("yx"), channel_position("tzyx"), channel_position("zyx")
    (0, 1, 0)
    """
    return 1 if "t" in axes else 0


def pool_by_mean(values: npt.NDArray[Any], factors: tuple[int, ...]) -> npt.NDArray[Any]:
    """The mean of each block, of the same integer type; halves round up.

    Args:
        values: any number of axes, unsigned integer.
        factors: block size per axis; at the far end the mean is over the pixels that there are.

    Returns:
        ceil(size / factor) per axis.

    >>> pool_by_mean(np.array([[0, 1, 9], [1, 0, 8], [7, 7, 5]], np.uint8), (2, 2))
    array([[1, 9],
           [7, 5]], dtype=uint8)
    """
    blocks = tuple(-(-size // factor) for size, factor in zip(values.shape, factors, strict=True))
    total, count = np.zeros(blocks, np.uint32), np.zeros(blocks, np.uint32)
    for offsets in np.ndindex(*factors):
        steps = zip(offsets, factors, strict=True)
        part = values[tuple(slice(offset, None, factor) for offset, factor in steps)]
        place = tuple(slice(size) for size in part.shape)
        total[place] += part
        count[place] += 1
    means: npt.NDArray[Any] = ((2 * total + count) // (2 * count)).astype(values.dtype)
    return means


@dataclass(frozen=True)
class ClassChannel:
    """The channel of a class."""

    name: str
    colour: RGB


def class_channels(probabilities: Image) -> list[ClassChannel]:
    """The classes, in the order of the channels.

    Raises:
        InputError: if the image does not name them.
    """
    attributes: Any = dict(probabilities.group.attrs)
    stated = (attributes.get("ome", attributes).get("omero") or {}).get("channels") or []
    if len(stated) != probabilities.channels:
        raise InputError(
            f"{probabilities.location} names {len(stated)} channels and has "
            f"{probabilities.channels}; it is damaged: compute it again with --overwrite"
        )
    return [ClassChannel(item["label"], _rgb(item["color"])) for item in stated]


def _rgb(text: str) -> RGB:
    """From hexadecimal digits.

    >>> _rgb("F0E442")
    (240, 228, 66)
    """
    red, green, blue = bytes.fromhex(text)
    return red, green, blue


def open_probabilities(labels: Image) -> Image:
    """The probabilities of a label image.

    Raises:
        InputError: if it has none.
    """
    found = find_probabilities(labels)
    if found is None:
        raise InputError(
            f"{labels.location} has no probabilities; compute them with `tilesegment run "
            "--probabilities`"
        )
    return found


def find_probabilities(labels: Image) -> Image | None:
    """The probabilities of a label image; None if it has none.

    Raises:
        InputError: if they are damaged.
    """
    if PROBABILITIES_NAME not in labels.group:
        return None
    return open_image(f"{labels.location}/{PROBABILITIES_NAME}")
