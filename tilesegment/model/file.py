"""The model file: one safetensors file, weights and a JSON description; never a pickle.

The description is the value of the key ``tilesegment`` in the metadata of the safetensors
header, so that everything but the weights can be read without loading torch.
"""

import hashlib
import io
import json
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from tilesegment.colours import RGB, class_colour
from tilesegment.config import Precision
from tilesegment.errors import ModelError, OptionError
from tilesegment.geometry import NetworkGeometry, unet_geometry

if TYPE_CHECKING:
    from tilesegment.model.preprocessing import Scale, Step
    from tilesegment.model.unet import UNet

FORMAT_VERSION = 1
LARGEST_VALUE = 65_535
"""Of a class: labels are stored in at most 16 bits."""
METADATA_KEY = "tilesegment"
Ranges = Mapping[str, tuple[float, float]]
"""Smallest and largest value of each feature map, see `tilesegment.model.quantise`."""
_LARGEST_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class LabelClass:
    """One class of a segmentation."""

    name: str
    value: int
    """What pixels of this class hold in the label volume."""
    colour: RGB


@dataclass(frozen=True)
class Normalisation:
    """Pixel values to network input: (value / largest - mean) / deviation, per channel.

    `largest` is the largest value of an integer type, and 1 for floats.
    """

    mean: tuple[float, ...] = (0.0,)
    """Per channel, or one for all."""
    deviation: tuple[float, ...] = (1.0,)
    """Per channel, or one for all."""


@dataclass(frozen=True, kw_only=True)
class Description(ABC):
    """What a run must know of any network, whoever made it."""

    classes: tuple[LabelClass, ...]
    """In the order of the network's output channels; background first if there is one channel."""
    pixel_size_um: float | None = None
    """Micrometres per pixel of the pictures it was trained on; None if unknown."""

    @property
    @abstractmethod
    def in_channels(self) -> int:
        """Channels of its input."""

    @property
    @abstractmethod
    def geometry(self) -> NetworkGeometry:
        """Border, alignment and legal sizes."""

    @property
    @abstractmethod
    def base_channels(self) -> int:
        """Feature channels at full resolution, for the estimate of memory."""

    @property
    def in_bands(self) -> bool:
        """Whether large inputs are computed in bands of rows, which takes less memory."""
        return False

    @property
    def fixed_input(self) -> int | None:
        """The only input size that it takes, pixels per side; None if it takes others."""
        return None

    @property
    def threshold(self) -> float:
        """Of an output with one channel: foreground is above it. 0 for logits."""
        return 0.0

    @property
    def gives_probabilities(self) -> bool:
        """Whether its output is probabilities, and not logits."""
        return False

    @property
    def whole_image_steps(self) -> "tuple[Step, ...]":
        """Its preprocessing, if that needs numbers of the whole image; else nothing."""
        return ()

    def with_scales(self, scales: "Iterable[Scale]") -> Self:
        """The same, with these numbers of the whole image, one for each step that needs some."""
        return self

    def precision(self, wanted: Precision) -> Precision:
        """The arithmetic to choose from.

        Raises:
            OptionError: if the network has no other than its own.
        """
        return wanted

    @property
    def label_dtype(self) -> np.dtype[np.unsignedinteger]:
        """The smallest unsigned type that holds every class value."""
        return np.dtype(np.min_scalar_type(max(item.value for item in self.classes)))

    def check_channels(self, channels: int, image: str) -> None:
        """Refuse an image whose channels the network cannot take.

        Raises:
            ModelError: naming both numbers.
        """
        if channels == self.in_channels:
            return
        how = "use a model that was trained on such images"
        if self.in_channels == 1:
            how += ", or give it a copy of the image in grey"
        raise ModelError(
            f"the model takes {self.in_channels} channel(s), {image} has {channels}; {how}"
        )


@dataclass(frozen=True, kw_only=True)
class ModelDescription(Description):
    """Everything in a model file but the weights."""

    arguments: Mapping[str, Any]
    """Keyword arguments of `tilesegment.model.unet.UNet`."""
    normalisation: Normalisation = field(default_factory=Normalisation)
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained: free JSON, for people."""
    ranges: Ranges = field(default_factory=dict)
    """For arithmetic in 8-bit integers; empty if they were not measured."""

    def precision(self, wanted: Precision) -> Precision:
        if wanted == "int8" and not self.ranges:
            raise OptionError(
                "the model does not say what its 8-bit integers stand for; measure it with "
                "`tilesegment calibrate MODEL IMAGE --output NEW.safetensors`, or leave out "
                "--precision int8"
            )
        return wanted

    @property
    def in_channels(self) -> int:
        return int(self.arguments["in_channels"])

    @property
    def base_channels(self) -> int:
        return int(self.arguments.get("base_channels", 64))

    @property
    def in_bands(self) -> bool:
        return True

    @property
    def geometry(self) -> NetworkGeometry:
        arguments = self.arguments
        return unet_geometry(
            arguments["depth"],
            arguments.get("padding", "valid"),
            arguments.get("upsampling", "transposed"),
        )


def describe_classes(
    outputs: int, classes: Sequence[LabelClass | str] | None = None
) -> tuple[LabelClass, ...]:
    """Classes of a network with `outputs` output channels; names become values 0, 1, 2, ...

    One output channel stands for two classes: background and foreground (sigmoid).

    Raises:
        ModelError: if their number does not fit the outputs.
    """
    expected = max(outputs, 2)
    if classes is None:
        classes = ["background", *(f"class {value}" for value in range(1, expected))]
    if len(classes) != expected:
        raise ModelError(
            f"got {len(classes)} classes for a network with {outputs} output channel(s); "
            f"name {expected} classes, background included"
        )
    described = tuple(
        item if isinstance(item, LabelClass) else LabelClass(item, value, class_colour(value))
        for value, item in enumerate(classes)
    )
    values = [item.value for item in described]
    if len(set(values)) < len(values) or not 0 <= min(values) <= max(values) <= LARGEST_VALUE:
        raise ModelError(
            f"the classes have the values {values}; give each its own, from 0 to {LARGEST_VALUE}"
        )
    return described


def _check_normalisation(normalisation: Normalisation, channels: int) -> Normalisation:
    for name, numbers in (
        ("means", normalisation.mean),
        ("deviations", normalisation.deviation),
    ):
        if len(numbers) not in (1, channels):
            raise ModelError(f"got {len(numbers)} {name} for {channels} channels; give 1 or all")
    if not all(deviation > 0 for deviation in normalisation.deviation):
        raise ModelError(f"deviations must be positive, got {normalisation.deviation}")
    return normalisation


def save_model(
    model: "UNet",
    path: str | Path,
    *,
    classes: Sequence[LabelClass | str] | None = None,
    normalisation: Normalisation | None = None,
    pixel_size_um: float | None = None,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Write the network's weights and description to `path` (``NAME.safetensors``).

    Args:
        model: the network.
        path: the file to write; replaced if it exists, and never half-written.
        classes: one per output channel (two for a single channel): names, or `LabelClass`.
        normalisation: how pixel values become network input; see `Normalisation`.
        pixel_size_um: micrometres per pixel of the training pictures.
        training: how it was trained, as JSON.

    Raises:
        ModelError: if the classes or the normalisation do not fit the network.
    """
    from safetensors.torch import save

    channels = int(model.arguments["in_channels"])
    normalisation = _check_normalisation(normalisation or Normalisation(), channels)
    description = {
        "format": FORMAT_VERSION,
        "architecture": "unet",
        "arguments": model.arguments,
        "classes": [
            {"name": item.name, "value": item.value, "colour": list(item.colour)}
            for item in describe_classes(int(model.arguments["classes"]), classes)
        ],
        "normalisation": {
            "mean": list(normalisation.mean),
            "deviation": list(normalisation.deviation),
        },
        "pixel_size_um": pixel_size_um,
        "training": dict(training or {}),
    }
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    return _write(Path(path), save(weights, {METADATA_KEY: json.dumps(description)}))


def save_with_ranges(content: bytes, ranges: Ranges, path: str | Path) -> Path:
    """Write a model file's content again, with these ranges of its feature maps.

    Args:
        content: bytes of a model file.
        ranges: see `tilesegment.model.quantise.measure_ranges`.
        path: the file to write; replaced if it exists, and never half-written.
    """
    from safetensors.torch import load, save

    header = _parse_header(io.BytesIO(content), len(content), "the model")
    description = json.loads(header["__metadata__"][METADATA_KEY])
    description["ranges"] = {name: list(limits) for name, limits in ranges.items()}
    return _write(Path(path), save(load(content), {METADATA_KEY: json.dumps(description)}))


def _write(path: Path, content: bytes) -> Path:
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(content)
    temporary.replace(path)
    return path


def read_description(path: str | Path) -> ModelDescription:
    """The description in a model file; reads the header only and does not load torch.

    Raises:
        ModelError: if the file is absent, truncated, or no tilesegment model.
    """
    path = Path(path)
    metadata = _read_header(path).get("__metadata__", {})
    if METADATA_KEY not in metadata:
        raise ModelError(
            f"{path} is a safetensors file without tilesegment's description; "
            "write it with tilesegment.save_model"
        )
    try:
        description = json.loads(metadata[METADATA_KEY])
        if description["format"] != FORMAT_VERSION:
            raise ModelError(
                f"{path} has model format {description['format']}, this version reads "
                f"{FORMAT_VERSION}; update tilesegment"
            )
        if description["architecture"] != "unet":
            raise ModelError(
                f"{path} holds the architecture {description['architecture']!r}, "
                "this version runs 'unet'; update tilesegment"
            )
        _refuse_giant(description["arguments"], path.stat().st_size, str(path))
        return ModelDescription(
            arguments=description["arguments"],
            classes=tuple(
                LabelClass(item["name"], int(item["value"]), tuple(item["colour"]))
                for item in description["classes"]
            ),
            normalisation=Normalisation(
                tuple(description["normalisation"]["mean"]),
                tuple(description["normalisation"]["deviation"]),
            ),
            pixel_size_um=description["pixel_size_um"],
            training=description["training"],
            ranges=_read_ranges(description.get("ranges", {}), description["arguments"]["depth"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} has a damaged description ({error}); export it again") from error


def _read_ranges(given: Mapping[str, Any], depth: int) -> Ranges:
    """The ranges of a model that was calibrated; none of one that was not.

    Raises:
        ValueError: if one is missing, or no range.
    """
    ranges = {name: (float(low), float(high)) for name, (low, high) in given.items()}
    convolved = [("contracting", level) for level in range(depth + 1)]
    convolved += [("expansive", level) for level in range(depth)]
    maps = {f"{path}.{level}.{index}" for path, level in convolved for index in (0, 1)}
    maps |= {f"up.{level}" for level in range(depth)}
    if ranges and ranges.keys() != maps:
        raise ValueError("its ranges are not those of its feature maps")
    if not all(-math.inf < low <= high < math.inf for low, high in ranges.values()):
        raise ValueError("a range of its feature maps is none")
    return ranges


def load_model(path: str | Path) -> "UNet":
    """The network in a model file, in evaluation mode.

    Raises:
        ModelError: if the file is absent, truncated, no tilesegment model, or its weights do
            not fit its description.
    """
    path = Path(path)
    read_description(path)
    return load_model_bytes(path.read_bytes(), str(path))


def load_model_bytes(content: bytes, name: str) -> "UNet":
    """The network in the bytes of a model file; `name` is for messages."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from tilesegment.model.unet import UNet

    header = _parse_header(io.BytesIO(content), len(content), name)
    arguments = json.loads(header["__metadata__"][METADATA_KEY])["arguments"]
    try:
        network = UNet(**arguments)
        network.load_state_dict(load(content))
    except (SafetensorError, RuntimeError, TypeError) as error:
        first_line = str(error).splitlines()[0]
        raise ModelError(
            f"the weights in {name} do not fit its description ({first_line})"
        ) from error
    return network.eval()


def _refuse_giant(arguments: Mapping[str, Any], size: int, name: str) -> None:
    """Refuse a description of a network that is larger than its file, before it is built.

    Raises:
        ModelError: if the deepest convolution alone has more weights than the file has bytes.
    """
    widest = int(arguments.get("base_channels", 64)) * 2 ** min(int(arguments["depth"]), 64)
    outer = max(int(arguments["in_channels"]), int(arguments["classes"]))
    if max(9 * widest**2, outer) > size:
        raise ModelError(
            f"{name} describes a network that is larger than the file; export it again"
        )


def model_hash(path: str | Path) -> str:
    """SHA-256 of the model file, as ``sha256:…``."""
    with Path(path).open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def content_hash(content: bytes) -> str:
    """SHA-256 of a file's content, as ``sha256:…``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return _parse_header(file, path.stat().st_size, str(path))
    except OSError as error:
        raise ModelError(
            f"cannot read the model {path}: {error.strerror}; `tilesegment models` lists the "
            "bundled ones"
        ) from error


def _parse_header(file: IO[bytes], size: int, name: str) -> dict[str, Any]:
    """The JSON header of a safetensors file: 8 bytes length, the JSON, then the tensors."""
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= _LARGEST_HEADER_BYTES:
        raise ModelError(_other_kind(name))
    text = file.read(length)
    if len(text) < length:
        raise ModelError(_truncated(name) if text[:1] == b"{" else _other_kind(name))
    try:
        header: dict[str, Any] = json.loads(text)
        needed = 8 + length + max(_tensor_ends(header.values()), default=0)
        header.setdefault("__metadata__", {}).get(METADATA_KEY)
    except (ValueError, RecursionError) as error:
        raise ModelError(_other_kind(name)) from error
    # What a stranger wrote may be any JSON.
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ModelError(f"{name} has a damaged header ({error}); export it again") from error
    if size < needed:
        raise ModelError(_truncated(name, f"{size} of {needed} bytes"))
    return header


def _tensor_ends(entries: Iterable[Any]) -> Iterable[int]:
    return (entry["data_offsets"][1] for entry in entries if "data_offsets" in entry)


def _other_kind(name: str) -> str:
    return f"{name} is not a safetensors file; a model is written by tilesegment.save_model"


def _truncated(name: str, how: str = "its header is cut") -> str:
    return f"the model {name} is truncated ({how}); copy it again"
