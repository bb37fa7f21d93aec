"""What a run must know of a foreign network: from its description, the options, and a first run."""

import logging
from dataclasses import dataclass

from tilesegment.config import ForeignOptions, Normalise
from tilesegment.errors import ModelError
from tilesegment.model.file import LabelClass, describe_classes
from tilesegment.model.foreign.measuring import find_geometry, looks_like_probabilities, try_out
from tilesegment.model.foreign.network import ForeignDescription, Opened
from tilesegment.model.preprocessing import DivideByLargest, ScaleRange, Standardise, Step

_LOGGER = logging.getLogger(__name__)

NORMALISE: dict[Normalise, tuple[Step, ...]] = {
    "largest": (DivideByLargest(),),
    "none": (),
    "zero-mean": (Standardise(),),
    "min-max": (ScaleRange(0, 100),),
    "percentile": (ScaleRange(1, 99.8),),
}


@dataclass(frozen=True)
class Facts:
    """What a description beside the weights says; a bare file says none of it."""

    preprocessing: tuple[Step, ...] = NORMALISE["largest"]
    """From stored pixels to the network's input."""
    threshold: float | None = None
    """Of an output with one channel: foreground is above it."""
    class_names: tuple[str, ...] = ()
    """Of the output's channels."""
    pixel_size_um: float | None = None
    """Of the pictures it was trained on."""
    halo: int | None = None
    """Pixels per side of the output that its author calls unreliable."""


def describe(
    opened: Opened, facts: Facts, options: ForeignOptions, name: str, blended: bool = False
) -> ForeignDescription:
    """Run the network on noise, measure its border, and put together what is known.

    Raises:
        ModelError: if it cannot be tiled exactly, or nobody says what its output means.
    """
    run = opened.load()
    channels, output = try_out(opened, run)
    outputs = len(output)
    threshold = options.threshold if options.threshold is not None else facts.threshold
    if outputs == 1 and threshold is None:
        raise ModelError(
            f"{name} gives one channel without saying what it means; add --threshold 0 if it "
            "gives logits, 0.5 if probabilities"
        )
    geometry = find_geometry(opened, run, channels, name, blended)
    if facts.halo is not None and facts.halo < geometry.border:
        _LOGGER.warning(
            "%s declares a halo of %d pixels; its border, measured, is %d, which is used",
            name, facts.halo, geometry.border,
        )  # fmt: skip
    preprocessing = (
        facts.preprocessing if options.normalise is None else NORMALISE[options.normalise]
    )
    return ForeignDescription(
        network=opened.network,
        channels=channels,
        found_geometry=geometry,
        preprocessing=preprocessing,
        foreground_above=threshold or 0.0,
        classes=_classes(outputs, facts.class_names),
        pixel_size_um=facts.pixel_size_um,
        found_probabilities=(
            0 < (threshold or 0) < 1 if outputs == 1 else looks_like_probabilities(output)
        ),
    )


def _classes(outputs: int, names: tuple[str, ...]) -> tuple[LabelClass, ...]:
    """Named as described; one channel stands for background and its own name."""
    if len(names) != outputs:
        return describe_classes(outputs)
    return describe_classes(outputs, ["background", *names] if outputs == 1 else names)
