"""Things that can be wrong with a foreign network, each told in one line."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save
from torch import Tensor, nn

from tests.foreign import sha256, write_graph, write_torchscript
from tests.pictures import random_pixels
from tilesegment.config import ForeignOptions
from tilesegment.errors import InputError, ModelError, TilesegmentError
from tilesegment.geometry import NetworkGeometry
from tilesegment.model.foreign.factory import read_weights
from tilesegment.model.opening import open_model
from tilesegment.model.predictor import Predictor

LOGITS = ForeignOptions(threshold=0)


class OnGpu(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image + torch.ones(1, device="cuda")


class FixedOutput(nn.Module):
    """Gives the size it was exported with, whatever it is given."""

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :, :40, :40]


class Evil:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.witness,)


def node(kind: str, *inputs: str, **attributes: object) -> object:
    return helper.make_node(kind, inputs, ["logits"], **attributes)


def wrong_opset(folder: Path) -> None:
    open_model(write_graph(folder / "m.onnx", [node("Relu", "image")], opset=99), LOGITS)


def missing_file(folder: Path) -> None:
    open_model(folder / "m.onnx")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "m.onnx")
    open_model(folder / "m.onnx")


def wrong_hash(folder: Path) -> None:
    path = write_torchscript(nn.Identity(), folder / "m.pt")
    open_model(path, ForeignOptions(trust="sha256:0123"))


def code_in_a_pickle(folder: Path) -> None:
    (folder / "w.pt").write_bytes(pickle.dumps(Evil(folder / "witness")))
    open_model("tests.foreign:small_unet", ForeignOptions(weights=str(folder / "w.pt")))


def wrong_channels(folder: Path) -> None:
    weights = {"w": np.ones((1, 1, 3, 3), np.float32)}
    nodes = [node("Conv", "image", "w", pads=[1] * 4)]
    model = open_model(write_graph(folder / "m.onnx", nodes, weights), LOGITS)
    model.description.check_channels(3, "slide.zarr")


def output_of_another_size(folder: Path) -> None:
    path = write_torchscript(FixedOutput(), folder / "m.pt")
    model = open_model(path, ForeignOptions(trust=f"sha256:{sha256(path)}", threshold=0))
    pixels = np.zeros((1, 64, 64), np.float32)
    Predictor(model.content, model.description, pixels.dtype, "float32", "cpu").labels(pixels)


def nan_output(folder: Path) -> None:
    """Only beyond the values that it was tried with."""
    model = open_model(write_graph(folder / "m.onnx", [node("Sqrt", "image")]), LOGITS)
    pixels = -random_pixels((1, 32, 32), "float32")
    Predictor(model.content, model.description, pixels.dtype, "float32", "cpu").labels(pixels)


def integer_output(folder: Path) -> None:
    nodes = [node("ArgMax", "image", axis=1)]
    open_model(write_graph(folder / "m.onnx", nodes, output_type=TensorProto.INT64), LOGITS)


def no_spatial_axes(folder: Path) -> None:
    nodes = [node("ReduceMean", "image", axes=[2, 3], keepdims=0)]
    open_model(write_graph(folder / "m.onnx", nodes), LOGITS)


def needs_a_gpu(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    path = write_torchscript(OnGpu(), folder / "m.pt")
    open_model(path, ForeignOptions(trust=f"sha256:{sha256(path)}", threshold=0))


FAULTS: list[tuple[Callable[[Path], None], type[TilesegmentError], str]] = [
    (wrong_opset, ModelError, "onnxruntime cannot load .*m.onnx: .*[Oo]pset"),
    (missing_file, ModelError, "there is no model .*m.onnx"),
    (pipe, ModelError, "there is no model .*m.onnx"),
    (wrong_hash, ModelError, "has the hash sha256:.*, --trust-model names sha256:0123"),
    (code_in_a_pickle, ModelError, "hold more than tensors, or are damaged, and were not loaded"),
    (wrong_channels, ModelError, r"takes 1 channel\(s\), slide.zarr has 3; .* copy .* in grey"),
    (output_of_another_size, ModelError, r"gives \(40, 40\) pixels for \(64, 64\)"),
    (nan_output, InputError, "the network's output is not finite here"),
    (integer_output, ModelError, "holds integers .*, labels already; export it without"),
    (no_spatial_axes, ModelError, "without an axis for each of b, c, y, x: it does not segment"),
    (needs_a_gpu, ModelError, "fails on an input of .* on the cpu: .*if it was exported on a GPU"),
]


@pytest.mark.parametrize(
    ("fault", "kind", "message"), FAULTS, ids=[fault.__name__ for fault, _, _ in FAULTS]
)
def test_a_fault_is_one_clear_line(
    fault: Callable[[Path], None],
    kind: type[TilesegmentError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "tilesegment.model.foreign.describing.find_geometry",
        lambda *_: NetworkGeometry(border=1, alignment=1, loss=0, residue=0),
    )
    with pytest.raises(kind, match=message) as caught:
        fault(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("header", range(64, 168, 8))
def test_weights_are_safetensors_whatever_the_length_of_their_header(header: int) -> None:
    """The first byte of a file is the length's lowest: at 128 it is that of a pickle."""
    plain = save({"w": torch.zeros(1)})
    length = int.from_bytes(plain[:8], "little")
    padded = plain[8 : 8 + length].rstrip().ljust(header)
    content = len(padded).to_bytes(8, "little") + padded + plain[8 + length :]
    assert read_weights(content)["w"] == 0
