"""What a network costs: parameters, arithmetic and memory, from passes over small pictures."""

import weakref
from dataclasses import dataclass
from typing import Any

from torch import Tensor, UntypedStorage, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tilesegment.geometry import YX, round_up
from tilesegment.model.probing.subject import Subject

_MEASURED = 256
"""Pixels per side, at least, of the picture that memory is measured with."""


@dataclass(frozen=True)
class Cost:
    """Of a network that torch runs; None where other software runs it."""

    parameters: int | None
    multiply_adds: float | None
    """Per pixel, of a large image: what the halo costs on top is not in it."""
    memory_bytes: float | None
    """Of the input and the feature maps at the peak, per pixel of the input."""


def measure_cost(subject: Subject, network: nn.Module | None, first: int, step: int) -> Cost:
    """Count in passes over real pictures.

    Args:
        subject: the network.
        network: its modules, if there are any.
        first: the least legal input size.
        step: to the next; 0 if there is none.
    """
    parameters = None
    if network is not None:
        parameters = sum(parameter.numel() for parameter in network.parameters())
    side = first + round_up(max(_MEASURED - first, 0), step) if step else first
    peak = _peak_bytes(subject, side)
    return Cost(
        parameters,
        _multiply_adds(subject, first, step) or None,
        peak / side**2 if peak else None,
    )


def _multiply_adds(subject: Subject, first: int, step: int) -> float:
    """Per pixel: half the second difference of the count over three sizes.

    The count is a quadratic in the size, whose lower terms are the rim's.
    """
    if step == 0:
        return _count(subject, first) / first**2
    small, middle, large = (_count(subject, first + index * step) for index in range(3))
    return (large - 2 * middle + small) / (2 * step**2)


def _count(subject: Subject, size: int) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        subject.output(subject.picture(YX(size, size)))
    return counter.get_total_flops() / 2


def _peak_bytes(subject: Subject, size: int) -> int:
    picture = subject.picture(YX(size, size))
    watch = _LiveStorages()
    with watch:
        subject.output(picture)
    return watch.peak


class _LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of all tensors that torch's operations made and that still live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._living: dict[weakref.ref[UntypedStorage], int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = weakref.ref(storage, self._living.pop)
                self._living[reference] = storage.nbytes()
        self.peak = max(self.peak, sum(self._living.values()))
        return result
