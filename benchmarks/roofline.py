"""How near the network comes to what the processor can do: the roofline (Williams et al. 2009).

    python benchmarks/roofline.py [--bases 16,64] [--size 1212] [--runs 5]

What the processor can do is measured in the same process, with as many threads: multiplications of
matrices, or a wide convolution where that is faster, and copies of much more than the caches hold.
A layer takes at least the time for its operations, or for reading its input and writing its output,
whichever is longer: the sum over all layers is the fastest pass. A multiplication and an addition
are two operations; pixels are those of the input. Unpadded networks of depth 4, three channels,
two classes, computed as `tilesegment run` does, but for bands.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from common import save_results
from torch import Tensor, nn

import tilesegment as ts
from tilesegment.config import ClusterOptions
from tilesegment.execution.cluster import inference_threads
from tilesegment.execution.memory import keep_freed_memory
from tilesegment.model.banded import BandedUNet
from tilesegment.model.fuse import Convolution, MaxPool, fuse
from tilesegment.model.quantise import (
    _AS_IT_IS,
    _Convolution,
    can_quantise,
    measure_ranges,
    quantise,
)

MATRIX = 3072
WIDE = (256, 256)
"""Channels and pixels per side of the convolution that tells the peak."""
COPIED_BYTES = 2**29
NO_BANDS = 2**62


@dataclass(frozen=True)
class Layer:
    """A convolution of the network, for one input."""

    name: str
    operations: int
    values: int
    """Of its input and output."""


def network(base: int) -> ts.UNet:
    torch.manual_seed(0)
    return ts.UNet(3, 2, base_channels=base, depth=4).eval()


def layers(base: int, size: int) -> list[Layer]:
    """All convolutions in the order in which they are computed, counted without computing."""
    found = []

    def note(name: str, module: Any, given: tuple[Tensor], result: Tensor) -> None:
        steps = given[0] if isinstance(module, nn.ConvTranspose2d) else result
        operations = 2 * module.weight.numel() * steps.shape[-2] * steps.shape[-1]
        found.append(Layer(name, operations, given[0].numel() + result.numel()))

    with torch.device("meta"):
        unet = network(base)
        for name, module in unet.named_modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.register_forward_hook(partial(note, name))
        unet(torch.empty(1, 3, size, size))
    return found


def as_computed(base: int, precision: str, image: Tensor) -> tuple[nn.Module, Tensor]:
    """The network and an input for it."""
    if precision == "int8":
        ranges = measure_ranges(network(base), [image])
        quantised = quantise(network(base), ranges, torch.ones(1), torch.zeros(1))
        return BandedUNet(quantised, large_bytes=NO_BANDS), (image * 255).to(torch.uint8)
    dtype = getattr(torch, precision)
    fused = fuse(network(base).to(dtype)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return BandedUNet(fused, large_bytes=NO_BANDS), image.to(dtype)


@contextmanager
def timed(module: nn.Module, seconds: list[float]) -> Iterator[None]:
    """Notes how long each convolution takes, in the order in which they are computed."""
    started = 0.0

    def start(*_: Any) -> None:
        nonlocal started
        started = time.perf_counter()

    def stop(*_: Any) -> None:
        seconds.append(time.perf_counter() - started)

    convolutions = [
        each
        for each in module.modules()
        if not list(each.children()) and not isinstance(each, MaxPool)
    ]
    handles = [each.register_forward_pre_hook(start) for each in convolutions]
    handles += [each.register_forward_hook(stop) for each in convolutions]
    yield
    for handle in handles:
        handle.remove()


def least_seconds(work: Callable[[], Any], runs: int) -> float:
    """Of some runs the fastest: what the processor can do."""
    found = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def peak(precision: str, runs: int) -> float:
    """Operations per second."""
    channels, side = WIDE
    wide = nn.Conv2d(channels, channels, 3, padding="same")
    image = torch.rand(1, channels, side, side).to(memory_format=torch.channels_last)
    if precision == "int8":
        matrix = torch.randint(-100, 100, (MATRIX, MATRIX), dtype=torch.int8)
        product: Callable[[], Any] = partial(torch._int_mm, matrix, matrix)
        convolution = _wide_in_integers(wide, image)
    else:
        dtype = getattr(torch, precision)
        matrix = torch.rand(MATRIX, MATRIX).to(dtype)
        product = partial(torch.mm, matrix, matrix)
        convolution = partial(Convolution(wide.to(dtype), relu=False), image.to(dtype))
    return max(
        2 * MATRIX**3 / least_seconds(product, runs),
        2 * 9 * channels**2 * side**2 / least_seconds(convolution, runs),
    )


def _wide_in_integers(wide: nn.Conv2d, image: Tensor) -> Callable[[], Any]:
    return partial(_Convolution(wide, _AS_IT_IS, _AS_IT_IS), (image * 255).to(torch.uint8))


def bandwidth(runs: int) -> float:
    """Bytes per second that are read or written."""
    source = torch.zeros(COPIED_BYTES // 4)
    target = torch.ones_like(source)
    return 2 * COPIED_BYTES / least_seconds(partial(target.copy_, source), runs)


def measure(base: int, precision: str, size: int, runs: int, limits: tuple[float, float]) -> Any:
    """One network in one precision beside the limits: operations and bytes per second."""
    most_operations, most_bytes = limits
    value_bytes = {"float32": 4, "bfloat16": 2, "int8": 1}[precision]
    image = torch.rand(1, 3, size, size).to(memory_format=torch.channels_last)
    module, given = as_computed(base, precision, image)
    passes: list[list[float]] = []
    whole = []
    for _ in range(runs + 1):
        seconds: list[float] = []
        with timed(module, seconds):
            started = time.perf_counter()
            module(given)
            whole.append(time.perf_counter() - started)
        passes.append(seconds)
    rows, fastest = [], 0.0
    for layer, *times in zip(layers(base, size), *passes[1:], strict=True):
        moved = layer.values * value_bytes
        fastest += max(layer.operations / most_operations, moved / most_bytes)
        rows.append(
            {
                "layer": layer.name,
                "operations_per_byte": round(layer.operations / moved, 1),
                "gop_s": round(layer.operations / statistics.median(times) / 1e9, 1),
                "share_of_time": round(statistics.median(times) / statistics.median(whole[1:]), 4),
            }
        )
    pixels = size**2
    operations, values = (
        sum(getattr(layer, kind) for layer in layers(base, size))
        for kind in ("operations", "values")
    )
    seconds_of_pass = statistics.median(whole[1:])
    return {
        "base_channels": base,
        "precision": precision,
        "operations_per_pixel": round(operations / pixels),
        "bytes_per_pixel": round(values * value_bytes / pixels),
        "most_mpx_s": round(pixels / fastest / 1e6, 3),
        "input_mpx_s": round(pixels / seconds_of_pass / 1e6, 3),
        "share_of_most": round(fastest / seconds_of_pass, 3),
        "gop_s": round(operations / seconds_of_pass / 1e9, 1),
        "share_of_peak": round(operations / seconds_of_pass / most_operations, 3),
        "layers": rows,
    }


def main() -> None:
    """Measure, print, and write benchmarks/results/roofline.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bases", default="16,64", help="base widths of networks, with commas")
    parser.add_argument("--size", type=int, default=1212, help="of the input: 16 n + 12")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(inference_threads(ClusterOptions(workers=1)) or 1)
    keep_freed_memory()
    precisions = ["float32", "bfloat16", *(["int8"] if can_quantise() else [])]
    rows = []
    with torch.inference_mode():
        moved = bandwidth(arguments.runs)
        peaks = {precision: peak(precision, arguments.runs) for precision in precisions}
        for base in map(int, arguments.bases.split(",")):
            for precision in precisions:
                limits = peaks[precision], moved
                rows.append(measure(base, precision, arguments.size, arguments.runs, limits))
                print({name: rows[-1][name] for name in rows[-1] if name != "layers"}, flush=True)
    results = {
        "threads": torch.get_num_threads(),
        "size": arguments.size,
        "gigabytes_per_second": round(moved / 1e9, 1),
        "peak_gop_s": {name: round(found / 1e9) for name, found in peaks.items()},
        "rows": rows,
    }
    save_results("roofline", results)
    print({name: found for name, found in results.items() if name != "rows"})


if __name__ == "__main__":
    main()
