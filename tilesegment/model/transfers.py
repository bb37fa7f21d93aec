"""Between the host's memory and a GPU's, beside the network's work on another tile.

A GPU is given two tiles at a time, by two threads: while one is computed, the other's pixels come
or its labels go. Both go through page-locked memory, without which the driver would copy them once
more, and on a stream of their own, because on the network's stream they would wait for it.

The thread waits for each copy, so that no two streams have the same tensor at once.
"""

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


class Transfers:
    """To and from a device; where that is the CPU nothing is copied.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str) -> None:
        self._stream = torch.cuda.Stream() if device == "cuda" else None  # type: ignore[no-untyped-call]
        self.tiles_at_once = 2 if device == "cuda" else 1
        """Of which one is computed."""

    def to_device(self, tensor: Tensor) -> Tensor:
        """What the host holds, on the device."""
        if self._stream is None:
            return tensor
        with torch.cuda.stream(self._stream):
            there = _locked(tensor).copy_(tensor).to("cuda", non_blocking=True)
        self._stream.synchronize()
        return there

    def to_host(self, tensor: Tensor) -> npt.NDArray[Any]:
        """What the device holds and has finished, see `finish`."""
        if self._stream is None:
            return tensor.numpy()
        here = _locked(tensor)
        with torch.cuda.stream(self._stream):
            here.copy_(tensor, non_blocking=True)
        self._stream.synchronize()
        # Locked memory is for the next tile.
        return here.numpy().copy()

    def finish(self) -> None:
        """Wait for what the network was given to do."""
        if self._stream is not None:
            torch.cuda.current_stream().synchronize()


def _locked(like: Tensor) -> Tensor:
    """Page-locked memory for as much, or ordinary memory where the system gives no other."""
    try:
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
    except RuntimeError:
        return torch.empty(like.shape, dtype=like.dtype)
