"""Many images: one cluster, one loaded model, and a bad one that does not stop the others."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tests.usecases.test_segment import OPTIONS, chunks
from tilesegment.config import ClusterOptions
from tilesegment.errors import InputError, OptionError, OutputConflictError
from tilesegment.execution.worker import WorkerModel
from tilesegment.partition import Partition
from tilesegment.usecases.batch import ImageOutcome
from tilesegment.usecases.workers import Progress

MakeModel = Callable[..., Path]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Ten images of two by two tiles; the fourth has lost the metadata of its pixels."""
    paths = [
        write_image(tmp_path / f"{number}.zarr", random_pixels((3, 50, 40), "uint8", seed=number))
        for number in range(10)
    ]
    (paths[3] / "0" / "zarr.json").write_text("{")
    return paths


def test_one_bad_image_of_ten_is_named_and_alone_tried_again(
    images: list[Path], make_model: MakeModel, one_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(one_worker)
    told: list[ImageOutcome] = []
    first = ts.segment_many(images, model, options=OPTIONS, cluster=cluster, finished=told.append)
    assert tuple(told) == first
    (bad,) = [outcome for outcome in first if outcome.error]
    assert bad.image == str(images[3])
    assert isinstance(bad.error, InputError)
    done = [outcome.summary for outcome in first if outcome.summary]
    assert [summary.computed for summary in done] == [4] * 9
    shutil.rmtree(images[3])
    write_image(images[3], random_pixels((3, 50, 40), "uint8", seed=3))
    again = ts.segment_many(images, model, options=OPTIONS, cluster=cluster)
    computed = [outcome.summary and outcome.summary.computed for outcome in again]
    assert computed == [0, 0, 0, 4, 0, 0, 0, 0, 0, 0]


def test_a_partition_of_several_images_is_that_part_of_each(
    images: list[Path], make_model: MakeModel, one_worker: str
) -> None:
    several = [images[0], images[3], images[1]]
    what = {"options": OPTIONS, "cluster": ClusterOptions(one_worker)}

    def part(number: int) -> list[tuple[str, int] | None]:
        outcomes = ts.segment_many(several, make_model(), partition=Partition(number, 2), **what)
        assert [outcome.has_labels for outcome in outcomes] == [number == 2, False, number == 2]
        return [each.summary and (each.summary.status, each.summary.computed) for each in outcomes]

    assert part(1) == [("partition done", 2), None, ("partition done", 2)]
    assert part(2) == [("done", 2), None, ("done", 2)]
    for image in (images[0], images[1]):
        ts.segment(image, make_model(), labels="single", **what)
        assert chunks(image / "labels" / "model") == chunks(image / "labels" / "single")


def test_what_a_partition_cannot_decide_is_refused_before_any_image(
    images: list[Path], make_model: MakeModel
) -> None:
    with pytest.raises(OptionError, match="--partition 1/2 cannot replace"):
        ts.segment_many(images, make_model(), partition=Partition(1, 2), overwrite=True)


def test_a_batch_gives_what_single_runs_give(
    images: list[Path], make_model: MakeModel, one_worker: str
) -> None:
    """The images have tiles of the same numbers, and the model stays under one name."""
    model, cluster = make_model(), ClusterOptions(one_worker)
    several = images[:3]
    ts.segment_many(several, model, labels="many", options=OPTIONS, cluster=cluster)
    for image in several:
        ts.segment(image, model, labels="single", options=OPTIONS, cluster=cluster)
        made = chunks(image / "labels" / "many")
        assert made
        assert made == chunks(image / "labels" / "single")


def test_the_model_is_loaded_once_for_images_of_one_kind(
    tmp_path: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilesegment.execution import worker

    registered: list[WorkerModel] = []
    real = worker.ModelPlugin.__init__

    def counted(self: worker.ModelPlugin, name: str, model: WorkerModel) -> None:
        registered.append(model)
        real(self, name, model)

    monkeypatch.setattr(worker.ModelPlugin, "__init__", counted)
    shape = (3, 40, 40)
    kinds = ["uint8", "uint8", "uint16", "uint16"]
    paths = [
        write_image(tmp_path / f"{number}.zarr", random_pixels(shape, kind))
        for number, kind in enumerate(kinds)
    ]
    told: list[tuple[str, Progress]] = []
    outcomes = ts.segment_many(
        paths,
        make_model(),
        options=OPTIONS,
        cluster=ClusterOptions(workers=1),
        report=lambda image, progress: told.append((image, progress)),
    )
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert [model.pixels.name for model in registered] == ["uint8", "uint16"]
    assert [image for image, _ in told if image] == sorted(image for image, _ in told)


def test_each_image_has_its_own_reason(
    tmp_path: Path, make_model: MakeModel, one_worker: str
) -> None:
    grey = write_image(tmp_path / "grey.zarr", random_pixels((1, 40, 40), "uint8"))
    other = write_image(tmp_path / "other.zarr", random_pixels((3, 40, 40), "uint8"))
    good = write_image(tmp_path / "good.zarr", random_pixels((3, 40, 40), "uint8"))
    cluster = ClusterOptions(one_worker)
    ts.segment(other, make_model(seed=1), labels="model", options=OPTIONS, cluster=cluster)
    outcomes = ts.segment_many(
        [tmp_path / "absent.zarr", grey, other, good, good],
        make_model(),
        labels="model",
        options=OPTIONS,
        cluster=cluster,
    )
    codes = [outcome.error.exit_code if outcome.error else 0 for outcome in outcomes]
    assert codes == [1, 1, 3, 0]
    assert isinstance(outcomes[2].error, OutputConflictError)


def test_an_empty_list_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(InputError, match="there is no image to segment"):
        ts.segment_many([], make_model())
