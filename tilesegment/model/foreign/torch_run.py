"""Running a torch module that is not ours."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from tilesegment.model.foreign.choice import choose
from tilesegment.model.foreign.network import Run, RunError
from tilesegment.model.foreign.summation import OneLibrary
from tilesegment.model.fuse import can_fuse


def torch_run(module: Any, device: str, output: str | None) -> Run:
    """A torch module, or what a program gave back for one, as a network on a device.

    Args:
        module: takes and gives tensors; on the device already.
        device: "cpu" or "cuda".
        output: which output, where it gives several: a key, or a position.
    """
    one_library = device == "cpu" and can_fuse()

    def run(image: Tensor) -> Any:
        image = image.to(device).contiguous(
            memory_format=torch.channels_last if image.ndim == 4 else torch.contiguous_format
        )
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            # Without it TorchScript computes its third and later calls by another program.
            stack.enter_context(torch.jit.optimized_execution(False))  # type: ignore[attr-defined]
            if one_library:
                stack.enter_context(OneLibrary())  # type: ignore[no-untyped-call]
            return _select(_call(module, image), output)

    return run


def _call(module: Any, image: Tensor) -> Any:
    try:
        return module(image)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError, NotImplementedError) as error:
        raise RunError(_last_line(error)) from error


def _last_line(error: Exception) -> str:
    """What went wrong: TorchScript tells first where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _select(output: Any, wanted: str | None) -> Any:
    """One tensor of an output that may be a mapping or a sequence of tensors."""
    if isinstance(output, Mapping):
        named = dict(output)
    elif isinstance(output, (tuple, list)):
        named = {str(position): item for position, item in enumerate(output)}
    elif wanted is None:
        return output
    else:
        named = {"0": output}
    return named[choose(list(named), wanted, "the network")]
