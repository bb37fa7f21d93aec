"""What runs on a worker: the loaded model, and the two steps of a tile.

Tiles are read and written on the worker's ordinary threads. The network runs on one thread of
its own, so that the device never waits for a disk, and never holds two tiles' features.
"""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from distributed import Worker, WorkerPlugin, get_worker

from tilesegment.config import Precision
from tilesegment.errors import IncompleteError
from tilesegment.execution.memory import keep_freed_memory, return_free_memory, yield_to_inference
from tilesegment.mask import Mask
from tilesegment.model.file import ModelDescription
from tilesegment.storage.labels import LabelVolume
from tilesegment.storage.ledger import TileRecord, Work
from tilesegment.storage.pyramid import Labels
from tilesegment.tiling import Window

if TYPE_CHECKING:
    from tilesegment.model.predictor import Device, Predictor

_TILES_BETWEEN_RETURNS = 32
_MOST_CONSTANTS = 8
"""Tiles of one value that are remembered, a byte or two per pixel each."""

THREAD_NAME = "inference"
"""How the network's thread is called, for people who look at a worker."""


@dataclass(frozen=True)
class WorkerModel:
    """What a worker needs to build its predictor; sent to each worker once."""

    content: bytes
    """Of the model file."""
    description: ModelDescription
    pixels: np.dtype[Any]
    precision: str
    device: "Device"
    threads: int | None
    """CPU threads of the network; None takes as many as the worker has."""
    nodata: float | None = None
    """Pixels with this value in all channels are background; None if there is no such value."""

    def build(self, worker_threads: int) -> "Predictor":
        """The loaded network; must be called on the thread that will use it."""
        import torch

        from tilesegment.model.predictor import Predictor

        torch.set_num_threads(self.threads or worker_threads)
        return Predictor(self.content, self.description, self.pixels, self.precision, self.device)


@dataclass(frozen=True)
class Prediction:
    """The labels of one tile."""

    labels: Labels
    """(tile, tile)."""
    work: Work


@dataclass
class ModelPlugin(WorkerPlugin):  # type: ignore[misc]
    """Brings the model to every worker, also to those that join later."""

    name: str
    """Of the plugin, and of the executor and the resource that the network's tasks need."""
    model: WorkerModel
    _predictor: "Future[Predictor] | None" = field(default=None, init=False)
    _tiles: int = field(default=0, init=False)
    _constants: dict[bytes, Labels] = field(default_factory=dict, init=False)
    """Labels of tiles whose pixels are all equal, by what decides them."""

    async def setup(self, worker: Worker) -> None:
        keep_freed_memory()
        executor = ThreadPoolExecutor(1, thread_name_prefix=THREAD_NAME)
        worker.executors[self.name] = executor
        self._predictor = executor.submit(self.model.build, worker.state.nthreads)
        await asyncio.wrap_future(self._predictor)
        await worker.set_resources(**{self.name: 1})

    def teardown(self, worker: Worker) -> None:
        worker.executors.pop(self.name).shutdown(wait=False)

    def predict(self, pixels: npt.NDArray[Any]) -> Prediction:
        """Labels of one haloed tile; called on the network's thread only.

        A tile whose pixels are all equal, halo included, is computed once: the network would
        give the same again. A tile without data is not computed at all.

        Args:
            pixels: (c, tile + 2 * halo, tile + 2 * halo).

        Raises:
            IncompleteError: if the tile does not fit into memory.
        """
        empty = self._without_data(pixels)
        if empty is not None and empty.all():
            return Prediction(np.full(empty.shape, self.background), "masked")
        labels, work = self._labels_of(pixels)
        if empty is not None and empty.any():
            labels = np.where(empty, self.background, labels)
        return Prediction(labels, work)

    def _without_data(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        """Which pixels of the tile hold nodata in all channels; None where no value means it."""
        if self.model.nodata is None:
            return None
        halo, height = self.model.description.geometry.halo, pixels.shape[-1]
        inside = pixels[:, halo : height - halo, halo : height - halo]
        empty: npt.NDArray[np.bool_] = (inside == self.model.nodata).all(axis=0)
        return empty

    @property
    def background(self) -> np.unsignedinteger:
        """The value of the first class."""
        description = self.model.description
        return description.label_dtype.type(description.classes[0].value)

    def _labels_of(self, pixels: npt.NDArray[Any]) -> tuple[Labels, Work]:
        if not _is_constant(pixels):
            return self._run_network(pixels), "computed"
        key = repr(pixels.shape).encode() + pixels[:, 0, 0].tobytes()
        if key in self._constants:
            return self._constants[key], "reused"
        labels = self._run_network(pixels)
        if len(self._constants) == _MOST_CONSTANTS:
            del self._constants[next(iter(self._constants))]
        self._constants[key] = labels
        return labels, "computed"

    def _run_network(self, pixels: npt.NDArray[Any]) -> Labels:
        """Labels of one haloed tile.

        Raises:
            IncompleteError: if the tile does not fit into memory.
        """
        import torch

        try:
            labels = self.predictor.labels(pixels)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise IncompleteError("a tile did not fit into memory; use a smaller --tile") from error
        self._tiles += 1
        if self._tiles % _TILES_BETWEEN_RETURNS == 0:
            return_free_memory()
        return labels

    @property
    def predictor(self) -> "Predictor":
        assert self._predictor is not None  # noqa: S101 - setup ran before any task
        return self._predictor.result()


def _is_constant(pixels: npt.NDArray[Any]) -> bool:
    """Whether each channel, (c, y, x), has one value; the first row tells of most that they have
    not.
    """
    first = pixels[:, :1, :1]
    return bool((pixels[:, :1] == first).all()) and bool((pixels == first).all())


def predict_tile(pixels: npt.NDArray[Any], plugin: str) -> Prediction:
    """Labels of one haloed tile, by the model that the plugin of this name holds.

    Args:
        pixels: (c, tile + 2 * halo, tile + 2 * halo).
        plugin: name of the `ModelPlugin`.
    """
    model: ModelPlugin = get_worker().plugins[plugin]
    return model.predict(pixels)


@dataclass(frozen=True)
class TileWriter:
    """The second step of a tile: its labels go to the store, a record to the driver."""

    volume: LabelVolume
    level: int
    values: tuple[int, ...]
    """Of the classes, for counting; the first is the background's."""

    def write(
        self,
        prediction: Prediction,
        number: int,
        plane: int,
        window: Window,
        mask: Mask | None = None,
    ) -> TileRecord:
        """Write the part of a tile inside the image.

        Args:
            prediction: what the network says.
            number: of the tile in its grid.
            plane: index over the flattened leading axes.
            window: what the tile writes.
            mask: where some pixels are not wanted; they become background.
        """
        inside = prediction.labels[: window.height, : window.width]
        if mask is not None:
            inside = np.where(mask.read(plane, window), inside, inside.dtype.type(self.values[0]))
        return self._store(inside, prediction.work, number, plane, window)

    def write_background(self, number: int, plane: int, window: Window) -> TileRecord:
        """Write a tile of which no pixel is wanted."""
        dtype = self.volume.arrays[self.level].dtype
        background = np.full((window.height, window.width), self.values[0], dtype)
        return self._store(background, "masked", number, plane, window)

    def _store(
        self, labels: Labels, work: Work, number: int, plane: int, window: Window
    ) -> TileRecord:
        yield_to_inference()
        self.volume.write(self.level, plane, window, labels)
        counts = np.bincount(labels.ravel(), minlength=max(self.values) + 1)
        return TileRecord(number, tuple(int(counts[value]) for value in self.values), work)


@dataclass(frozen=True)
class WorkerKind:
    """What decides the last bit of a worker's results."""

    device: "Device"
    precision: str
    torch: str
    capability: str
    """Instructions of the CPU, or the GPU's name."""

    def __str__(self) -> str:
        return f"{self.device} {self.precision}, torch {self.torch}, {self.capability}"


def describe_worker(kind: str, precision: Precision, image: str) -> tuple[WorkerKind, bool]:
    """What this worker would be in a cluster of this kind, and whether it sees the image.

    Raises:
        OptionError: if its device cannot compute in this precision.
    """
    import torch

    from tilesegment.model.predictor import choose_precision

    device: Device = "cuda" if kind != "cpu" and torch.cuda.is_available() else "cpu"
    capability = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else torch.backends.cpu.get_cpu_capability()
    )
    return (
        WorkerKind(device, choose_precision(precision, device), str(torch.__version__), capability),
        Path(image).exists(),
    )
