"""ONNX through onnxruntime: runs no code of the file's author."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilesegment.errors import ModelError
from tilesegment.model.foreign.choice import choose
from tilesegment.model.foreign.network import AXES, ForeignNetwork, Opened, Run, RunError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class OnnxLoader:
    """Makes a session of the bytes of an ONNX file."""

    input: str
    """Name of the input."""
    output: str
    """Name of the output that is used."""

    def load(self, content: bytes, device: str) -> Run:
        session = _session(content, device, "the model")

        def run(image: Tensor) -> Tensor:
            try:
                (output,) = session.run([self.output], {self.input: image.cpu().numpy()})
            except _errors() as error:
                raise RunError(_first_line(error)) from error
            return torch.from_numpy(output).to(image.device)

        return run


def open_onnx(path: Path, output: str | int | None, input_axes: str = AXES) -> Opened:
    """An ONNX file, its input sizes, and one of its outputs.

    Args:
        path: the file.
        output: name or position of the output; None if there is one only.
        input_axes: order of the input's axes.

    Raises:
        ModelError: if onnxruntime is missing or cannot run the file, or it has several inputs.
    """
    content = path.read_bytes()
    session = _session(content, "cpu", str(path))
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs)
        raise ModelError(
            f"{path} takes {len(inputs)} inputs ({names}), a run has one, the image; export the "
            "network with the others as constants"
        )
    (image,) = inputs
    if image.type != "tensor(float)":
        raise ModelError(
            f"{path} takes {image.type}, tensor(float) is needed; export it in float32"
        )
    if len(image.shape) != len(input_axes):
        raise ModelError(
            f"{path} takes an input of the shape {image.shape}; a network for images takes the "
            f"axes {', '.join(input_axes)}"
        )
    output_names = [item.name for item in outputs]
    wanted = output_names[output] if isinstance(output, int) else output
    sizes = dict(zip(input_axes, image.shape, strict=True))
    channels = sizes.get("c", 1)
    network = ForeignNetwork(
        OnnxLoader(image.name, choose(output_names, wanted, str(path))),
        channels=channels if isinstance(channels, int) else None,
        fixed_input=_fixed_size(sizes["y"], sizes["x"], path),
        input_axes=input_axes,
    )
    return Opened(content, network)


def _fixed_size(height: int | str | None, width: int | str | None, path: Path) -> int | None:
    """Pixels per side of an input of fixed size; sizes that are not fixed have a name, or none."""
    fixed = [size for size in (height, width) if isinstance(size, int)]
    if not fixed:
        return None
    if height != width:
        raise ModelError(
            f"{path} takes inputs of {height} x {width} pixels; tiles are square: export it with "
            "dynamic sizes, or as many rows as columns"
        )
    return fixed[0]


def _session(content: bytes, device: str, name: str) -> "InferenceSession":
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "networks in ONNX need onnxruntime; install it: pip install 'tilesegment[onnx]'"
        ) from error
    provider = _PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise ModelError(
            "this onnxruntime cannot use the GPU; install onnxruntime-gpu, or use --cluster cpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Threads that wait for work would take the cores of those that read and write.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(content, options, providers=[provider])
    except _errors() as error:
        raise ModelError(f"onnxruntime cannot load {name}: {_first_line(error)}") from error


def _errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; they have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf,
        state.NotImplemented, state.RuntimeException, state.EPFail,
    )  # fmt: skip


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
