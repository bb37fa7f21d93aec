"""Many images by one model, on one cluster: a bad image does not stop the others."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilesegment.config import ClusterOptions, ForeignOptions, RunOptions
from tilesegment.errors import IncompleteError, InputError, TilesegmentError, UnexpectedError
from tilesegment.model import zoo
from tilesegment.model.opening import Model, open_model
from tilesegment.partition import WHOLE, Partition
from tilesegment.usecases.job import RunSummary
from tilesegment.usecases.profile import profiled
from tilesegment.usecases.segment import Wishes, prepare, segment_prepared
from tilesegment.usecases.workers import Models, Progress

if TYPE_CHECKING:
    from distributed import Client

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one image of a batch: a summary, or the error that stopped it."""

    image: str
    summary: RunSummary | None
    error: TilesegmentError | None = None

    @property
    def has_labels(self) -> bool:
        """Whether the labels are published; after one of several partitions they may not be."""
        return self.summary is not None and self.summary.status != "partition done"


@dataclass(frozen=True)
class _Batch:
    """What all images of a batch share."""

    model: Model
    options: RunOptions
    wishes: Wishes
    cluster: ClusterOptions
    client: "Client"
    models: Models
    report: Callable[[str, Progress], None] | None


def segment_many(
    images: Sequence[str | Path],
    model: str | Path = zoo.DEFAULT,
    *,
    labels: str | None = None,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    cluster: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
    foreign: ForeignOptions = ForeignOptions(),  # noqa: B008 - frozen
    overwrite: bool = False,
    take_over: bool = False,
    allow_partial: bool = False,
    keep_ledger: bool = False,
    verify: int = 0,
    profile: str | Path | None = None,
    partition: Partition = WHOLE,
    commit: bool = False,
    report: Callable[[str, Progress], None] | None = None,
    finished: Callable[[ImageOutcome], None] | None = None,
) -> tuple[ImageOutcome, ...]:
    """Segment images one after the other, each as `segment` does; the workers and the model stay.

    An image that fails is told in its outcome, and the next one begins. The same call again
    computes what is missing, and nothing else.

    Args:
        images: paths of OME-Zarr images; one that is named twice is taken once.
        model, labels, options, cluster, foreign: as for `segment`, for every image.
        overwrite, take_over, allow_partial, keep_ledger, verify: as for `segment`.
        profile: as for `segment`, of all images together.
        partition, commit: as for `segment`, of every image.
        report: called after each tile, with the image.
        finished: called after each image.

    Raises:
        InputError: there is no image to segment.
        ModelError: the model cannot be used.
        OptionError: the options contradict each other.
        ClusterError: there are no workers.
    """
    from tilesegment.execution.cluster import open_cluster, resolve_kind

    if not images:
        raise InputError("there is no image to segment; the list is empty")
    opened = open_model(model, foreign, blended=options.blend is not None)
    wishes = Wishes(
        labels, None, overwrite, take_over, allow_partial, keep_ledger, verify, partition, commit
    )
    wishes.refuse_contradiction()
    cluster = resolve_kind(cluster)
    outcomes: list[ImageOutcome] = []
    with (
        open_cluster(cluster) as client,
        Models(client) as models,
        profiled(client, profile),
    ):
        batch = _Batch(opened, options, wishes, cluster, client, models, report)
        for image in dict.fromkeys(map(str, images)):
            outcome = _attempt(image, batch)
            outcomes.append(outcome)
            if finished is not None:
                finished(outcome)
    return tuple(outcomes)


def _attempt(image: str, batch: _Batch) -> ImageOutcome:
    """One image, whatever becomes of it; an interruption of the whole batch is raised as ever."""

    def report(progress: Progress) -> None:
        if batch.report is not None:
            batch.report(image, progress)

    try:
        _refuse_lost_scheduler(batch.client)
        prepared = prepare(image, batch.model, batch.options, batch.wishes, batch.cluster)
        summary = segment_prepared(
            prepared, batch.wishes, batch.client, batch.cluster, batch.models, report
        )
    except TilesegmentError as error:
        return ImageOutcome(image, None, error)
    except OSError as error:
        return ImageOutcome(image, None, InputError(str(error)))
    except Exception as error:
        # A fault of tilesegment; the other images may not meet it, and it must be seen.
        _logger.exception("unforeseen error in %s", image)
        first_line = str(error).partition("\n")[0]
        told = UnexpectedError(f"{type(error).__name__}: {first_line}")
        return ImageOutcome(image, None, told)
    return ImageOutcome(image, summary)


def _refuse_lost_scheduler(client: "Client") -> None:
    """Say of each image that is left that it was not begun.

    Raises:
        IncompleteError: if the scheduler is gone.
    """
    if client.status != "running":
        raise IncompleteError("not begun, for the scheduler was lost; run the same command again")
