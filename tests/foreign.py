"""Small foreign networks for tests, in every kind of file."""

import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tilesegment.model.unet import UNet


def small_unet(in_channels: int = 1, classes: int = 1, seed: int = 0, **arguments: Any) -> UNet:
    torch.manual_seed(seed)
    arguments = {"base_channels": 3, "depth": 1, "padding": "same", **arguments}
    return UNet(in_channels, classes, **arguments).eval()


def write_onnx(network: nn.Module, path: Path, *, size: int, channels: int, fixed: bool) -> Path:
    """The network with an input of a fixed size, or of any."""
    free = {} if fixed else {"image": {2: "h", 3: "w"}, "logits": {2: "h", 3: "w"}}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(1, channels, size, size),), buffer, dynamo=False,
            input_names=["image"], output_names=["logits"], dynamic_axes=free, opset_version=17,
        )  # fmt: skip
    path.write_bytes(buffer.getvalue())
    return path


def write_torchscript(network: nn.Module, path: Path, example: torch.Tensor | None = None) -> Path:
    """The network as scripted, or as traced with an example of its input."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(network) if example is None else torch.jit.trace(network, example)
        script.save(path)
    return path


def write_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, Any] | None = None,
    *,
    shape: Sequence[int | str] = (1, 1, "h", "w"),
    inputs: Sequence[str] = ("image",),
    outputs: Sequence[str] = ("logits",),
    output_type: int = TensorProto.FLOAT,
    opset: int = 17,
) -> Path:
    """An ONNX file with these nodes."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info(name, output_type, None) for name in outputs],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in (weights or {}).items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_bioimageio(folder: Path, network: nn.Module, size: int, **changes: Any) -> Path:
    """A folder of format 0.5: one channel in, standardised; one channel out, a sigmoid.

    Args:
        folder: to be made.
        network: with one input and one output channel and "same" padding.
        size: of the test tensors.
        changes: of the description.
    """
    folder.mkdir()
    write_onnx(network, folder / "weights.onnx", size=size, channels=1, fixed=False)
    pixels = np.random.default_rng(0).integers(0, 4000, (1, 1, size, size)).astype(np.float32)
    wide = pixels.astype(np.float64)
    standard = ((wide - wide.mean()) / (wide.std() + 1e-6)).astype(np.float32)
    with torch.inference_mode():
        probabilities = torch.sigmoid(network(torch.from_numpy(standard))).numpy()
    np.save(folder / "in.npy", pixels)
    np.save(folder / "out.npy", probabilities)
    space = [{"type": "space", "id": axis, "size": {"min": 4, "step": 2}} for axis in "yx"]
    description = {
        "format_version": "0.5.4",
        "type": "model",
        "inputs": [
            {
                "id": "raw",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["a"]}, *space],
                "test_tensor": {"source": "in.npy"},
                "preprocessing": [
                    {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
                    {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["x", "y"]}},
                ],
            }
        ],
        "outputs": [
            {
                "id": "probability",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["nucleus"]},
                    *({**axis, "halo": 2} for axis in space),
                ],
                "test_tensor": {"source": "out.npy"},
                "postprocessing": [{"id": "sigmoid"}],
            }
        ],
        "weights": {"onnx": {"source": "weights.onnx", "sha256": sha256(folder / "weights.onnx")}},
        **changes,
    }
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description))
    return folder
