"""What runs on a worker: the loaded model, and the steps of a tile.

Tiles are read, resampled and written on the worker's ordinary threads. The network runs on a
thread of its own, so that the device never waits for a disk, and never holds two tiles' features.
A GPU has two such threads: while it computes one tile, the other's pixels come or its labels go.
"""

import asyncio
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
from distributed import Worker, WorkerPlugin, get_worker
from distributed.worker_state_machine import TaskState

from tilesegment.blending import Blend
from tilesegment.config import Precision
from tilesegment.errors import ClusterError, IncompleteError, TilesegmentError, UnexpectedError
from tilesegment.execution.memory import (
    forget_keys,
    keep_freed_memory,
    return_free_memory,
    yield_to_inference,
)
from tilesegment.execution.versions import describe_mismatch, installed
from tilesegment.geometry import NetworkGeometry, round_up
from tilesegment.mask import Mask
from tilesegment.model.file import Description
from tilesegment.refinement import Refinement
from tilesegment.resampling import Resampling
from tilesegment.storage.image import MirroredPixels
from tilesegment.storage.labels import LabelVolume
from tilesegment.storage.ledger import TileRecord, Work
from tilesegment.storage.probabilities import Probabilities
from tilesegment.storage.pyramid import Labels, count_labels
from tilesegment.storage.remote import locate
from tilesegment.tiling import Window

if TYPE_CHECKING:
    from tilesegment.model.predictor import Device, Predictor, TileClasses, Waiting

_TILES_BETWEEN_RETURNS = 32
_MOST_CONSTANTS = 8
"""Tiles of one value that are remembered, a byte or two per pixel each."""

THREAD_NAME = "inference"
"""How the network's thread is called, for people who look at a worker."""
STEPS_TOLD = "tilesegment-steps"
"""In the metadata of a task, as dask calls it: each step, when it began, and when it ended."""
_LOST_DEVICE = 86
"""Exit code of a worker whose GPU has failed; its nanny starts it again."""
_CUDA_OUT_OF_MEMORY = 2
"""What CUDA itself says (cudaErrorMemoryAllocation) where torch's allocator was not asked."""
_PAUSE_SECONDS = 0.5
"""After an unforeseen error: a broken worker must not eat all tiles before it is retired."""


class WorkerFault(Exception):  # noqa: N818 - carries an error, and is none of the user's
    """An error of a task, and the address of the worker that it happened on."""

    def __init__(self, worker: str, error: TilesegmentError) -> None:
        super().__init__(worker, error)
        self.worker, self.error = worker, error


@contextmanager
def told_by_worker() -> Iterator[None]:
    """Errors inside become a `WorkerFault`; unforeseen ones an `UnexpectedError` in it."""
    try:
        yield
    except TilesegmentError as error:
        raise WorkerFault(_address(), error) from error
    except Exception as error:
        time.sleep(_PAUSE_SECONDS)
        first_line = str(error).partition("\n")[0]
        told = UnexpectedError(f"{type(error).__name__}: {first_line}")
        raise WorkerFault(_address(), told) from error


def _address() -> str:
    address: str = get_worker().address
    return address


@dataclass(frozen=True)
class WorkerModel:
    """What a worker needs to build its predictor; sent to each worker once."""

    content: bytes
    """Of the model file."""
    description: Description
    pixels: np.dtype[Any]
    precision: str
    device: "Device | None"
    """None: its GPU where a worker has one, otherwise its processor."""
    threads: int | None
    """CPU threads of the network; None takes as many as the worker has."""
    blend: Blend | None = None
    """The windows that the network is shown of each tile; None: the tile at once."""
    average: int = 1
    """Views over which the output is averaged."""
    nodata: float | None = None
    """Pixels with this value in all channels are background; None if there is no such value."""
    kind: "WorkerKind | None" = None
    """What every worker must be, also one that joins later; None takes any."""
    versions: Mapping[str, str] | None = None
    """Of the software that every worker must have, too, see `versions.installed`; None: any."""
    probabilities: bool = False
    """Whether the probabilities of the classes are wanted, too."""
    refinement: Refinement | None = None
    """What is done with probabilities before they become labels."""

    def build(self, worker_threads: int) -> "Predictor":
        """The loaded network; on a CPU it must be called on the thread that will use it."""
        import torch

        from tilesegment.model.predictor import Predictor

        torch.set_num_threads(self.threads or worker_threads)
        return Predictor(
            self.content,
            self.description,
            self.pixels,
            self.precision,
            self.device or own_device(),
            self.blend,
            self.average,
            self.probabilities,
            self.refinement,
        )


@dataclass(frozen=True)
class Prediction:
    """The labels of one tile."""

    labels: Labels
    """(tile, tile)."""
    work: Work
    probabilities: Probabilities | None = None
    """(classes, tile, tile); None where they are not wanted."""
    seconds: float = 0.0
    """That the network took."""


@dataclass
class ModelPlugin(WorkerPlugin):  # type: ignore[misc]
    """Brings the model to every worker, also to those that join later."""

    name: str
    """Of the plugin, and of the executor and the resource that the network's tasks need."""
    model: WorkerModel
    _predictor: "Future[Predictor] | None" = field(default=None, init=False)
    _tiles: int = field(default=0, init=False)
    _parts: int = field(default=1, init=False)
    """Pieces per side that a tile is predicted in; grows when memory runs out."""
    _constants: "dict[bytes, TileClasses]" = field(default_factory=dict, init=False)
    """Classes of tiles whose pixels are all equal, by what decides them."""

    async def setup(self, worker: Worker) -> None:
        """Load the model; without it, and the resource, a worker is given no tile to predict.

        Raises:
            ClusterError: if the worker's results could differ from those of the others.
        """
        keep_freed_memory()
        executor = ThreadPoolExecutor(1, thread_name_prefix=THREAD_NAME)
        self._predictor = executor.submit(self._load, worker.address, worker.state.nthreads)
        worker.executors[self.name] = executor
        try:
            await asyncio.wrap_future(self._predictor)
        except Exception as error:
            # To the driver: of a worker that joins later nobody sees the log.
            worker.log_event(self.name, f"the worker at {worker.address} gets no tiles: {error}")
            raise
        tiles_at_once = self.predictor.tiles_at_once
        if tiles_at_once > 1:
            worker.executors[self.name] = ThreadPoolExecutor(tiles_at_once, THREAD_NAME)
        await worker.set_resources(**{self.name: tiles_at_once})

    def _load(self, address: str, worker_threads: int) -> "Predictor":
        if self.model.versions is not None:
            told = describe_mismatch(self.model.versions, {address: installed()})
            if told is not None:
                raise ClusterError(f"other versions of the software: {told}")
        wanted = self.model.kind
        if wanted is not None:
            cluster_kind = "cpu" if wanted.device == "cpu" else "gpu"
            own, _ = describe_worker(cluster_kind, cast("Precision", wanted.precision), "")
            if not wanted.admits(own):
                raise ClusterError(f"{address} is {own}, and the others are {wanted}")
        return self.model.build(worker_threads)

    def teardown(self, worker: Worker) -> None:
        worker.executors.pop(self.name).shutdown(wait=False)

    def predict(self, pixels: npt.NDArray[Any], waiting: "Waiting" = nullcontext) -> Prediction:
        """Labels of one haloed tile; called on the network's threads only.

        A tile whose pixels are all equal, halo included, is computed once: the network would
        give the same again. A tile without data is not computed at all.

        Args:
            pixels: (c, tile + 2 * halo, tile + 2 * halo).
            waiting: entered while a GPU's other tile has the device.

        Raises:
            IncompleteError: if not even the smallest piece fits into memory.
        """
        empty = self._without_data(pixels)
        if empty is not None and empty.all():
            return self._nothing(empty.shape)
        classes, work = self._classes_of(pixels, waiting)
        labels, probabilities = classes.labels, classes.probabilities
        if empty is not None and empty.any():
            labels = np.where(empty, self.background, labels)
            probabilities = without(probabilities, ~empty)
        return Prediction(labels, work, probabilities, classes.seconds)

    def _nothing(self, shape: tuple[int, ...]) -> Prediction:
        """Background, and no class has any probability."""
        labels = np.full(shape, self.background)
        if not self.model.probabilities:
            return Prediction(labels, "masked")
        classes = len(self.model.description.classes)
        return Prediction(labels, "masked", np.zeros((classes, *shape), np.uint8))

    def _without_data(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        """Which pixels of the tile hold nodata in all channels; None where no value means it."""
        if self.model.nodata is None:
            return None
        halo, (height, width) = self.predictor.geometry.halo, pixels.shape[-2:]
        inside = pixels[:, halo : height - halo, halo : width - halo]
        empty: npt.NDArray[np.bool_] = (inside == self.model.nodata).all(axis=0)
        return empty

    @property
    def background(self) -> np.unsignedinteger:
        """The value of the first class."""
        description = self.model.description
        return description.label_dtype.type(description.classes[0].value)

    def _classes_of(
        self, pixels: npt.NDArray[Any], waiting: "Waiting"
    ) -> "tuple[TileClasses, Work]":
        if not _is_constant(pixels):
            return self._run_network(pixels, waiting), "computed"
        key = repr(pixels.shape).encode() + pixels[:, 0, 0].tobytes()
        # A GPU's other thread may add and remove some meanwhile.
        if (known := self._constants.get(key)) is not None:
            return known, "reused"
        classes = self._run_network(pixels, waiting)
        if len(self._constants) >= _MOST_CONSTANTS:
            self._constants.pop(next(iter(tuple(self._constants))), None)
        self._constants[key] = replace(classes, seconds=0.0)
        return classes, "computed"

    def _run_network(self, pixels: npt.NDArray[Any], waiting: "Waiting") -> "TileClasses":
        """Classes of one haloed tile.

        Where memory runs out the tile is predicted in smaller pieces, and so are all later
        ones. A GPU that has failed takes the process with it: it would fail for ever.

        cuDNN tells only that it found no convolution when there is no memory for one. So on a GPU
        smaller pieces are tried after any error of torch's, which is raised if they fail, too.

        Raises:
            IncompleteError: if not even the smallest piece fits into memory.
        """
        import torch

        on_gpu = self.predictor.device == "cuda"
        parts = self._parts
        while True:
            try:
                classes = in_parts(self.predictor, pixels, parts, waiting)
                break
            except (MemoryError, RuntimeError) as error:
                lacks_memory = _lacks_memory(error)
                if isinstance(error, torch.AcceleratorError) and not lacks_memory:
                    os._exit(_LOST_DEVICE)
                parts *= 2
                can_go_on = can_split(self.predictor.geometry, pixels, parts)
                if lacks_memory and not can_go_on:
                    raise IncompleteError(
                        "a tile did not fit into memory; use a smaller --tile"
                    ) from error
                if not can_go_on or not (lacks_memory or on_gpu):
                    raise
            if on_gpu:
                torch.cuda.empty_cache()
        # The GPU's other tile may have been split further meanwhile.
        self._parts = max(self._parts, parts)
        self._tiles += 1
        if self._tiles % _TILES_BETWEEN_RETURNS == 0:
            return_free_memory()
            forget_keys()
        return classes

    @property
    def predictor(self) -> "Predictor":
        assert self._predictor is not None  # noqa: S101 - setup ran before any task
        return self._predictor.result()


def _lacks_memory(error: Exception) -> bool:
    """Whether memory has run out, as far as the error tells."""
    import torch

    if isinstance(error, torch.AcceleratorError):
        return getattr(error, "error_code", None) == _CUDA_OUT_OF_MEMORY
    return isinstance(error, (MemoryError, torch.OutOfMemoryError))


def _is_constant(pixels: npt.NDArray[Any]) -> bool:
    """Whether each channel, (c, y, x), has one value; the first row tells of most that they have
    not.
    """
    first = pixels[:, :1, :1]
    return bool((pixels[:, :1] == first).all()) and bool((pixels == first).all())


def read_pixels(pixels: MirroredPixels, plane: int, window: Window) -> npt.NDArray[Any]:
    """The pixels of a window, as `MirroredPixels.read` gives them."""
    yield_to_inference()
    with told_by_worker():
        return pixels.read(plane, window)


def predict_tile(pixels: npt.NDArray[Any], plugin: str) -> Prediction:
    """Labels of one haloed tile, by the model that the plugin of this name holds.

    Args:
        pixels: (c, tile + 2 * halo, tile + 2 * halo).
        plugin: name of the `ModelPlugin`.
    """
    worker = get_worker()
    task = worker.state.tasks[worker.get_current_task()]
    task.metadata[STEPS_TOLD] = []
    with told_by_worker():
        return predict_for(task, worker.plugins[plugin], pixels)


def predict_for(task: TaskState, model: ModelPlugin, pixels: npt.NDArray[Any]) -> Prediction:
    """Labels of one haloed tile, and the scheduler is told when the device computed them.

    A tile that waits for the device, which another one may block, does not hang (--tile-timeout).

    Args:
        task: of the worker, with room for the steps it tells of.
        model: the plugin.
        pixels: (c, tile + 2 * halo, tile + 2 * halo).
    """

    @contextmanager
    def waiting() -> Iterator[None]:
        task.start_time = math.inf
        yield
        task.start_time = time.time()

    task.start_time = time.time()
    prediction = model.predict(pixels, waiting)
    now = time.time()
    task.metadata[STEPS_TOLD].append(("inference", now - prediction.seconds, now))
    return prediction


def can_split(geometry: NetworkGeometry, pixels: npt.NDArray[Any], parts: int) -> bool:
    """Whether a haloed tile can be predicted in so many pieces per side."""
    side: int = pixels.shape[-1] - 2 * geometry.halo
    return side // parts >= geometry.alignment


def without(
    probabilities: Probabilities | None, wanted: npt.NDArray[np.bool_]
) -> Probabilities | None:
    """Probabilities that are 0 for all classes where a pixel is not `wanted`."""
    return None if probabilities is None else np.where(wanted, probabilities, np.uint8(0))


def in_parts(
    predictor: "Predictor",
    pixels: npt.NDArray[Any],
    parts: int,
    waiting: "Waiting" = nullcontext,
) -> "TileClasses":
    """Classes of one haloed tile, predicted in `parts` x `parts` pieces: the same classes.

    A piece is a tile of its own, with its halo, and on the network's grid; the last of a row or
    column is moved back to end where the tile ends.

    Args:
        predictor: the network.
        pixels: (c, tile + 2 * halo, tile + 2 * halo).
        parts: pieces per side.
        waiting: entered while another thread has the device.
    """
    if parts == 1:
        return predictor.classify(pixels, waiting)
    halo, alignment = predictor.geometry.halo, predictor.geometry.alignment
    side = pixels.shape[-1] - 2 * halo
    piece = round_up(-(-side // parts), alignment)
    starts = [min(part * piece, side - piece) for part in range(parts)]
    whole: TileClasses | None = None
    seconds = 0.0
    for top in starts:
        for left in starts:
            haloed = pixels[:, top : top + piece + 2 * halo, left : left + piece + 2 * halo]
            part = predictor.classify(np.ascontiguousarray(haloed), waiting)
            whole = whole or _unfilled(part, side)
            seconds += part.seconds
            place = (..., slice(top, top + piece), slice(left, left + piece))
            whole.labels[place] = part.labels
            if whole.probabilities is not None and part.probabilities is not None:
                whole.probabilities[place] = part.probabilities
    assert whole is not None  # noqa: S101 - parts is at least 1
    return replace(whole, seconds=seconds)


def _unfilled(part: "TileClasses", side: int) -> "TileClasses":
    """Room for a tile of `side` pixels, of which `part` is a piece."""
    labels = np.empty((side, side), part.labels.dtype)
    if part.probabilities is None:
        return replace(part, labels=labels)
    probabilities = np.empty((len(part.probabilities), side, side), np.uint8)
    return replace(part, labels=labels, probabilities=probabilities)


def resample_tile(
    pixels: npt.NDArray[Any], resampling: Resampling, window: Window
) -> npt.NDArray[np.float32]:
    """What the network is shown of a haloed tile, see `Resampling.shown`."""
    yield_to_inference()
    return resampling.shown(pixels, window)


@dataclass(frozen=True)
class TileWriter:
    """The last step of a tile: its labels go to the store, a record to the driver."""

    volume: LabelVolume
    level: int
    values: tuple[int, ...]
    """Of the classes, for counting; the first is the background's."""
    resampling: Resampling | None = None
    """By which the network was shown the tile; its labels are brought back to the level."""

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
            prediction: what the network says, after resampling of what it was shown.
            number: of the tile in its grid.
            plane: index over the flattened leading axes.
            window: what the tile writes.
            mask: where some pixels are not wanted; they become background.
        """
        labels = self._inside(prediction.labels, window)
        probabilities = prediction.probabilities
        if probabilities is not None:
            probabilities = self._inside(probabilities, window)
        if mask is not None:
            wanted = mask.read(plane, window)
            labels = np.where(wanted, labels, labels.dtype.type(self.values[0]))
            probabilities = without(probabilities, wanted)
        record = self._store(labels, probabilities, prediction.work, number, plane, window)
        return replace(record, seconds=prediction.seconds)

    def _inside(self, values: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
        """What belongs to a window of the level, from the network's (..., y, x) for a tile."""
        if self.resampling is not None:
            values = self.resampling.on_level(values, window)
        return values[..., : window.height, : window.width]

    def write_background(self, number: int, plane: int, window: Window) -> TileRecord:
        """Write a tile of which no pixel is wanted."""
        dtype = self.volume.arrays[self.level].dtype
        background = np.full((window.height, window.width), self.values[0], dtype)
        nothing = self.volume.no_probabilities(window)
        return self._store(background, nothing, "masked", number, plane, window)

    def _store(
        self,
        labels: Labels,
        probabilities: Probabilities | None,
        work: Work,
        number: int,
        plane: int,
        window: Window,
    ) -> TileRecord:
        yield_to_inference()
        with told_by_worker():
            written = self.volume.write(self.level, plane, window, labels, probabilities)
        return TileRecord(
            number,
            tuple(count_labels(written.labels, self.values)),
            self.level,
            written.objects,
            _address(),
            work,
        )


def derive_tile(
    volume: LabelVolume, level: int, neighbour: int, number: int, plane: int, window: Window
) -> TileRecord:
    """Write one tile of a pyramid level from the next one that is stored."""
    with told_by_worker():
        written = volume.derive(level, neighbour, plane, window)
    return TileRecord(number, (), level, written.objects, _address())


@dataclass(frozen=True)
class WorkerKind:
    """What decides the last bit of a worker's results."""

    device: "Device | Literal['mixed']"
    precision: str
    torch: str
    capability: str
    """Instructions of the CPU, or the GPU's name."""

    def __str__(self) -> str:
        return f"{self.device} {self.precision}, torch {self.torch}, {self.capability}"

    def mixed(self) -> "WorkerKind":
        """Workers that differ from this one in nothing but the device."""
        return replace(self, device="mixed", capability="any device")

    def admits(self, other: "WorkerKind") -> bool:
        """Whether a worker of another kind may do tiles of a run of this one."""
        return other == self or (self.device == "mixed" and other.mixed() == self)


def sent_bytes(dask_worker: Worker) -> int:
    """What this worker has sent to others and to the driver, since it started."""
    return int(dask_worker.transfer_outgoing_bytes_total)


def own_device() -> "Device":
    """What this process can compute on: a GPU if it sees one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def held_gpu() -> str:
    """The GPU that this worker computes on: its machine, and the GPU's own number."""
    import torch

    return f"{socket.gethostname()} {torch.cuda.get_device_properties(0).uuid}"


def describe_worker(kind: str, precision: Precision, image: str) -> tuple[WorkerKind, bool]:
    """What this worker would be in a cluster of this kind, and whether it sees the image.

    Raises:
        OptionError: if its device cannot compute in this precision.
    """
    import torch

    from tilesegment.model.predictor import choose_precision

    device = "cpu" if kind == "cpu" else own_device()
    capability = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else torch.backends.cpu.get_cpu_capability()
    )
    return (
        WorkerKind(device, choose_precision(precision, device), str(torch.__version__), capability),
        locate(image).exists(),
    )
