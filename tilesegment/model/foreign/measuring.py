"""A foreign network runs for the first time: what it takes, what it gives, how far it sees."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version

import torch
from torch import Tensor

from tilesegment.cache import Measurement
from tilesegment.errors import ModelError
from tilesegment.geometry import NetworkGeometry
from tilesegment.model.file import content_hash
from tilesegment.model.foreign.network import Opened, Run, answering
from tilesegment.model.probe import measure

_LOGGER = logging.getLogger(__name__)

_TRIAL_SIZE = 256
"""Pixels per side."""
_MOST_CHANNELS = 16
_ROUNDING = 1e-3
"""By which a sum of probabilities may miss 1."""


def try_out(opened: Opened, run: Run) -> tuple[int, Tensor]:
    """Run the network on noise.

    Channels that its file does not tell are the least number with which it runs.

    Returns:
        Channels of the input, and the output, (outputs, y, x).

    Raises:
        ModelError: if it runs with no number of channels, for the reason of the first one; or if
            its output is not finite.
    """
    known = opened.network.channels
    first_failure = None
    for channels in [known] if known else range(1, _MOST_CHANNELS + 1):
        for size in _sizes(opened):
            try:
                output = answering(run)(_noise(channels, size))[0]
            except ModelError as error:
                first_failure = first_failure or error
            else:
                return channels, _finite(output)
    assert first_failure is not None  # noqa: S101 - there is a first number of channels
    raise first_failure


def looks_like_probabilities(output: Tensor) -> bool:
    """Whether all channels (outputs, y, x) together are 1 in every pixel, and none is negative."""
    total = output.double().sum(dim=0)
    return bool((output >= 0).all()) and bool((total - 1).abs().max() < _ROUNDING)


def _sizes(opened: Opened) -> Iterable[int]:
    """Sizes of which one is legal, for poolings of up to 64 pixels; or the only one."""
    fixed = opened.network.fixed_input
    return [fixed] if fixed else range(_TRIAL_SIZE, _TRIAL_SIZE - 64, -2)


def _noise(channels: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((1, channels, size, size), generator=generator)


def _finite(output: Tensor) -> Tensor:
    if not torch.isfinite(output).all():
        raise ModelError(
            "the network gives NaN for random numbers between 0 and 1; look for a division by 0, "
            "or damaged weights"
        )
    return output


def find_geometry(
    opened: Opened, run: Run, channels: int, name: str, blended: bool = False
) -> NetworkGeometry:
    """Border, alignment and legal sizes, by running the network.

    It runs some hundred times, which can take minutes; so what was found is kept in the user's
    cache, under the hash of all that decides it.

    Args:
        opened: the network.
        run: it, loaded.
        channels: of its input.
        name: for messages.
        blended: whether its windows are blended, so that it need not be local.

    Raises:
        ModelError: if it is not local, so that tiles could not equal the whole image.
    """
    measurement = _measurement(opened, channels)
    with suppress(TypeError):
        return NetworkGeometry(**(measurement.remembered() or {}))
    _LOGGER.info("measuring the border of %s, once for this file", name)
    found = measure(run, channels, fixed_size=opened.network.fixed_input)
    if not found.local:
        if blended:
            return found.window_geometry
        raise ModelError(
            f"{name} has no finite border ({'; '.join(found.reasons)}): its labels would depend "
            "on the tiles; add --blend gaussian, or see `tilesegment check`"
        )
    measurement.remember(asdict(found.geometry))
    return found.geometry


def _measurement(opened: Opened, channels: int) -> Measurement:
    """With all that decides the geometry.

    The code of a Python factory is not in the hash of its weights: its module's file is.
    """
    facts = [version("tilesegment"), content_hash(opened.content), repr(opened.network), channels]
    return Measurement("geometry", facts)
