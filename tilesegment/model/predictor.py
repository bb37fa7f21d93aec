"""A haloed tile in, labels out: the only place where pixels meet the network."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilesegment.config import Precision
from tilesegment.errors import InputError, OptionError
from tilesegment.model.file import Description, ModelDescription, load_model_bytes
from tilesegment.model.foreign.network import ForeignDescription, load_foreign
from tilesegment.model.fuse import can_fuse, fuse

Device = Literal["cpu", "cuda"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_precision(precision: Precision, device: Device) -> str:
    """The arithmetic for "auto": the narrowest that the device computes natively.

    On a CPU that is bfloat16 where it has instructions for it, on a GPU bfloat16 from the
    Ampere generation on and float16 before.

    Raises:
        OptionError: if the device cannot compute in the precision that was asked for.
    """
    if device == "cpu" and precision in ("bfloat16", "float16") and not _computes(precision):
        raise OptionError(
            f"this CPU cannot compute in {precision}; use --precision float32, or auto"
        )
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def _computes(precision: str) -> bool:
    """Whether oneDNN has convolutions of this precision for this CPU."""
    if precision == "bfloat16":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


Logits = Callable[[npt.NDArray[Any]], Tensor]
"""A network with its normalisation: (c, y, x) in the image's dtype to (outputs, y', x') logits."""


class Predictor:
    """A loaded network, ready for tiles of one kind of image.

    Args:
        content: bytes of the model file.
        description: what is known of it, see `tilesegment.model.opening.open_model`.
        pixels: dtype of the image.
        precision: float32, bfloat16 or float16.
        device: where the network runs.
    """

    def __init__(
        self,
        content: bytes,
        description: Description,
        pixels: np.dtype[Any],
        precision: str,
        device: Device,
    ) -> None:
        if device == "cuda":
            # Another algorithm for each call would sum in another order.
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False
            # Otherwise float32 would be computed with the mantissa of TF32.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        self.geometry = description.geometry
        self._threshold = description.threshold
        self._run: Logits
        if isinstance(description, ForeignDescription):
            self._run = load_foreign(content, description, device)
        else:
            assert isinstance(description, ModelDescription)  # noqa: S101 - there are two kinds
            self._run = _OwnNetwork(content, description, pixels, precision, device)
        self._values = np.array(
            [item.value for item in description.classes], description.label_dtype
        )

    def logits(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The network's output for one tile.

        Args:
            pixels: (c, tile + 2 * halo, tile + 2 * halo), in the image's dtype.

        Returns:
            (output channels, tile, tile), float32.
        """
        with torch.inference_mode():
            return self._forward(pixels).float().cpu().numpy()

    def labels(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.unsignedinteger]:
        """The class of each pixel of one tile: the largest logit, the first of equals.

        Args:
            pixels: (c, tile + 2 * halo, tile + 2 * halo), in the image's dtype.

        Returns:
            (tile, tile), the classes' values, unsigned integer.

        Raises:
            InputError: if the network's output is not finite.
            ModelError: if a foreign network fails, or its output has another size than measured.
        """
        with torch.inference_mode():
            logits = self._forward(pixels)
            if not torch.isfinite(logits).all():
                raise InputError(
                    "the network's output is not finite here; the pixels are too large for it, "
                    "or it needs --precision float32"
                )
            winner = self._winner(logits).to(
                torch.uint8 if len(self._values) < 256 else torch.int32
            )
            labels: npt.NDArray[np.unsignedinteger] = self._values[winner.cpu().numpy()]
            return labels

    def _winner(self, logits: Tensor) -> Tensor:
        """Index of the class: one output channel is the foreground's, above a threshold."""
        if logits.shape[0] == 1:
            return logits[0] > self._threshold
        if logits.shape[0] == 2:
            return logits[1] > logits[0]
        return logits.argmax(dim=0)

    def _forward(self, pixels: npt.NDArray[Any]) -> Tensor:
        """Logits of the tile alone."""
        logits = self._run(pixels)
        crop, halo = self.geometry.crop, self.geometry.halo
        height, width = (size - 2 * halo for size in pixels.shape[-2:])
        return logits[:, crop : crop + height, crop : crop + width]


class _OwnNetwork:
    """The U-Net of a model file."""

    def __init__(
        self,
        content: bytes,
        description: ModelDescription,
        pixels: np.dtype[Any],
        precision: str,
        device: Device,
    ) -> None:
        network = load_model_bytes(content, "the model")
        self.dtype = _DTYPES[precision]
        self.device = torch.device(device)
        network.to(self.dtype)
        with torch.no_grad():
            if device == "cpu" and can_fuse():
                network = fuse(network)
        self.network = network.to(self.device).to(  # type: ignore[call-overload]
            memory_format=torch.channels_last
        )
        self._scale, self._offset = _affine(description, pixels, self.device)

    def __call__(self, pixels: npt.NDArray[Any]) -> Tensor:
        image = torch.from_numpy(_as_torch_can(pixels))[None].to(self.device)
        image = image.to(torch.float32).mul_(self._scale).add_(self._offset)
        image = image.to(self.dtype).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(image)[0]
        return logits


def _affine(
    description: ModelDescription, pixels: np.dtype[Any], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Factor and summand per channel that turn pixel values into the network's input."""
    largest = 1.0 if pixels.kind == "f" else float(np.iinfo(pixels).max)
    normalisation = description.normalisation
    deviation = torch.tensor(normalisation.deviation, dtype=torch.float64)
    mean = torch.tensor(normalisation.mean, dtype=torch.float64)
    scale, offset = 1 / (largest * deviation), -mean / deviation
    return (
        scale.float().reshape(-1, 1, 1).to(device),
        offset.float().reshape(-1, 1, 1).to(device),
    )


def _as_torch_can(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Contiguous, of a type and byte order that torch has."""
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if native.dtype in (np.uint32, np.uint64):
        native = native.astype(np.float32)
    return np.ascontiguousarray(native)
