"""Which operations of a network can look at the whole tile, by name and place.

They are the explanation only: whether the network is local is measured.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

from tilesegment.geometry import YX
from tilesegment.model.probing.subject import Subject

_PLACES_NAMED = 3
_POOLINGS = ("mean", "amax", "amin", "sum", "std", "var", "std_mean", "var_mean")


def find_suspects(subject: Subject, network: nn.Module | None, size: int) -> tuple[str, ...]:
    """Clauses as "InstanceNorm at encoder.1", from one pass over `size` pixels per side.

    torch's operations are seen in modules, in functions called by a module and in TorchScript,
    but nothing is seen of a network that other software runs.
    """
    watch = _Watch(network)
    with watch.following_modules(), watch:
        subject.output(subject.picture(YX(size, size)))
    return tuple(_clause(name, places) for name, places in watch.found.items())


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation of torch, and notes the suspects with the modules that ran them."""

    def __init__(self, network: nn.Module | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[str, list[str]] = {}
        self._names = {module: name for name, module in network.named_modules()} if network else {}
        self._running: list[str] = []

    @contextmanager
    def following_modules(self) -> Iterator[None]:
        """Keep track of the modules that run."""
        entered = register_module_forward_pre_hook(lambda module, _: self._enter(module))
        left = register_module_forward_hook(lambda *_: self._leave())
        try:
            yield
        finally:
            entered.remove()
            left.remove()

    def _enter(self, module: nn.Module) -> None:
        self._running.append(self._names.get(module) or type(module).__name__)

    def _leave(self) -> None:
        self._running.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        names = [argument.name for argument in func._schema.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        suspect = _suspect(func.overloadpacket.__name__, given)
        if suspect is not None:
            places = self.found.setdefault(suspect, [])
            places.append(self._running[-1] if self._running else "")
        return func(*args, **kwargs)


def _suspect(operation: str, given: dict[str, Any]) -> str | None:
    """What to call an operation that can look at the whole tile, None for all others."""
    if operation == "instance_norm" and given.get("use_input_stats"):
        return "InstanceNorm"
    if operation == "group_norm":
        return "GroupNorm over positions"
    if operation == "batch_norm" and given.get("training"):
        return "BatchNorm in training mode (call eval())"
    if operation in ("dropout", "feature_dropout", "alpha_dropout") and given.get("train"):
        return "dropout in training mode (call eval())"
    if operation.startswith("upsample") and given.get("align_corners"):
        return "upsampling with align_corners=True"
    if operation.startswith("adaptive_") or _pools_all_positions(operation, given):
        return "global pooling (as in squeeze-and-excitation)"
    if operation == "scaled_dot_product_attention" or _is_attention(operation, given):
        return "attention"
    return None


def _pools_all_positions(operation: str, given: dict[str, Any]) -> bool:
    image, axes = given.get("self"), given.get("dim")
    if operation not in _POOLINGS or not isinstance(image, Tensor) or image.ndim != 4:
        return False
    return isinstance(axes, (list, tuple)) and {axis % 4 for axis in axes} >= {2, 3}


def _is_attention(operation: str, given: dict[str, Any]) -> bool:
    """A softmax over anything but the channels of an image."""
    image, axis = given.get("self"), given.get("dim")
    if operation not in ("softmax", "_softmax") or not isinstance(image, Tensor):
        return False
    return not (image.ndim == 4 and axis in (1, -3))


def _clause(name: str, places: list[str]) -> str:
    known = list(dict.fromkeys(place for place in places if place))
    if not known:
        return name
    named = ", ".join(known[:_PLACES_NAMED])
    more = len(known) - _PLACES_NAMED
    return f"{name} at {named}" + (f" and {more} more places" if more > 0 else "")
