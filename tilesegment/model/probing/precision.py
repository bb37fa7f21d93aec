"""What a reduced precision needs, and how many labels it changes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tilesegment.config import Precision
from tilesegment.errors import OptionError
from tilesegment.model.file import ModelDescription, Ranges, load_model_bytes
from tilesegment.model.predictor import Device, Predictor, choose_precision, input_affine
from tilesegment.model.quantise import measure_ranges

REDUCED: tuple[Precision, ...] = ("bfloat16", "float16", "int8")


def find_ranges(
    content: bytes,
    description: ModelDescription,
    tiles: Sequence[npt.NDArray[Any]],
    pixels: np.dtype[Any],
) -> Ranges:
    """What the values of the network's feature maps are on some tiles, see `measure_ranges`.

    Args:
        content: bytes of the model file.
        description: what they say.
        tiles: inputs with their halo, (c, y, x) each.
        pixels: type of the image's pixels.
    """
    scale, offset = input_affine(description, pixels, torch.device("cpu"))
    inputs = (torch.from_numpy(tile.astype(np.float32))[None] * scale + offset for tile in tiles)
    return measure_ranges(load_model_bytes(content, "the model"), inputs)


def changed_labels(
    content: bytes,
    description: ModelDescription,
    tiles: Sequence[npt.NDArray[Any]],
    pixels: np.dtype[Any],
    device: Device,
    reduced: Sequence[Precision] = REDUCED,
) -> dict[str, float]:
    """Share of labels that differ from float32's, by precision.

    Args:
        content: bytes of the model file.
        description: what they say.
        tiles: inputs with their halo, (c, y, x) each.
        pixels: type of the image's pixels.
        device: where to compute.
        reduced: the precisions to compare.

    Returns:
        One share for each of them that the device computes natively, and the model
        can be used in.
    """

    def labels(precision: str) -> npt.NDArray[np.unsignedinteger]:
        predictor = Predictor(content, description, pixels, precision, device)
        return np.stack([predictor.labels(tile) for tile in tiles])

    exact = labels("float32")
    return {
        precision: float(np.mean(labels(precision) != exact))
        for precision in reduced
        if _is_possible(precision, description, device)
    }


def _is_possible(precision: Precision, description: ModelDescription, device: Device) -> bool:
    try:
        choose_precision(description.precision(precision), device)
    except OptionError:
        return False
    return True
