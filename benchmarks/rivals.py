"""Speed, memory and labels that differ, beside what people use today: same weights, same picture.

    pip install --no-deps --target RIVALS monai==1.6.1 torch-em==0.10.9 geo-inference==3.2.4 \
        bioimage-cpp==0.9.0 tqdm ttach rioxarray xarray pystac==1.12.2 requests charset-normalizer \
        idna urllib3 certifi omegaconf hydra-core antlr4-python3-runtime==4.9.3 rtree colorlog
    PYTHONPATH=RIVALS python benchmarks/rivals.py [--side 3072] [--runs 5]

Each tool runs in a process of its own, as its user would start it, with as many threads; a tool
that is not installed is left out. The weights are random ("same" padding: none of the others takes
the bundled `nuclei`, whose output is smaller than its input) with a bias that gives each of two
classes half of the picture.

Labels are compared with one pass of torch's plain network over the whole mirrored picture; only
pixels farther than tilesegment's halo from the rim are counted, because the tools extend the image
there in different ways. tilesegment is also compared with one pass of its own arithmetic, rim
included. tilesegment and the dask script are timed from zarr to zarr without the start of their
workers, geo-inference from GeoTIFF to GeoTIFF, the others in memory. The patch network, which the
U-Net replaced, is shown one patch per pixel; a few hundred pixels tell its speed.
"""

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
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
from tilesegment.config import ClusterOptions, Precision, RunOptions
from tilesegment.execution.cluster import inference_threads
from tilesegment.geometry import round_up
from tilesegment.model.file import load_model, read_description
from tilesegment.model.predictor import Predictor, choose_precision
from tilesegment.model.quantise import can_quantise

Labels = npt.NDArray[np.integer[Any]]
Outcome = tuple[float, Labels]
"""Seconds, and labels (y, x); 255 where a tool was not asked."""

CLUSTER = ClusterOptions(workers=1)
WINDOW = 512
HALO = 96
"""What a user takes for this network: the receptive field, and a multiple of 16."""
PATCHES = 200
OWN = "tilesegment, "
UNKNOWN = 255


class Normalised(nn.Module):
    """The network, for pixel values of 0 to 255: tilesegment divides them itself."""

    def __init__(self, network: nn.Module, channels_last: bool = False) -> None:
        super().__init__()
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.layout)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """(n, c, y, x) float32 to logits of (n, classes, y, x)."""
        logits: Tensor = self.network((image / 255).contiguous(memory_format=self.layout))
        return logits


class Bench:
    """The folder that all processes share: picture, network, and what one pass gives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = next(folder.glob("mirrored-*.zarr"))
        self.model = folder / "random.safetensors"

    @property
    def picture(self) -> npt.NDArray[np.uint8]:
        return np.asarray(zarr.open_array(self.image / "0", mode="r")[...])

    @property
    def pixels(self) -> npt.NDArray[np.float32]:
        return self.picture.astype(np.float32)

    def network(self, channels_last: bool = False) -> Normalised:
        return Normalised(load_model(self.model), channels_last).eval()


def prepare(folder: Path, side: int) -> Bench:
    """Write picture, network, and the labels of one pass: by torch, and by tilesegment."""
    mirrored_slide(folder, side, side)
    bench = Bench(folder)
    picture = bench.picture
    torch.manual_seed(0)
    unet = ts.UNet(3, 2, base_channels=16, depth=4, padding="same").eval()
    logits = unet(torch.from_numpy(picture[:, :1024, :1024] / np.float32(255))[None])[0]
    unet.head.bias[1] -= (logits[1] - logits[0]).median()
    ts.save_model(unet, bench.model)
    if can_quantise():
        ts.calibrate(bench.model, [bench.image], bench.model, overwrite=True)
    halo, alignment = unet.geometry.halo, unet.geometry.alignment
    missing = round_up(side, alignment) - side
    rims = [(0, 0), (halo, halo + missing), (halo, halo + missing)]
    whole = np.pad(picture, rims, mode="reflect")
    started = time.perf_counter()
    plain = bench.network()(torch.from_numpy(whole.astype(np.float32))[None])[0].argmax(0).numpy()
    seconds = time.perf_counter() - started
    np.save(folder / "plain.npy", plain[halo : halo + side, halo : halo + side].astype(np.uint8))
    content, description = bench.model.read_bytes(), read_description(bench.model)
    for precision in precisions():
        predictor = Predictor(content, description, picture.dtype, precision, "cpu")
        own = predictor.labels(whole)[:side, :side]
        np.save(folder / f"own-{precision}.npy", own.astype(np.uint8))
    (folder / "whole.json").write_text(json.dumps({"halo": halo, "seconds": seconds}))
    return bench


def precisions() -> list[Precision]:
    """float32, what `--precision auto` takes on this machine, and int8 if the machine has it."""
    best: Any = choose_precision("auto", "cpu")
    return list(dict.fromkeys(("float32", best, *(("int8",) if can_quantise() else ()))))


def tilesegment(bench: Bench, precision: Precision) -> Outcome:
    summary = ts.segment(
        bench.image,
        bench.model,
        output=bench.folder / "labels.zarr",
        options=RunOptions(precision=precision, level=0),
        cluster=CLUSTER,
        overwrite=True,
    )
    stored = zarr.open_array(Path(summary.labels) / "0", mode="r")[...]
    return summary.seconds, np.asarray(stored).reshape(stored.shape[-2:])


def monai(bench: Bench, channels_last: bool = False, **options: Any) -> Outcome:
    """Windows that overlap, whose logits are averaged."""
    infer = importlib.import_module("monai.inferers").sliding_window_inference
    image, network = torch.from_numpy(bench.pixels)[None], bench.network(channels_last)
    return timed(lambda: infer(image, (WINDOW, WINDOW), 1, network, **options)[0].argmax(0).numpy())


def torch_em(bench: Bench, channels_last: bool = False) -> Outcome:
    """Blocks with a halo that is cropped, read and written by threads of their own."""
    predict = _torch_em_prediction().predict_with_halo_pipelined
    image, network = bench.pixels, bench.network(channels_last)

    def segment() -> Labels:
        logits = np.zeros((2, *image.shape[1:]), np.float32)
        predict(
            image,
            network,
            ["cpu"],
            (WINDOW, WINDOW),
            (HALO, HALO),
            output=logits,
            preprocess=None,
            with_channels=True,
            num_prefetch_workers=1,
            disable_tqdm=True,
        )
        return logits.argmax(0)

    return timed(segment)


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


def geo_inference(bench: Bench) -> Outcome:
    """Windows that overlap by half, weighted by a Hann window."""
    module = importlib.import_module("geo_inference.geo_inference")
    rasterio = importlib.import_module("rasterio")
    folder, picture = bench.folder, bench.pixels
    torch.jit.trace(bench.network(), torch.zeros(1, 3, WINDOW, WINDOW)).save(folder / "network.pt")
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
        raster.write(picture)
    tool = module.GeoInference(
        model=str(folder / "network.pt"), work_dir=str(folder), device="cpu", num_classes=2
    )

    def segment() -> Labels:
        name = tool(str(folder / "picture.tif"), patch_size=WINDOW, workers=1)
        with rasterio.open(folder / name) as raster:
            labels: Labels = raster.read(1)
            return labels

    return timed(segment)


def dask_script(bench: Bench) -> Outcome:
    """map_overlap and torch, as a user writes it: dask's own workers, their settings untouched."""
    import dask.array as da
    from distributed import Client

    network = bench.network()

    def predict(block: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        with torch.inference_mode():
            logits = network(torch.from_numpy(block.astype(np.float32))[None])[0]
        return logits.argmax(0).numpy().astype(np.uint8)[HALO:-HALO, HALO:-HALO]

    target = bench.folder / "script.zarr"
    with Client(dashboard_address=None):
        image = da.from_zarr(str(bench.image / "0")).rechunk((3, WINDOW, WINDOW))
        labels = image.map_overlap(
            predict,
            depth={0: 0, 1: HALO, 2: HALO},
            boundary="reflect",
            trim=False,
            drop_axis=0,
            dtype=np.uint8,
            chunks=image.chunks[1:],
            meta=np.empty((0, 0), np.uint8),
        )
        seconds, _ = timed(lambda: labels.to_zarr(str(target), overwrite=True))
    return seconds, np.asarray(zarr.open_array(target, mode="r")[...])


def patches(bench: Bench) -> Outcome:
    """The network shown a patch for each pixel; all but that pixel's output is thrown away."""
    network, picture = bench.network(), bench.pixels
    halo = json.loads((bench.folder / "whole.json").read_text())["halo"]
    side = picture.shape[-1]
    labels = np.full((side, side), UNKNOWN, np.uint8)
    places = np.random.default_rng(0).integers(halo + 16, side - halo - 16, (PATCHES, 2))
    started = time.perf_counter()
    for y, x in places.tolist():
        # The pooling windows of the patch lie on the picture's grid.
        top, left = y // 16 * 16 - halo, x // 16 * 16 - halo
        patch = picture[:, top : top + 2 * halo + 16, left : left + 2 * halo + 16]
        logits = network(torch.from_numpy(np.ascontiguousarray(patch))[None])[0]
        labels[y, x] = int(logits[:, y - top, x - left].argmax())
    seconds = (time.perf_counter() - started) * side**2 / PATCHES
    return seconds, labels


def timed(segment: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = segment()
    return time.perf_counter() - started, result


TOOLS: Mapping[str, Callable[[Bench], Outcome]] = {
    **{
        f"{OWN}{precision}": lambda bench, precision=precision: tilesegment(bench, precision)
        for precision in precisions()
    },
    "MONAI, overlap 0.25 constant (default)": monai,
    "MONAI, overlap 0.5 gaussian": lambda bench: monai(bench, overlap=0.5, mode="gaussian"),
    "MONAI, default, channels last": lambda bench: monai(bench, channels_last=True),
    "torch-em, pipelined, block 512, halo 96": torch_em,
    "torch-em, the same, channels last": lambda bench: torch_em(bench, channels_last=True),
    "geo-inference, patch 512": geo_inference,
    "map_overlap script": dask_script,
    "patch network": patches,
}


def run_child(folder: Path, tool: str) -> None:
    """One tool, once; what came out goes to stdout as JSON."""
    bench = Bench(folder)
    with torch.inference_mode():
        seconds, labels = TOOLS[tool](bench)
    halo = json.loads((folder / "whole.json").read_text())["halo"]
    plain = np.load(folder / "plain.npy")
    inside = (slice(halo, -halo),) * 2
    asked = labels[inside] != UNKNOWN
    found = {
        "seconds": seconds,
        "differing": int(((labels != plain)[inside] & asked).sum()),
        "pixels": int(asked.sum()),
        "memory_mib": _peak_mib(),
    }
    if tool.startswith(OWN):
        own = np.load(folder / f"own-{tool.removeprefix(OWN)}.npy")
        found |= {
            "differing": int((labels != own).sum()),
            "pixels": own.size,
            "share_unlike_float32": float((own != np.load(folder / "own-float32.npy")).mean()),
        }
    print(json.dumps(found))


def _peak_mib() -> int:
    """Of this process or the largest of its own, whichever is more."""
    status = Path("/proc/self/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this script in a process of its own, which inherits no peak of memory from this one."""
    return subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        check=False,
    )


def measure(folder: Path, tool: str) -> dict[str, Any] | None:
    """One run of one tool in a process of its own; None if it is not installed."""
    done = start("--child", str(folder), tool)
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    reason = done.stderr.strip().splitlines()[-1]
    if "ModuleNotFoundError" not in reason:
        raise RuntimeError(f"{tool}: {done.stderr}")
    print(f"{tool}: not installed ({reason})", flush=True)
    return None


def table_row(tool: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    found = runs[tool]
    row = {
        "tool": tool,
        "differing": found[-1]["differing"],
        "pixels": found[-1]["pixels"],
        "share": found[-1]["differing"] / found[-1]["pixels"],
        "seconds": round(statistics.median(run["seconds"] for run in found), 2),
        "memory_mib": max(run["memory_mib"] for run in found),
    }
    if "share_unlike_float32" in found[-1]:
        row["share_unlike_float32"] = found[-1]["share_unlike_float32"]
    for precision in precisions():
        pairs = zip(found, runs[OWN + precision], strict=True)
        ratios = [other["seconds"] / ours["seconds"] for other, ours in pairs]
        row[f"{precision}_is_faster_by"] = round(statistics.median(ratios), 2)
        row[f"{precision}_ratios"] = [round(ratio, 2) for ratio in ratios]
    return row


def main() -> None:
    """Measure, print, and write benchmarks/results/rivals.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=3072, help="a multiple of 16")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="parts of the names of other tools, with commas")
    parser.add_argument("--result", default="rivals", help="name of the file of results")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "TOOL"), help=argparse.SUPPRESS)
    parser.add_argument("--prepare", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(inference_threads(CLUSTER) or 1)
    if arguments.prepare:
        with torch.inference_mode():
            prepare(Path(arguments.prepare), arguments.side)
        return
    if arguments.child:
        run_child(Path(arguments.child[0]), arguments.child[1])
        return
    with tempfile.TemporaryDirectory() as name:
        start("--prepare", name, "--side", str(arguments.side)).check_returncode()
        bench = Bench(Path(name))
        whole = json.loads((bench.folder / "whole.json").read_text())
        wanted = (OWN, *arguments.only.split(","))
        runs: dict[str, list[dict[str, Any]]] = {
            tool: [] for tool in TOOLS if any(part in tool for part in wanted)
        }
        for _ in range(arguments.runs):
            for tool in list(runs):
                found = measure(bench.folder, tool)
                if found is None:
                    del runs[tool]
                else:
                    runs[tool].append(found)
                    print(tool, found, flush=True)
        share = float((np.load(bench.folder / "plain.npy") == 1).mean())
    rows = [table_row(tool, runs) for tool in runs]
    results = {
        "side": arguments.side,
        "second_class": round(share, 3),
        "whole_image_in_one_pass_mpx_s": round(arguments.side**2 / 1e6 / whole["seconds"], 3),
        "rows": rows,
    }
    save_results(arguments.result, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
