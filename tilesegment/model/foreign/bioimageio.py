"""bioimage.io models, formats 0.4 and 0.5: a description in YAML beside files of weights.

https://bioimage-io.github.io/spec-bioimage-io/ . Only what a segmentation by tiles needs is read;
everything else in a description is left alone, but no operation on pixels is ever skipped.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from tilesegment.config import ForeignOptions
from tilesegment.errors import ModelError
from tilesegment.model.foreign.choice import choose
from tilesegment.model.foreign.describing import Facts
from tilesegment.model.foreign.network import AXES, Opened, Run, RunError, answering
from tilesegment.model.foreign.onnx import open_onnx
from tilesegment.model.foreign.torch_file import open_torch_file
from tilesegment.model.preprocessing import (
    EPSILON,
    Clip,
    Scale,
    ScaleRange,
    Standardise,
    Step,
    measure_scales,
    measured,
    prepare,
)

DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml", "model.yaml")

_TOLERANCE = 1e-3
"""Of a test output, relative and absolute: the specification's default."""
_MICROMETRES = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3}


@dataclass(frozen=True)
class Operation:
    """One step of pre- or postprocessing, as described."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """The axes of a tensor."""

    axes: str
    """In their order: b, c, y, x."""
    size: int | None
    """Pixels per side where it is fixed."""
    halo: int = 0
    """Pixels per side."""
    channel_names: tuple[str, ...] = ()
    pixel_size_um: float | None = None


@dataclass(frozen=True)
class TensorFacts:
    """What a description says of an input or an output."""

    name: str
    layout: Layout
    operations: tuple[Operation, ...]
    """Between the image and the input, or the output and its meaning."""
    probabilities: bool
    """Whether its values are said to lie between 0 and 1."""
    test: Path | None
    """An example, as .npy."""


def find_description(folder: Path) -> Path:
    """The description in a folder.

    Raises:
        ModelError: if there is none.
    """
    for name in DESCRIPTIONS:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(
        f"{folder} holds no bioimage.io model: none of {', '.join(DESCRIPTIONS)} is there"
    )


def open_bioimageio(path: Path, options: ForeignOptions) -> tuple[Opened, Facts]:
    """The network that a description points to, and what it says of it.

    Raises:
        ModelError: if it cannot be run by tiles, or does not give its own test output.
    """
    described = _read(path)
    image = _only_input(described, path)
    outputs = [
        _tensor(entry, index, described, path, "test_outputs")
        for index, entry in enumerate(described["outputs"])
    ]
    output, channel = _choose_output(outputs, options.model_output, path)
    position = outputs.index(output) if len(outputs) > 1 else None
    opened = _open_weights(described, path, options.trust, position, image.layout.axes)
    opened = _changed(opened, output_axes=output.layout.axes, output_channel=channel)
    opened = _with_known_size(opened, image)
    steps = tuple(step for item in image.operations for step in _steps(item, path))
    _compare(opened, image, output, steps, path)
    names = (
        output.layout.channel_names if channel is None else (output.layout.channel_names[channel],)
    )
    return opened, Facts(
        preprocessing=steps,
        threshold=_threshold(output, path),
        class_names=names,
        pixel_size_um=image.layout.pixel_size_um,
        halo=output.layout.halo,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        described = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not YAML; copy it again") from error
    if (
        not isinstance(described, dict)
        or not described.get("inputs")
        or not described.get("outputs")
    ):
        raise ModelError(f"{path} describes no model: it has no inputs and outputs")
    version = str(described.get("format_version", ""))
    if not version.startswith(("0.4", "0.5")):
        raise ModelError(
            f"{path} has the bioimage.io format {version or 'none'}; 0.4 and 0.5 are read"
        )
    return described


def _only_input(described: Mapping[str, Any], path: Path) -> TensorFacts:
    inputs = described["inputs"]
    if len(inputs) != 1:
        raise ModelError(
            f"{path} describes {len(inputs)} inputs, a run has one, the image; use a model with one"
        )
    return _tensor(inputs[0], 0, described, path, "test_inputs")


def _tensor(
    entry: Mapping[str, Any], index: int, described: Mapping[str, Any], path: Path, tests: str
) -> TensorFacts:
    """An input or an output of either format."""
    name = str(entry.get("id") or entry.get("name"))
    if isinstance(entry["axes"], str):
        layout = _layout_of_format_4(entry)
        listed = described.get(tests) or []
        test = listed[index] if index < len(listed) else None
        values = entry.get("data_range")
    else:
        layout = _layout_of_format_5(entry["axes"])
        test = (entry.get("test_tensor") or {}).get("source")
        values = (entry.get("data") or {}).get("range")
    axes = layout.axes
    if set(axes) - set(AXES) or not {"y", "x"} <= set(axes):
        raise ModelError(
            f"the tensor {name} of {path} has the axes {', '.join(axes)}; a network that segments "
            "planes has y and x, and may have a batch and channels"
        )
    operations = entry.get("preprocessing") or entry.get("postprocessing") or []
    return TensorFacts(
        name=name,
        layout=layout,
        operations=tuple(
            Operation(item.get("id") or item["name"], item.get("kwargs") or {})
            for item in operations
        ),
        probabilities=values is not None and [float(end) for end in values] == [0, 1],
        test=path.parent / test if test else None,
    )


def _layout_of_format_4(entry: Mapping[str, Any]) -> Layout:
    """Axes are letters; sizes and halos are lists in their order."""
    axes, sizes = entry["axes"], entry.get("shape")
    size = None
    if isinstance(sizes, list) and "y" in axes and "x" in axes:
        size = _square(sizes[axes.index("y")], sizes[axes.index("x")])
    return Layout(axes, size, max(entry.get("halo") or [0]))


def _layout_of_format_5(axes: Sequence[Mapping[str, Any]]) -> Layout:
    letters = "".join(_letter(axis) for axis in axes)
    by_letter = dict(zip(letters, axes, strict=True))
    space = [by_letter.get("y", {}), by_letter.get("x", {})]
    names = by_letter.get("c", {}).get("channel_names")
    scales = {
        float(axis.get("scale", 1.0)) * _MICROMETRES[axis["unit"]]
        for axis in space
        if axis.get("unit") in _MICROMETRES
    }
    return Layout(
        axes=letters,
        size=_square(*(axis.get("size") for axis in space)),
        halo=max(int(axis.get("halo", 0)) for axis in space),
        channel_names=tuple(map(str, names)) if isinstance(names, list) else (),
        pixel_size_um=scales.pop() if len(scales) == 1 else None,
    )


def _letter(axis: Mapping[str, Any]) -> str:
    """b, c, y or x; the specification's default name of an axis of space is x."""
    if axis["type"] in ("batch", "channel"):
        return str(axis["type"])[0]
    return str(axis.get("id", "x" if axis["type"] == "space" else axis["type"]))[0]


def _square(height: Any, width: Any) -> int | None:
    return height if isinstance(height, int) and height == width else None


def _choose_output(
    outputs: Sequence[TensorFacts], wanted: str | None, path: Path
) -> tuple[TensorFacts, int | None]:
    """An output by its name, or one of its channels by the channel's."""
    for output in outputs:
        if wanted in output.layout.channel_names and len(output.layout.channel_names) > 1:
            return output, output.layout.channel_names.index(str(wanted))
    name = choose([output.name for output in outputs], wanted, str(path))
    output = next(output for output in outputs if output.name == name)
    independent = any(item.name == "sigmoid" for item in output.operations)
    if independent and len(output.layout.channel_names) > 1:
        raise ModelError(
            f"the channels of {path} ({', '.join(output.layout.channel_names)}) are independent "
            "probabilities, not classes; choose one with --model-output"
        )
    return output, None


def _open_weights(
    described: Mapping[str, Any],
    path: Path,
    trust: str | None,
    output: int | None,
    axes: str,
) -> Opened:
    """ONNX, which runs no code, where it is there; TorchScript where its hash is trusted."""
    weights = described.get("weights") or {}
    torchscript = "torchscript" in weights and (trust is not None or "onnx" not in weights)
    if torchscript:
        file = _weights_file(weights["torchscript"], path)
        return open_torch_file(file, trust, None if output is None else str(output), axes)
    if "onnx" not in weights or trust is not None:
        raise ModelError(
            f"{path} has weights as {', '.join(weights) or 'nothing'}; ONNX is needed, or "
            "TorchScript with --trust-model"
        )
    return open_onnx(_weights_file(weights["onnx"], path), output, axes)


def _weights_file(entry: Mapping[str, Any], path: Path) -> Path:
    """The file beside the description, if it has the hash that is described."""
    file = path.parent / str(entry["source"])
    if not file.is_file():
        raise ModelError(f"{path} names the weights {entry['source']}, which are not beside it")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if entry.get("sha256") not in (None, found):
        raise ModelError(
            f"{file} has the hash {found}, its description says {entry['sha256']}; it is damaged "
            "or another file: download the model again"
        )
    return file


def _with_known_size(opened: Opened, image: TensorFacts) -> Opened:
    """A described size is the only one where the file fixes it, or the network takes no other."""
    if opened.network.fixed_input is not None or image.layout.size is None:
        return opened
    run = opened.load()
    channels = opened.network.channels or max(len(image.layout.channel_names), 1)
    try:
        run(torch.zeros(1, channels, image.layout.size + 64, image.layout.size + 64))
    except RunError:
        return _changed(opened, fixed_input=image.layout.size)
    return opened


def _changed(opened: Opened, **changes: Any) -> Opened:
    return replace(opened, network=replace(opened.network, **changes))


def _steps(item: Operation, path: Path) -> list[Step]:
    """An operation as steps.

    Raises:
        ModelError: if it is not known.
    """
    arguments = item.arguments
    if item.name == "ensure_dtype" and str(arguments["dtype"]).startswith("float"):
        return []
    if item.name == "scale_linear":
        gain, offset = (
            _numbers(arguments.get(key, default)) for key, default in (("gain", 1), ("offset", 0))
        )
        return [
            Scale(spread=tuple(1 / number for number in gain)),
            Scale(centre=tuple(-number for number in offset)),
        ]
    if item.name == "clip":
        return [Clip(float(arguments.get("min", -math.inf)), float(arguments.get("max", math.inf)))]
    fixed = item.name == "fixed_zero_mean_unit_variance" or arguments.get("mode") == "fixed"
    epsilon = float(arguments.get("eps", EPSILON))
    if fixed and "mean" in arguments:
        return [Scale(_numbers(arguments["mean"]), _numbers(arguments["std"]))]
    per_channel = _per_channel(arguments.get("axes"))
    if item.name == "zero_mean_unit_variance" and not fixed:
        return [Standardise(per_channel, epsilon)]
    if item.name == "scale_range" and arguments.get("reference_tensor") is None:
        low, high = arguments.get("min_percentile", 0), arguments.get("max_percentile", 100)
        return [ScaleRange(float(low), float(high), per_channel, epsilon)]
    raise ModelError(
        f"{path} asks for the preprocessing {item.name} {dict(arguments) or ''}, which this "
        "version does not know; use a model without it"
    )


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(float(number) for number in np.atleast_1d(value))


def _per_channel(axes: Sequence[str] | str | None) -> bool:
    """Whether statistics are taken over y and x only; over all axes if none are named."""
    return axes is not None and "c" not in axes and "channel" not in axes


def _threshold(output: TensorFacts, path: Path) -> float | None:
    """Of the network's own output: where it is foreground; None if that is not described."""
    threshold = 0.5 if output.probabilities else None
    for item in reversed(output.operations):
        if item.name == "binarize":
            threshold = float(item.arguments["threshold"])
        elif item.name == "sigmoid":
            share = 0.5 if threshold is None else threshold
            threshold = math.log(share / (1 - share))
    return threshold


def _compare(
    opened: Opened, image: TensorFacts, output: TensorFacts, steps: Sequence[Step], path: Path
) -> None:
    """Refuse a network whose output for the description's test input is not its test output."""
    if image.test is None or output.test is None:
        return
    pixels, expected = (np.load(file) for file in (image.test, output.test))
    found = _apply(answering(opened.load()), pixels, image, steps)
    for item in output.operations:
        found = _postprocess(item, found, path)
    expected = _canonical(expected, output.layout.axes)
    channel = opened.network.output_channel
    if channel is not None:
        expected = expected[channel : channel + 1]
    if found.shape != expected.shape or not np.allclose(
        found, expected, rtol=_TOLERANCE, atol=_TOLERANCE
    ):
        difference = (
            f"differs by up to {np.abs(found - expected).max():.3g}"
            if found.shape == expected.shape
            else f"has the shape {found.shape} instead of {expected.shape}"
        )
        raise ModelError(
            f"{path} does not give its own test output: it {difference}; its weights or its "
            "preprocessing are not those of its description"
        )


def _apply(
    run: Run, pixels: npt.NDArray[Any], image: TensorFacts, steps: Sequence[Step]
) -> npt.NDArray[np.float32]:
    """The network's output for one whole example, normalised with its own statistics."""
    plane = _canonical(pixels, image.layout.axes)
    known = measured(steps, measure_scales(steps, lambda block: [block(plane)]))
    with torch.inference_mode():
        return run(torch.from_numpy(prepare(plane, known))[None])[0].numpy()


def _canonical(tensor: npt.NDArray[Any], axes: str) -> npt.NDArray[Any]:
    """An example in the order c, y, x."""
    present = [axis for axis in AXES if axis in axes]
    ordered = tensor.transpose([axes.index(axis) for axis in present])
    return ordered.reshape(-1, *ordered.shape[-2:])


def _postprocess(
    item: Operation, values: npt.NDArray[np.float32], path: Path
) -> npt.NDArray[np.float32]:
    """An operation on an output (c, y, x).

    Raises:
        ModelError: if it is not known.
    """
    operations: dict[str, Callable[[], torch.Tensor]] = {
        "sigmoid": lambda: torch.sigmoid(torch.from_numpy(values)),
        "softmax": lambda: torch.softmax(torch.from_numpy(values), dim=0),
        "binarize": lambda: torch.from_numpy(values) > float(item.arguments["threshold"]),
    }
    if item.name in operations:
        return operations[item.name]().float().numpy()
    return prepare(values, _steps(item, path))
