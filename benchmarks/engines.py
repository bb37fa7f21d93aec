"""Forward-only speed of the same network by several engines, on one input in memory.

    pip install --no-deps --target OPENVINO openvino==2025.3.0 openvino-telemetry==2025.2.0
    PYTHONPATH=OPENVINO python benchmarks/engines.py [--bases 16,64] [--size 1248] [--runs 5]

torch as it is, torch with channels last, torch.compile (inductor with frozen weights; it needs a
C++ compiler), OpenVINO where it is installed, and what `tilesegment run` computes with. Megapixels
of the input per second, halo included, each engine's median, all in one process with the allocator
settings of our workers.
"""

import argparse
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import save_results
from torch import Tensor, nn

import tilesegment as ts
from tilesegment.config import ClusterOptions
from tilesegment.execution.cluster import inference_threads
from tilesegment.execution.memory import keep_freed_memory
from tilesegment.model.banded import BandedUNet
from tilesegment.model.fuse import fuse
from tilesegment.model.quantise import can_quantise, measure_ranges, quantise

CLUSTER = ClusterOptions(workers=1)


OPENVINO = importlib.util.find_spec("openvino") is not None


def network(base: int) -> ts.UNet:
    torch.manual_seed(0)
    return ts.UNet(3, 2, base_channels=base, depth=4, padding="same").eval()


def in_integers(base: int, image: Tensor) -> nn.Module:
    ranges = measure_ranges(network(base), [image])
    return BandedUNet(quantise(network(base), ranges, torch.ones(1), torch.zeros(1)))


def in_openvino(base: int, image: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Any]:
    """OpenVINO, told to give one input all threads, and in which precision to compute."""
    openvino = importlib.import_module("openvino")
    model = openvino.convert_model(network(base), example_input=image, input=[list(image.shape)])
    settings = {
        "INFERENCE_PRECISION_HINT": {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda image: request.infer([image.numpy()], share_inputs=True)


def seconds(engine: Callable[[Tensor], Any], image: Tensor, runs: int) -> float:
    engine(image)
    passes = []
    for _ in range(runs):
        started = time.perf_counter()
        engine(image)
        passes.append(time.perf_counter() - started)
    return statistics.median(passes)


def measure(base: int, size: int, runs: int) -> dict[str, float]:
    """Megapixels of the input per second of each engine, for a network of this base width."""
    plain = torch.rand(1, 3, size, size)
    last = plain.to(memory_format=torch.channels_last)
    speeds: dict[str, float] = {}

    def time_engine(name: str, engine: Callable[[Tensor], Any], image: Tensor) -> None:
        speeds[name] = round(size**2 / 1e6 / seconds(engine, image, runs), 3)
        print(f"{base} channels, {name}: {speeds[name]} Mpx/s", flush=True)

    for dtype in (torch.float32, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        channels_last = network(base).to(dtype).to(memory_format=torch.channels_last)
        time_engine(f"{kind}, torch", network(base).to(dtype), plain.to(dtype))
        time_engine(f"{kind}, torch, channels last", channels_last, last.to(dtype))
        time_engine(f"{kind}, torch.compile", torch.compile(channels_last), last.to(dtype))
        if OPENVINO:
            time_engine(f"{kind}, OpenVINO", in_openvino(base, plain, dtype), plain)
        fused = BandedUNet(fuse(network(base).to(dtype)))
        time_engine(f"{kind}, tilesegment", fused, last.to(dtype))
    if can_quantise():
        pixels = (last * 255).to(torch.uint8)
        time_engine("int8, tilesegment", in_integers(base, plain), pixels)
    return speeds


def main() -> None:
    """Measure, print, and write benchmarks/results/engines.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bases", default="16,64", help="base widths of networks, with commas")
    parser.add_argument("--size", type=int, default=1248, help="of the input, a multiple of 16")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(inference_threads(CLUSTER) or 1)
    torch._inductor.config.freezing = True
    keep_freed_memory()
    with torch.no_grad():
        speeds = {
            base: measure(base, arguments.size, arguments.runs)
            for base in map(int, arguments.bases.split(","))
        }
    save_results("engines", {**vars(arguments), "input_mpx_s": speeds})


if __name__ == "__main__":
    main()
