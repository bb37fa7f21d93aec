"""What a user chooses for a run; everything else follows from it, the image and the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tilesegment.errors import OptionError

Precision = Literal["auto", "float32", "bfloat16", "float16", "int8"]
VALUE_BYTES: Mapping[Precision, int] = {
    "auto": 4,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "int8": 1,
}
"""Of a value of a feature map; for "auto" what it may be at most, on a processor."""
LARGE_MAP_BYTES = 3 * 2**26
"""Of a feature map, from which on it is computed in bands of rows, on a processor."""
MOST_VIEWS = 8
KINDS = ("cpu", "gpu", "auto", "slurm", "kubernetes")
"""Words that `--cluster` knows; a profile of such a name says what the word means here."""
Feed = Literal["auto", "overlap", "tile"]
Refiner = Literal["crf"]
BlendKind = Literal["gaussian", "mean"]
Normalise = Literal["largest", "none", "zero-mean", "min-max", "percentile"]


@dataclass(frozen=True)
class RunOptions:
    """Options of `tilesegment run` that decide what is computed and how it is cut."""

    level: int | None = None
    """Resolution level that the network is given as it is, 0 the finest; None chooses by size."""
    tile: int | None = None
    """Pixels per side of a tile at that level; None chooses one."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto takes the fastest floating-point one that the device computes
    natively. int8 needs a calibrated model."""
    pixel_size_um: float | None = None
    """Micrometres per pixel that the network is to see; None takes what it was trained at."""
    blend: BlendKind | None = None
    """Weights of overlapping windows, for networks without a finite border; None: one pass."""
    overlap: float | None = None
    """Share of a window's side that the next window covers too; None takes one half."""
    average: int = 1
    """Rotated and mirrored views of a tile over which the network's output is averaged: 1 to 8."""
    mask: str = "none"
    """Which pixels are wanted: none (all), tissue, or the path of a stored mask. The others get
    the background class, the first of the model."""
    probabilities: bool = False
    """Whether the probabilities of the classes are stored beside the labels."""
    smooth: float | None = None
    """Standard deviation of the Gaussian that smooths probabilities, in pixels that the network is
    shown; None leaves them."""
    refine: Refiner | None = None
    """crf: labels are made consistent with the pixels' colours by a conditional random field."""
    crf_contrast: float = 0.05
    """Difference of colour that counts for the CRF, as a share of the pixel type's range."""
    class_thresholds: tuple[tuple[str, float], ...] = ()
    """Probability from which a pixel belongs to a class, by the class's name."""
    axes: str | None = None
    """Of an image that is a plain Zarr array, in its order, as "cyx"; None for what it tells."""


def is_exact(device: str, precision: str) -> bool:
    """Whether a network gives the same bits for inputs of any size.

    A GPU's library may choose another convolution for another size, which sums in another order.

    >>> is_exact("cpu", "int8"), is_exact("cpu", "bfloat16"), is_exact("cuda", "float32")
    (True, False, False)
    """
    return device == "cpu" and precision in ("float32", "int8")


def check_average(average: int) -> int:
    """The number of views, if there are as many.

    Raises:
        OptionError: if there are not.
    """
    if not 1 <= average <= MOST_VIEWS:
        raise OptionError(
            f"cannot average over {average} views of a tile; there are {MOST_VIEWS}: four "
            "rotations, and their mirror images"
        )
    return average


@dataclass(frozen=True)
class WorkerRange:
    """How many workers a run has: they may come and go between these numbers."""

    least: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise OptionError(
                f"--workers {self.least}:{self.most} is no range; write 2:16 for at least 2 and at "
                "most 16"
            )


def parse_workers(text: str) -> int | WorkerRange:
    """A number of workers, or a range.

    Raises:
        OptionError: if it is neither.

    >>> parse_workers("4"), parse_workers("2:16")
    (4, WorkerRange(least=2, most=16))
    """
    least, colon, most = text.partition(":")
    try:
        if colon:
            return WorkerRange(int(least), int(most))
        return WorkerRange(int(least), int(least)).most
    except ValueError as error:
        raise OptionError(
            f"--workers {text} is no number of workers; write 4, or 2:16 for a number that adapts"
        ) from error


@dataclass(frozen=True)
class SlurmOptions:
    """One job of `--cluster slurm`: what is asked of the batch system for some workers."""

    queue: str | None = None
    """Slurm's partition; None takes the default one."""
    account: str | None = None
    """Who pays; None takes the default."""
    walltime: str = "01:00:00"
    """Time that a job may run, as Slurm writes it: minutes, HH:MM:SS or D-HH:MM:SS. Workers leave
    a little earlier, and others take their place."""
    cores: int = 4
    """CPU cores of a job."""
    memory: str = "16GB"
    """Memory of a job."""
    gpus: int = 0
    """GPUs of a job: one worker each. Without any a job is one worker on its cores."""
    interface: str | None = None
    """Network interface that scheduler and workers talk over, as "ib0"; None takes the default."""
    prologue: tuple[str, ...] = ()
    """Lines of shell before the worker starts, as "module load cuda"."""
    directives: tuple[str, ...] = ()
    """Further options of sbatch, as "--constraint=a100"."""
    folder: str = "tilesegment-slurm"
    """Where the logs of the jobs and their certificates go; all nodes must see it."""


@dataclass(frozen=True)
class KubernetesOptions:
    """The pods of `--cluster kubernetes`: a scheduler, and workers of one kind."""

    image: str | None = None
    """Container image with this version of tilesegment, as deploy/docker makes it; needed."""
    namespace: str | None = None
    """Where the pods are made; None takes that of kubectl's context, or of this pod."""
    cores: int = 4
    """CPU cores of a worker."""
    memory: str = "16Gi"
    """Memory of a worker, as Kubernetes writes it."""
    gpus: int = 0
    """GPUs of a worker's pod: 0 or 1, for a pod is one worker."""
    gpu_resource: str = "nvidia.com/gpu"
    """What the cluster calls a GPU."""
    volumes: tuple[str, ...] = ()
    """PersistentVolumeClaims with images and models, as "claim:/path"; this command must see the
    same files under the same paths."""
    secrets: tuple[str, ...] = ()
    """Secrets whose keys become variables of the workers, as those of an object storage."""
    service_account: str | None = None
    """Of the pods; None takes the namespace's default, which needs no rights."""
    node_selector: tuple[str, ...] = ()
    """Labels of the nodes that workers may run on, as "name=value"."""
    tolerations: tuple[str, ...] = ()
    """Taints of nodes that workers put up with, by their keys."""
    pull_secret: str | None = None
    """Secret for the registry of the image."""


@dataclass(frozen=True)
class ClusterOptions:
    """Who computes."""

    kind: str = "cpu"
    """cpu, gpu, auto, slurm, kubernetes, or the address of a running scheduler (tls://host:port,
    tcp://host:port)."""
    workers: int | WorkerRange | None = None
    """Number of worker processes, or a range between which they come and go; None chooses: one per
    GPU, one per four CPU cores, or one job of Slurm's."""
    memory_limit: str | None = None
    """Memory at which a worker is restarted, as "8GB"; None divides the machine's."""
    mixed_devices: bool = False
    """Whether workers may be of several kinds: other processors or GPUs, and some with a GPU and
    some without. The labels are then not the same to the bit whatever worker does a tile."""
    insecure: bool = False
    """Whether a scheduler on another machine may be spoken to without encryption."""
    wait_seconds: float = 3600.0
    """How long a run waits while it has no worker, before it stops and can be resumed."""
    tile_seconds: float = 600.0
    """A tile that takes longer than this, and 50 times longer than any before it, hangs: its worker
    is ended, and it is tried elsewhere. 0: none hangs."""
    feed: Feed = "auto"
    """What the scheduler is given of a tile: its steps, which share pixels with the neighbours'
    (overlap), or one task, which reads its halo itself (tile). auto takes the latter for many
    workers, whose scheduler the steps would keep too busy."""
    slurm: SlurmOptions = SlurmOptions()
    """What a job of `--cluster slurm` asks for."""
    kubernetes: KubernetesOptions = KubernetesOptions()
    """What the pods of `--cluster kubernetes` are."""

    @property
    def on_gpus(self) -> bool:
        """Whether every worker is known to have a GPU; "auto" must be resolved before."""
        gpus = {"gpu": 1, "slurm": self.slurm.gpus, "kubernetes": self.kubernetes.gpus}
        return bool(gpus.get(self.kind)) and not self.mixed_devices


@dataclass(frozen=True)
class ForeignOptions:
    """What a network that tilesegment did not write cannot say of itself (docs/foreign.md)."""

    weights: str | None = None
    """File of weights for a network given as "module:factory"."""
    model_output: str | None = None
    """Which of several outputs: its name, or its position."""
    trust: str | None = None
    """"sha256:…" of a file that runs code when it is loaded (TorchScript, .pt2)."""
    normalise: Normalise | None = None
    """How pixel values become its input; None: by the largest of their type, or as described."""
    threshold: float | None = None
    """Where the only output channel is above it is foreground: 0 for logits, 0.5 for
    probabilities. None: as described."""
