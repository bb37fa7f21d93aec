"""How many labels a reduced precision changes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilesegment.config import Precision
from tilesegment.errors import OptionError
from tilesegment.model.file import ModelDescription
from tilesegment.model.predictor import Device, Predictor, choose_precision

_REDUCED: tuple[Precision, ...] = ("bfloat16", "float16")


def changed_labels(
    content: bytes,
    description: ModelDescription,
    tiles: Sequence[npt.NDArray[Any]],
    device: Device,
) -> dict[str, float]:
    """Share of labels that differ from float32's, by precision.

    Args:
        content: bytes of the model file.
        description: what they say.
        tiles: inputs with their halo, (c, y, x) each, all of one dtype.
        device: where to compute.

    Returns:
        One share for each reduced precision that the device computes natively.
    """

    def labels(precision: str) -> npt.NDArray[np.unsignedinteger]:
        predictor = Predictor(content, description, tiles[0].dtype, precision, device)
        return np.stack([predictor.labels(tile) for tile in tiles])

    exact = labels("float32")
    return {
        precision: float(np.mean(labels(precision) != exact))
        for precision in _REDUCED
        if _is_native(precision, device)
    }


def _is_native(precision: Precision, device: Device) -> bool:
    try:
        choose_precision(precision, device)
    except OptionError:
        return False
    return True
