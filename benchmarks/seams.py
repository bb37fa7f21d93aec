"""Labels that differ from one pass over the whole image, and the speed, beside other tools.

    pip install --no-deps --target RIVALS monai==1.6.1 torch-em==0.10.9 geo-inference==3.2.4 \
        bioimage-cpp==0.9.0 tqdm ttach rioxarray xarray pystac==1.12.2 requests charset-normalizer \
        idna urllib3 certifi omegaconf hydra-core antlr4-python3-runtime==4.9.3 rtree colorlog
    PYTHONPATH=RIVALS python benchmarks/seams.py [--side 2000] [--runs 3]

A tool that is not installed is left out. All are given the same weights (random, "same" padding:
none of the others takes the bundled `nuclei`, whose output is smaller than its input), the same
picture, float32 and as many threads. Only pixels farther than tilesegment's halo from the rim are
counted, because the tools extend the image there in different ways; tilesegment also at the rim.
The others are compared with one pass of torch's plain network, which is what they run; tilesegment
with one pass of its own. tilesegment is timed from zarr to a published label image without the
start of its worker, geo-inference from GeoTIFF to GeoTIFF, the others in memory.
"""

import argparse
import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zarr
from common import mirrored_slide, save_results
from torch import Tensor, nn

import tilesegment as ts
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.execution.cluster import inference_threads
from tilesegment.geometry import round_up
from tilesegment.model.file import read_description
from tilesegment.model.predictor import Predictor

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.integer[Any]]
Tool = Callable[[], Labels]

CLUSTER = ClusterOptions(workers=1)
WINDOW = 512
TORCH_EM_HALO = 96


class Normalised(nn.Module):
    """The network, for pixel values of 0 to 255: tilesegment divides them itself."""

    def __init__(self, network: ts.UNet) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """(n, c, y, x) float32 to logits of (n, classes, y, x)."""
        image = image.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(image / 255)
        return logits


def balanced_network(picture: Pixels) -> ts.UNet:
    """Random weights, with a bias that gives each of two classes half of the picture."""
    torch.manual_seed(0)
    network = ts.UNet(3, 2, base_channels=16, depth=4, padding="same").eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(picture[:, :1024, :1024] / np.float32(255))[None])[0]
        network.head.bias[1] -= (logits[1] - logits[0]).median()
    return network


def mirrored(picture: Pixels, halo: int, alignment: int) -> Pixels:
    """The whole picture as one pass is given it (docs/exactness.md)."""
    missing = [round_up(size, alignment) - size for size in picture.shape[1:]]
    return np.pad(picture, [(0, 0), *((halo, halo + more) for more in missing)], mode="reflect")


def monai(network: nn.Module, picture: Pixels, **options: Any) -> Tool:
    """Windows that overlap, whose logits are averaged."""
    infer = importlib.import_module("monai.inferers").sliding_window_inference
    image = torch.from_numpy(picture.astype(np.float32))[None]
    return lambda: infer(image, (WINDOW, WINDOW), 1, network, **options)[0].argmax(0).numpy()


def torch_em(network: nn.Module, picture: Pixels) -> Tool:
    """Blocks with a halo that is cropped, read and written by threads of their own."""
    predict = _torch_em_prediction().predict_with_halo_pipelined
    image = picture.astype(np.float32)

    def segment() -> Labels:
        logits = np.zeros((2, *picture.shape[1:]), np.float32)
        predict(
            image,
            network,
            ["cpu"],
            (WINDOW, WINDOW),
            (TORCH_EM_HALO, TORCH_EM_HALO),
            output=logits,
            preprocess=None,
            with_channels=True,
            num_prefetch_workers=1,
            disable_tqdm=True,
        )
        return logits.argmax(0)

    return segment


def _torch_em_prediction() -> ModuleType:
    """The module alone: its packages import torchvision and more, which it does not use here."""
    homes = [Path(entry) / "torch_em" for entry in sys.path]
    home = next((path for path in homes if path.is_dir()), None)
    if home is None:
        raise ModuleNotFoundError("torch_em")
    for name in ("torch_em", "torch_em.util", "torch_em.transform", "torch_em.transform.raw"):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(home.joinpath(*name.split(".")[1:]))]
    sys.modules["torch_em.transform.raw"].standardize = None
    return importlib.import_module("torch_em.util.prediction")


def geo_inference(network: nn.Module, picture: Pixels, folder: Path) -> Tool:
    """Windows that overlap by half, weighted by a Hann window."""
    module = importlib.import_module("geo_inference.geo_inference")
    rasterio = importlib.import_module("rasterio")
    example = torch.zeros(1, 3, WINDOW, WINDOW)
    torch.jit.trace(network, example).save(folder / "network.pt")
    bands, height, width = picture.shape
    with rasterio.open(
        folder / "picture.tif",
        "w",
        driver="GTiff",
        count=bands,
        height=height,
        width=width,
        dtype="float32",
        crs="EPSG:32633",
        transform=rasterio.Affine(1, 0, 0, 0, -1, height),
    ) as raster:
        raster.write(picture.astype(np.float32))
    tool = module.GeoInference(
        model=str(folder / "network.pt"), work_dir=str(folder), device="cpu", num_classes=2
    )

    def segment() -> Labels:
        name = tool(str(folder / "picture.tif"), patch_size=WINDOW, workers=1)
        with rasterio.open(folder / name) as raster:
            return raster.read(1)

    return segment


def others(network: nn.Module, picture: Pixels, folder: Path) -> dict[str, Tool]:
    """The tools that are installed, ready to run."""
    ways: dict[str, Callable[[], Tool]] = {
        "MONAI, overlap 0.25 constant (default)": lambda: monai(network, picture),
        "MONAI, overlap 0.5 gaussian": lambda: monai(
            network, picture, overlap=0.5, mode="gaussian"
        ),
        "torch-em, halo 96": lambda: torch_em(network, picture),
        "geo-inference": lambda: geo_inference(network, picture, folder),
    }
    tools = {}
    for name, prepare in ways.items():
        try:
            tools[name] = prepare()
        except ImportError as error:
            print(f"{name}: not installed ({error})", flush=True)
    return tools


def differing(labels: Labels, whole: Labels, rim: int) -> int:
    """Labels that differ, farther than `rim` pixels from the rim."""
    inside = (slice(rim, -rim or None),) * 2
    return int((labels[inside] != whole[inside]).sum())


def main() -> None:
    """Measure, print, and write benchmarks/results/seams.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(inference_threads(CLUSTER) or 1)
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder, side = Path(name), arguments.side
        image = mirrored_slide(folder, side, side)
        picture = zarr.open_array(image / "0", mode="r")[...]
        unet = balanced_network(picture)
        model = ts.save_model(unet, folder / "random.safetensors")
        geometry, halo = unet.geometry, unet.geometry.halo
        network = Normalised(unet).eval()
        whole_picture = mirrored(picture, halo, geometry.alignment)
        plain = network(torch.from_numpy(whole_picture.astype(np.float32))[None])[0].argmax(0)
        plain = plain.numpy()[halo : halo + side, halo : halo + side]
        predictor = Predictor(
            model.read_bytes(), read_description(model), picture.dtype, "float32", "cpu"
        )
        own = predictor.labels(whole_picture)[:side, :side]
        tools = others(network, picture, folder)
        seconds: dict[str, list[float]] = {tool: [] for tool in ["tilesegment", *tools]}
        counts: dict[str, int] = {}
        for _ in range(arguments.runs):
            summary = ts.segment(
                image,
                model,
                options=RunOptions(precision="float32", level=0),
                cluster=CLUSTER,
                overwrite=True,
            )
            labels = zarr.open_array(Path(summary.labels) / "0", mode="r")[...]
            counts["tilesegment"] = differing(labels.reshape(side, side), own, rim=0)
            seconds["tilesegment"].append(summary.seconds)
            for tool, segment in tools.items():
                started = time.perf_counter()
                labels = segment()
                seconds[tool].append(time.perf_counter() - started)
                counts[tool] = differing(labels, plain, rim=halo)
    rows = []
    for tool, times in seconds.items():
        pixels = side**2 if tool == "tilesegment" else (side - 2 * halo) ** 2
        ratios = [one / other for one, other in zip(seconds["tilesegment"], times, strict=True)]
        row = {
            "tool": tool,
            "differing": counts[tool],
            "pixels": pixels,
            "share": counts[tool] / pixels,
            "seconds": round(statistics.median(times), 2),
            "speed": round(statistics.median(ratios), 2),
            "speeds": [round(ratio, 2) for ratio in ratios],
        }
        rows.append(row)
        print(row, flush=True)
    share = float((plain == 1).mean())
    save_results("seams", {"side": side, "second_class": round(share, 3), "rows": rows})


if __name__ == "__main__":
    main()
