"""What each foreign network is brought to: (1, c, y, x) float32 in, (1, outputs, y, x) out.

Each kind of file has a module that opens it here, in the driver, and a `Loader` that makes it
run on a worker.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy.typing as npt
import torch
from torch import Tensor

from tilesegment.config import Precision
from tilesegment.errors import ModelError, OptionError
from tilesegment.geometry import NetworkGeometry
from tilesegment.model.file import Description
from tilesegment.model.loaded import Loaded
from tilesegment.model.preprocessing import Scale, Step, measured, needs_statistics, prepare

Run = Callable[[Tensor], Tensor]
"""A network: (1, c, y, x) float32 to (1, outputs, y', x') float32, on one device."""

AXES = "bcyx"


class RunError(Exception):
    """The network failed on one input, and may run on others; says in one line how."""


_UNKNOWN_WIDTH = 64
"""Feature channels of the paper's network, for the estimate of memory."""


class Loader(Protocol):
    """How a worker makes a network out of the bytes that it was sent."""

    def load(self, content: bytes, device: str) -> Run:
        """The network on a device ("cpu" or "cuda"), with axes in its own order.

        Raises:
            ModelError: if it cannot run there. The network itself raises `RunError`.
        """


@dataclass(frozen=True)
class ForeignNetwork:
    """A network as its file describes it."""

    loader: Loader
    channels: int | None = None
    """Of its input; None if the file does not say."""
    fixed_input: int | None = None
    """The only input size that it takes, pixels per side; None if it takes others."""
    input_axes: str = AXES
    """Order of its input's axes; axes that it lacks have one entry only."""
    output_axes: str = AXES
    """Order of its output's axes."""
    output_channel: int | None = None
    """The only channel of its output that is used; None uses all."""

    def load(self, content: bytes, device: str) -> Run:
        """The network with axes (1, c, y, x) on both sides.

        Raises:
            ModelError: if it cannot run on this device; when it runs: if its output is no float
                image.
            RunError: when it runs, if it fails.
        """
        run = self.loader.load(content, device)

        def network(image: Tensor) -> Tensor:
            output = run(_to_axes(image, self.input_axes))
            logits = _from_axes(_checked(output, self.output_axes), self.output_axes)
            if self.output_channel is not None:
                logits = logits[:, self.output_channel : self.output_channel + 1]
            return logits.float()

        return network


@dataclass(frozen=True)
class Opened:
    """A network that was found, and has not run yet."""

    content: bytes
    """What workers need to load it."""
    network: ForeignNetwork

    def load(self) -> Run:
        """The network on a CPU, where every network is measured."""
        return self.network.load(self.content, "cpu")


@dataclass(frozen=True, kw_only=True)
class ForeignDescription(Description):
    """What a run must know of a network that tilesegment did not write."""

    network: ForeignNetwork
    channels: int
    """Of its input."""
    found_geometry: NetworkGeometry
    """Border, alignment and legal sizes, found by running it."""
    preprocessing: tuple[Step, ...]
    """From stored pixels to its input."""
    foreground_above: float
    """Of an output with one channel: 0 for logits, 0.5 for probabilities."""
    found_probabilities: bool = False
    """Whether its output is probabilities, and not logits."""

    @property
    def gives_probabilities(self) -> bool:
        return self.found_probabilities

    @property
    def threshold(self) -> float:
        return self.foreground_above

    @property
    def fixed_input(self) -> int | None:
        return self.network.fixed_input

    @property
    def in_channels(self) -> int:
        return self.channels

    @property
    def geometry(self) -> NetworkGeometry:
        return self.found_geometry

    @property
    def base_channels(self) -> int:
        return _UNKNOWN_WIDTH

    @property
    def whole_image_steps(self) -> tuple[Step, ...]:
        return self.preprocessing if needs_statistics(self.preprocessing) else ()

    def with_scales(self, scales: Iterable[Scale]) -> "ForeignDescription":
        return replace(self, preprocessing=measured(self.preprocessing, scales))

    def precision(self, wanted: Precision) -> Precision:
        if wanted not in ("auto", "float32"):
            raise OptionError(
                f"--precision {wanted} is for tilesegment's own networks; leave it out"
            )
        return "float32"

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the labels beside the file's content, for the run's fingerprint."""
        return {
            "geometry": asdict(self.found_geometry),
            "loader": repr(self.network.loader),
            "output channel": self.network.output_channel,
            "preprocessing": [repr(step) for step in self.preprocessing],
            "threshold": self.foreground_above,
        }


def load_foreign(content: bytes, description: ForeignDescription, device: str) -> Loaded:
    """A foreign network with its preprocessing.

    Raises:
        ModelError: when it runs: if it fails, or its output has another size than was measured.
    """
    network = answering(description.network.load(content, device))
    geometry = description.geometry
    lost = 2 * geometry.loss + geometry.extra_loss

    def on_host(pixels: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(prepare(pixels, description.preprocessing))[None]

    def run(image: Tensor) -> Tensor:
        output = network(image)
        expected = tuple(size - lost for size in image.shape[2:])
        if output.shape[2:] != expected:
            raise ModelError(
                f"the network gives {tuple(output.shape[2:])} pixels for {tuple(image.shape[2:])}, "
                f"{expected} are needed; its output must follow the size of its input"
            )
        return output

    return Loaded(on_host, lambda image: image, run, description.geometry.crop)


def answering(run: Run) -> Run:
    """The network, where a failure is the model's fault and not that of the size."""

    def network(image: Tensor) -> Tensor:
        try:
            return run(image)
        except RunError as error:
            raise ModelError(
                f"the network fails on an input of {tuple(image.shape)} on the "
                f"{image.device.type}: {error}; if it was exported on a GPU, export it on a CPU, "
                "where it must run too"
            ) from error

    return network


def _to_axes(image: Tensor, axes: str) -> Tensor:
    """(1, c, y, x) to the network's order; axes that it lacks are dropped."""
    present = [axis for axis in AXES if axis in axes]
    for position in reversed(range(len(AXES))):
        if AXES[position] not in axes:
            image = image.select(position, 0)
    return image.permute([present.index(axis) for axis in axes]).contiguous()


def _from_axes(output: Tensor, axes: str) -> Tensor:
    """The network's order to (1, c, y, x)."""
    output = output.permute([axes.index(axis) for axis in AXES if axis in axes])
    for position, axis in enumerate(AXES):
        if axis not in axes:
            output = output.unsqueeze(position)
    return output


def _checked(output: object, axes: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise ModelError(
            f"the network gives a {type(output).__name__} instead of one tensor; choose an output "
            "with --model-output"
        )
    if output.ndim != len(axes):
        raise ModelError(
            f"the network's output has the shape {tuple(output.shape)}, without an axis for each "
            f"of {', '.join(axes)}: it does not segment, it gives no value per pixel"
        )
    if not output.is_floating_point():
        raise ModelError(
            f"the network's output holds integers ({output.dtype}), labels already; export it "
            "without its last argmax, so that it gives one logit or probability per class"
        )
    return output
