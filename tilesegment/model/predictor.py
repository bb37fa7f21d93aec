"""A haloed tile in, labels out: the only place where pixels meet the network."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import exp
from threading import Lock
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilesegment.blending import Blend
from tilesegment.config import Precision
from tilesegment.errors import InputError, OptionError
from tilesegment.model.banded import BandedUNet
from tilesegment.model.blend import BlendedNetwork
from tilesegment.model.file import Description, ModelDescription, load_model_bytes
from tilesegment.model.foreign.network import ForeignDescription, load_foreign
from tilesegment.model.fuse import can_fuse, fold, fuse
from tilesegment.model.loaded import Loaded
from tilesegment.model.probabilities import as_stored, probabilities_of
from tilesegment.model.quantise import can_quantise, quantise
from tilesegment.model.refine import choose, inner, refine
from tilesegment.model.transfers import Transfers
from tilesegment.model.views import VIEWS
from tilesegment.refinement import Refinement

Device = Literal["cpu", "cuda"]

_LARGE_ON_GPU, _BAND_ON_GPU = 2**29, 2**28
"""Values of a map that a GPU computes in bands, and of a band: it keeps the GPU busy, and two maps
joined have fewer than 2**31 values, beyond which cuDNN has few convolutions, and slow ones."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_precision(precision: Precision, device: Device) -> str:
    """The arithmetic for "auto": the narrowest that the device computes natively.

    On a CPU that is bfloat16 where it has instructions for it, on a GPU bfloat16 from the
    Ampere generation on and float16 before.

    Raises:
        OptionError: if the device cannot compute in the precision that was asked for.
    """
    if device == "cuda" and precision == "int8":
        raise OptionError("8-bit integers are for CPUs; use --precision auto on a GPU")
    if device == "cpu" and not _computes(precision):
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
    if precision == "float16":
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return precision != "int8" or can_quantise()


Waiting = Callable[[], AbstractContextManager[None]]
"""What is done while a thread waits for its turn."""
Logits = Callable[[npt.NDArray[Any]], Tensor]
"""A network with its normalisation: (c, y, x) in the image's dtype to (outputs, y', x') logits."""


@dataclass(frozen=True)
class TileClasses:
    """What is known of the pixels of a tile."""

    labels: npt.NDArray[np.unsignedinteger]
    """(tile, tile), the classes' values."""
    probabilities: npt.NDArray[np.uint8] | None
    """(classes, tile, tile), 255 times the probability; None where they are not wanted."""
    seconds: float = 0.0
    """That the device was busy with them; a CPU prepares the pixels, too."""


class Predictor:
    """A loaded network, ready for tiles of one kind of image.

    Several threads may call it; the device computes for one at a time.

    Args:
        content: bytes of the model file.
        description: what is known of it, see `tilesegment.model.opening.open_model`.
        pixels: dtype of the image.
        precision: float32, bfloat16, float16 or int8.
        device: where the network runs.
        blend: the windows that it is shown of each tile; None: the tile at once.
        average: over how many of `VIEWS` the logits are averaged.
        probabilities: whether probabilities are wanted, too.
        refinement: what is done with probabilities before they become labels.
    """

    def __init__(
        self,
        content: bytes,
        description: Description,
        pixels: np.dtype[Any],
        precision: str,
        device: Device,
        blend: Blend | None = None,
        average: int = 1,
        probabilities: bool = False,
        refinement: Refinement | None = None,
    ) -> None:
        if device == "cuda":
            # Another algorithm for each call would sum in another order.
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False
            # Otherwise float32 would be computed with the mantissa of TF32.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        self._network = description.geometry
        self._threshold = description.threshold
        self._gives_probabilities = description.gives_probabilities
        self._wants_probabilities = probabilities
        self._views = VIEWS[:average]
        loaded = _load(content, description, pixels, precision, device, blend is None)
        self._on_host, self._prepare = loaded.on_host, loaded.prepare
        self._run, self._crop = loaded.run, loaded.crop
        self.device: Device = device
        self._transfers, self._turns = Transfers(device), Lock()
        self.tiles_at_once = self._transfers.tiles_at_once
        if blend is not None:
            self._network, self._crop = blend.geometry, blend.geometry.crop
            self._run = BlendedNetwork(loaded.run, blend, torch.device(device))
        self._refinement = refinement or Refinement()
        self._margin = self._refinement.margin(self._network)
        self.geometry = self._refinement.geometry(self._network)
        self._largest = 1.0 if pixels.kind == "f" else float(np.iinfo(pixels).max)
        self._values = np.array(
            [item.value for item in description.classes], description.label_dtype
        )
        self._values_are_indices = bool((self._values == np.arange(len(self._values))).all())

    def logits(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The network's output for one tile.

        Args:
            pixels: (c, tile + 2 * halo, tile + 2 * halo), in the image's dtype.

        Returns:
            (output channels, tile, tile), float32.
        """
        with torch.inference_mode():
            image = self._transfers.to_device(self._on_host(pixels))
            with self._turn():
                return inner(self._forward(image), self._margin).float().cpu().numpy()

    def labels(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.unsignedinteger]:
        """The class of each pixel of one tile, see `classify`: (tile, tile)."""
        return self.classify(pixels).labels

    def classify(self, pixels: npt.NDArray[Any], waiting: Waiting = nullcontext) -> TileClasses:
        """The class of each pixel of one tile: the largest logit, the first of equals.

        With refinement it is the largest refined probability, or what the thresholds say.

        Args:
            pixels: (c, tile + 2 * halo, tile + 2 * halo), in the image's dtype.
            waiting: entered while another thread has the device.

        Raises:
            InputError: if the network's output is not finite.
            ModelError: if a foreign network fails, or its output has another size than measured.
        """
        with torch.inference_mode():
            started = time.perf_counter()
            image = self._transfers.to_device(self._on_host(pixels))
            colours = self._colours(pixels)
            with self._turn(waiting):
                if self.tiles_at_once > 1:
                    started = time.perf_counter()
                winner, stored = self._compute(image, colours)
            seconds = time.perf_counter() - started
            return TileClasses(
                self._labels(self._transfers.to_host(winner)),
                None if stored is None else self._transfers.to_host(stored),
                seconds,
            )

    def _labels(self, winner: npt.NDArray[Any]) -> npt.NDArray[np.unsignedinteger]:
        """Values of the classes of these indices."""
        if self._values_are_indices:
            return winner.astype(self._values.dtype, copy=False)
        found: npt.NDArray[np.unsignedinteger] = self._values[winner]
        return found

    def _colours(self, pixels: npt.NDArray[Any]) -> Tensor | None:
        """The tile with its margin, on the device, as far as the refinement looks at it."""
        if self._refinement == Refinement():
            return None
        around = np.ascontiguousarray(_as_torch_can(inner(pixels, self._network.halo)))
        return self._transfers.to_device(torch.from_numpy(around))

    @contextmanager
    def _turn(self, waiting: Waiting = nullcontext) -> Iterator[None]:
        """The device is this thread's, and has done all it was given when the block ends."""
        with waiting():
            self._turns.acquire()
        try:
            try:
                yield
            finally:
                self._transfers.finish()
        finally:
            self._turns.release()

    def _compute(self, image: Tensor, colours: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Index of each pixel's class, and the probabilities as they are stored if wanted."""
        logits = self._forward(image)
        if not torch.isfinite(logits).all():
            raise InputError(
                "the network's output is not finite here; the pixels are too large for it, "
                "or it needs --precision float32"
            )
        probabilities: Tensor | None = None
        if colours is not None:
            probabilities = self._refined(logits, colours)
            winner = choose(probabilities, self._thresholds(len(logits)))
        else:
            winner = self._winner(logits)
            if self._wants_probabilities:
                probabilities = probabilities_of(logits, self._gives_probabilities)
        winner = winner.to(torch.uint8 if len(self._values) < 256 else torch.int32)
        if probabilities is None or not self._wants_probabilities:
            return winner, None
        return winner, as_stored(probabilities)

    def _refined(self, logits: Tensor, colours: Tensor) -> Tensor:
        """Refined probabilities of the tile alone, from output and pixels with the margin."""
        probabilities = probabilities_of(logits, self._gives_probabilities)
        colours = colours.to(torch.float32).div(self._largest)
        refined = refine(probabilities, colours, self._refinement)
        return inner(refined, self._margin - self._refinement.border)

    def _thresholds(self, outputs: int) -> tuple[tuple[int, float], ...]:
        """The user's; or that of the network's only output channel, as a probability."""
        if self._refinement.thresholds or outputs > 1 or self._threshold == 0:
            return self._refinement.thresholds
        given = self._gives_probabilities
        return ((1, self._threshold if given else 1 / (1 + exp(-self._threshold))),)

    def _winner(self, logits: Tensor) -> Tensor:
        """Index of the class: one output channel is the foreground's, above a threshold."""
        if logits.shape[0] == 1:
            return logits[0] > self._threshold
        if logits.shape[0] == 2:
            return logits[1] > logits[0]
        return logits.argmax(dim=0)

    def _forward(self, image: Tensor) -> Tensor:
        """Logits of the tile and its margin: the mean over the views, summed in one order.

        Args:
            image: pixels as they came to the device.
        """
        image = self._prepare(image)
        total: Tensor | None = None
        for view in self._views:
            seen = view.apply(image)
            output = view.undo(self._tile(self._run(seen), seen))
            total = output if total is None else total.add_(output)
        assert total is not None  # noqa: S101 - there is at least one view
        return (total if len(self._views) == 1 else total.div_(len(self._views)))[0]

    def _tile(self, output: Tensor, seen: Tensor) -> Tensor:
        """Without what the network's output has beyond the part that it has `seen` with halo."""
        crop, both_halos = self._crop, 2 * self._network.halo
        height, width = (size - both_halos for size in seen.shape[-2:])
        return output[..., crop : crop + height, crop : crop + width]


def _load(
    content: bytes,
    description: Description,
    pixels: np.dtype[Any],
    precision: str,
    device: Device,
    tile_only: bool,
) -> Loaded:
    """The network; with `tile_only` it may leave out what lies around the tile in its output."""
    if isinstance(description, ForeignDescription):
        return load_foreign(content, description, device)
    assert isinstance(description, ModelDescription)  # noqa: S101 - there are two kinds
    return _load_own(content, description, pixels, precision, device, tile_only)


def _load_own(
    content: bytes,
    description: ModelDescription,
    pixels: np.dtype[Any],
    precision: str,
    device: Device,
    tile_only: bool,
) -> Loaded:
    """The U-Net of a model file."""
    unet = load_model_bytes(content, "the model")
    scale, offset = input_affine(description, pixels, torch.device(device))
    is_integer = precision == "int8"
    dtype = torch.float32 if is_integer else _DTYPES[precision]
    crop = unet.geometry.crop
    with torch.no_grad():
        margin = crop if tile_only and unet.geometry.loss == 0 else 0
        crop -= margin
        if device == "cpu" and can_fuse():
            unet = unet.to(dtype)
            fused = quantise(unet, description.ranges, scale, offset) if is_integer else fuse(unet)
            network = BandedUNet(fused, margin)
        elif device == "cpu":
            network = BandedUNet(fold(unet).to(dtype), margin)
        else:
            large, band = _LARGE_ON_GPU * dtype.itemsize, _BAND_ON_GPU * dtype.itemsize
            network = BandedUNet(fold(unet).to(dtype), margin, large, band)
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def on_host(pixels: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(_as_torch_can(pixels))[None]

    def prepare(image: Tensor) -> Tensor:
        if is_integer and image.dtype == torch.uint8:
            return image
        # Not in place at first: float32 pixels are still the caller's, who may show them again.
        return image.to(torch.float32).mul(scale).add_(offset).to(dtype)

    def run(image: Tensor) -> Tensor:
        logits: Tensor = network(image.contiguous(memory_format=torch.channels_last))
        return logits

    return Loaded(on_host, prepare, run, crop)


def input_affine(
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
