"""Small OME-Zarr images for tests, and the definition of what their labels are."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zarr

from tilesegment.geometry import round_up
from tilesegment.model.file import read_description, save_model, save_with_ranges
from tilesegment.model.predictor import Predictor
from tilesegment.model.probing.precision import find_ranges
from tilesegment.model.unet import UNet
from tilesegment.refinement import Refinement
from tilesegment.resampling import Resampling
from tilesegment.storage.buckets import put
from tilesegment.storage.objects import LEDGER_NAME, make_aside
from tilesegment.storage.remote import RemotePath, zarr_store
from tilesegment.tiling import Window, mirrored_positions


def random_pixels(shape: Sequence[int], dtype: str, seed: int = 0) -> npt.NDArray[Any]:
    """Pixels that fill the range of their type."""
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.random(shape).astype(dtype)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def write_image(
    path: Path,
    pixels: npt.NDArray[Any],
    axes: str = "cyx",
    *,
    chunks: Sequence[int] | None = None,
    shards: Sequence[int] | None = None,
    version: str = "0.5",
    levels: int = 1,
    pixel_size_um: float = 0.5,
    compressors: Any = "auto",
) -> Path:
    """An OME-Zarr image; coarser levels take every second pixel."""
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2, overwrite=True)
    datasets = []
    for level in range(levels):
        step = tuple(slice(None, None, 2**level if axis in "yx" else 1) for axis in axes)
        part = pixels[step]
        array = group.create_array(
            str(level),
            shape=part.shape,
            dtype=part.dtype,
            chunks=tuple(chunks) if chunks else part.shape,
            shards=tuple(shards) if shards else None,
            compressors=compressors,
            **({"dimension_names": list(axes)} if version == "0.5" else {}),
        )
        array[...] = part
        scale = [pixel_size_um * 2.0**level if axis in "yx" else 1.0 for axis in axes]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [{"type": "scale", "scale": scale}],
            }
        )
    kinds = {"t": "time", "c": "channel"}
    multiscale = {
        "axes": [
            {"name": axis, "type": kinds[axis]}
            if axis in kinds
            else {"name": axis, "type": "space", "unit": "micrometer"}
            for axis in axes
        ],
        "datasets": datasets,
    }
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    else:
        group.attrs["multiscales"] = [{"version": "0.4", **multiscale}]
    return path


@contextmanager
def as_a_run(labels_directory: Path) -> Iterator[None]:
    """Label volumes are written from a folder that the ledger of a run makes and removes."""
    make_aside(labels_directory)
    yield
    shutil.rmtree(labels_directory / LEDGER_NAME)


def balanced(network: UNet) -> UNet:
    """The network with a head bias that makes all classes about equally frequent on noise."""
    side = network.geometry.input_size(4 * network.geometry.alignment)
    noise = torch.rand(1, int(network.arguments["in_channels"]), side, side)
    network.eval()
    with torch.no_grad():
        logits = network(noise)
        network.head.bias -= logits.mean(dim=(0, 2, 3))
    return network


def random_model(
    folder: Path, in_channels: int = 3, classes: int = 3, *, seed: int = 0, **arguments: object
) -> Path:
    """A model file in a folder, with random weights drawn from a fixed seed."""
    torch.manual_seed(seed)
    network = UNet(in_channels, classes, **{"base_channels": 4, "depth": 2, **arguments})
    return save_model(balanced(network), folder / "model.safetensors")


def calibrated(model: Path) -> Path:
    """The model file with the ranges of its feature maps on noise."""
    content, description = model.read_bytes(), read_description(model)
    side = description.geometry.input_size(4 * description.geometry.alignment)
    noise = random_pixels((description.in_channels, side, side), "uint8")
    ranges = find_ranges(content, description, [noise], noise.dtype)
    return save_with_ranges(content, ranges, model)


def load_predictor(
    model: Path,
    dtype: str,
    average: int = 1,
    probabilities: bool = False,
    refinement: Refinement | None = None,
    precision: str = "float32",
) -> Predictor:
    description = read_description(model)
    return Predictor(
        model.read_bytes(),
        description,
        np.dtype(dtype),
        precision,
        "cpu",
        average=average,
        probabilities=probabilities,
        refinement=refinement,
    )


def whole_pass(predictor: Predictor, plane: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    """The definition: one forward pass over one whole plane, mirrored by the halo.

    Args:
        predictor: the network.
        plane: (c, y, x).
        what: "labels", "logits" or "probabilities".
    """
    geometry = predictor.geometry
    height, width = plane.shape[-2:]
    legal = [round_up(size, geometry.alignment) - size for size in (height, width)]
    halo = geometry.halo
    mirrored = np.pad(
        plane, [(0, 0), (halo, halo + legal[0]), (halo, halo + legal[1])], mode="reflect"
    )
    if what == "probabilities":
        found = predictor.classify(mirrored).probabilities
        assert found is not None
        return found[..., :height, :width]
    return getattr(predictor, what)(mirrored)[..., :height, :width]


def mirrored(plane: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
    """A window of a plane (c, y, x), beyond the rim mirrored."""
    rows = mirrored_positions(window.y, window.y + window.height, plane.shape[-2])
    columns = mirrored_positions(window.x, window.x + window.width, plane.shape[-1])
    return plane[:, rows[:, None], columns[None, :]]


def whole_resampled_pass(
    predictor: Predictor, plane: npt.NDArray[Any], resampling: Resampling
) -> npt.NDArray[Any]:
    """The definition where no level fits: the whole plane resampled, one pass, labels brought back.

    Args:
        predictor: the network.
        plane: (c, y, x).
        resampling: with the step of the run.
    """
    side = max(plane.shape[-2:])
    square = Window(0, 0, side, side)
    pixels = mirrored(plane, square.grown(resampling.geometry.halo))
    labels = predictor.labels(resampling.shown(pixels, square))
    return resampling.on_level(labels, Window(0, 0, *plane.shape[-2:]))


def levels(labels: Path | RemotePath) -> list[npt.NDArray[Any]]:
    """The pixels of all levels of a label image, as any reader finds them."""
    group = zarr.open_group(zarr_store(labels), mode="r")
    datasets = dict(group.attrs)["ome"]["multiscales"][0]["datasets"]
    return [group[item["path"]][...] for item in datasets]


def equal(first: list[npt.NDArray[Any]], second: list[npt.NDArray[Any]]) -> bool:
    """Whether all levels are."""
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def upload(source: Path, target: RemotePath) -> RemotePath:
    """All files of a folder, as objects."""
    for file in source.rglob("*"):
        if file.is_file():
            put(target / file.relative_to(source).as_posix(), file.read_bytes())
    return target
