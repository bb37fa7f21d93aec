"""The proof on the user's own image: parts of a label image computed again, otherwise."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesegment.config import ClusterOptions, ForeignOptions, RunOptions, is_exact
from tilesegment.errors import (
    ClusterError,
    InputError,
    ModelError,
    OptionError,
    OutputConflictError,
    QuarantineError,
    VerificationError,
)
from tilesegment.model import zoo
from tilesegment.model.opening import Model, open_model
from tilesegment.sampling import draw_windows
from tilesegment.storage.labels import published_provenance
from tilesegment.storage.ledger import refuse_other_run
from tilesegment.storage.remote import Location
from tilesegment.tiling import chunk_of
from tilesegment.usecases.deep import check_objects
from tilesegment.usecases.job import Job, labels_directory, prepare_job
from tilesegment.usecases.workers import (
    Progress,
    Run,
    agree_on_workers,
    model_on_workers,
    report_progress,
    with_known_statistics,
)

if TYPE_CHECKING:
    from tilesegment.execution.verification import Verification
    from tilesegment.execution.worker import WorkerKind


def verify(
    image: str | Path,
    labels: str = zoo.DEFAULT,
    *,
    windows: int = 12,
    seed: int = 0,
    model: str | Path | None = None,
    output: str | Path | None = None,
    deep: bool = False,
    cluster: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
    report: Callable[[Progress], None] | None = None,
) -> "Verification":
    """Compute random windows of a label image again, and compare; its probabilities, too.

    The windows lie across tile borders, tile corners and the image's rim. Each is computed as one
    input, from a wider context than a tile has and from another origin on the network's grid, in
    the precision of the run. Nothing is written.

    With `deep` every stored object is compared with its checksum first; where some are damaged,
    no window is computed, for it could only show the same.

    Args:
        image: path of the OME-Zarr image.
        labels: name of the label image in it.
        windows: how many; one costs up to five tiles.
        seed: the same seed gives the same windows.
        model: the model, if it is not where the run found it; must be the same file.
        output: the store of the label image, if it is not in the image's own.
        deep: compare every object with its checksum, too.
        cluster: who computes.
        report: called after each window.

    Raises:
        InputError: there are no such labels, or tilesegment has not made them.
        ModelError: the model is not found.
        OutputConflictError: the model or the image is another one than that of the labels.
        ClusterError: there are no workers, or they lack the precision of the run.
        QuarantineError: some tiles failed everywhere, and are background.
        OutputError: there are no checksums, or an object cannot be read.
    """
    from tilesegment.execution.cluster import inference_threads, open_cluster, resolve_kind
    from tilesegment.execution.verification import Verification

    directory = labels_directory(image, labels, output)
    damaged = check_objects(directory).damaged if deep else ()
    if damaged or not windows:
        return replace(Verification.of([], True), damaged=tuple(item.key for item in damaged))
    made = _how_it_was_made(directory)
    options = replace(
        RunOptions(**made["options"]),
        tile=made["plan"]["tile"],
        precision=made["fingerprint"]["precision"],
    )
    found = _find_model(made, model, directory, options.blend is not None)
    refuse_fixed_input(found)
    job = prepare_job(image, found, labels, output, options)
    cluster = resolve_kind(cluster)
    with open_cluster(cluster) as client:
        try:
            workers = agree_on_workers(client, cluster, job)
        except OptionError as error:
            raise ClusterError(
                f"{directory} was computed in {options.precision}, which these workers cannot; "
                "verify it on workers like those that made it"
            ) from error
        job = with_known_statistics(job, client, workers, made, report)
        fingerprint = job.fingerprint(workers.precision)
        refuse_other_run(made["fingerprint"], fingerprint, directory)
        on_workers = job.worker_model(workers, inference_threads(cluster))
        with model_on_workers(client, on_workers, report) as run:
            return verify_labels(job, run, workers, windows, seed)


def _how_it_was_made(directory: Location) -> Mapping[str, Any]:
    """The provenance of a label image."""
    made = published_provenance(directory)
    if made is None:
        raise InputError(
            f"there is no label image at {directory}; `tilesegment info IMAGE` lists them, and "
            "--labels names one"
        )
    if "options" not in made:
        raise InputError(
            f"{directory} was not made by `tilesegment run`, or by an early version; it does not "
            "say how it could be computed again"
        )
    return made


def _find_model(
    made: Mapping[str, Any], given: str | Path | None, directory: Location, blended: bool
) -> Model:
    """The model that made the labels.

    Raises:
        OutputConflictError: the one that was given is another.
        ModelError: none was given, and it is not where it was, nor among the bundled ones.
    """
    wanted = made["fingerprint"]["model"]
    foreign = ForeignOptions(**made["foreign"])
    if given is not None:
        model = open_model(given, foreign, blended=blended)
        if model.identity["model"] != wanted:
            raise OutputConflictError(
                f"{directory} was made by the model {wanted}, and {given} is "
                f"{model.identity['model']}; give the model of the labels, or none to have it found"
            )
        return model
    for source in (made["model"], *zoo.names()):
        with suppress(ModelError, OptionError):
            model = open_model(source, foreign, blended=blended)
            if model.identity["model"] == wanted:
                return model
    raise ModelError(
        f"the model of {directory} was {made['model']}, which is gone or has changed; give it "
        f"with --model ({wanted})"
    )


def verify_labels(
    job: Job, run: Run, workers: "WorkerKind", windows: int, seed: int
) -> "Verification":
    """Compute windows of the published labels again, on workers that hold the model.

    Args:
        job: what the labels were made with; its tile may be another one.
        run: the workers.
        workers: what they are.
        windows: how many.
        seed: of the choice of windows.

    Raises:
        QuarantineError: some tiles are background for want of better.
    """
    from tilesegment.execution.engine import check_windows
    from tilesegment.execution.verification import REDUCED_STEPS, Verification, WindowChecker

    made = published_provenance(job.directory) or {}
    _refuse_quarantined(job, made["summary"]["quarantined"])
    job = _as_stored(job, made["plan"])
    plan, mask = job.plan, job.mask
    same_workers = made["workers"] == asdict(workers)
    exact = same_workers and is_exact(workers.device, workers.precision)
    pixels = job.image.pixels(plan.source.level)
    checker = WindowChecker(plan, pixels, job.volume, mask, 0 if exact else REDUCED_STEPS)
    chosen = draw_windows(
        plan.grid,
        plan.network.geometry.alignment,
        windows,
        seed,
        lambda plane, window: mask is None or mask.cover(plane, window) != "none",
    )
    checks = []
    report_progress(run, "windows", 0, windows, 0)
    for check in check_windows(run.client, checker, chosen, run.name, run.plugin):
        checks.append(check)
        compared = sum(each.height * each.width for each in checks)
        report_progress(run, "windows", len(checks), windows, compared)
    return Verification.of(checks, is_exact=exact)


def refuse_fixed_input(model: Model) -> None:
    """Refuse to verify with a network that cannot see more of a window than a tile does.

    Raises:
        OptionError: if it takes inputs of one size only.
    """
    if model.description.fixed_input is not None:
        raise OptionError(
            f"{model.source} takes inputs of {model.description.fixed_input} pixels only, so no "
            "window can be computed otherwise than the run does; export it with dynamic sizes"
        )


def refuse_unequal(found: "Verification", directory: str | Location) -> None:
    """Raise if stored labels are damaged, or differ from those that were computed again.

    Raises:
        VerificationError: naming where.
    """
    if found.damaged:
        raise VerificationError(
            f"{len(found.damaged)} objects of {directory} are damaged; run the command that made "
            "them again with --repair"
        )
    if found.passed:
        return
    worst = max(found.differing_windows, key=lambda check: check.differing)
    probable = f" (probabilities: {found.differing_probabilities:,})"
    raise VerificationError(
        f"{directory}: {found.differing_labels:,} of {found.pixels:,} labels"
        f"{probable if found.differing_probabilities else ''} are not those that the model gives "
        f"({found.allowed_labels:,} may differ), most of them near row {worst.y}, column {worst.x} "
        f"of plane {worst.plane}; look at them there, and compute them anew with --overwrite"
    )


def _as_stored(job: Job, made: Mapping[str, Any]) -> Job:
    """The job as it was run, with the tile size that the stored shards have, and their paths."""
    tile = made["tile"]
    plan = replace(job.plan, tile=tile, output_chunk=chunk_of(tile))
    return replace(job, plan=plan, suffix=made.get("suffix", ""))


def _refuse_quarantined(job: Job, quarantined: Collection[Any]) -> None:
    if quarantined:
        raise QuarantineError(
            f"{job.directory} is complete but for {len(quarantined)} tiles that failed "
            "everywhere; mend the cause and compute them with --repair"
        )
