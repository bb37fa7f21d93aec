"""The proof on the user's own image, and the faults that it must find."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zarr

import tilesegment as ts
from tests.model.test_predictor import by_tiles
from tests.pictures import load_predictor, random_pixels, write_image
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import (
    InputError,
    ModelError,
    OutputConflictError,
    OutputError,
    TilesegmentError,
    VerificationError,
)
from tilesegment.execution.verification import Verification, WindowCheck
from tilesegment.usecases.verify import refuse_unequal

MakeModel = Callable[..., Path]
OPTIONS = RunOptions(tile=32, precision="float32")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Five by four tiles of 32 px, two planes."""
    pixels = random_pixels((2, 3, 150, 120), "uint8")
    return write_image(tmp_path / "i.zarr", pixels, "tcyx", chunks=(1, 3, 70, 70), levels=2)


def verify(image: Path, address: str, **options: Any) -> Verification:
    return ts.verify(image, "model", cluster=ClusterOptions(address), **options)


def labels_of(image: Path) -> zarr.Array:
    return zarr.open_array(image / "labels" / "model" / "0", mode="r+")


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_labels_of_a_run_are_computed_again_in_every_bit(
    padding: str, image: Path, make_model: MakeModel, two_workers: str
) -> None:
    cluster = ClusterOptions(two_workers)
    ts.segment(image, make_model(padding=padding), options=OPTIONS, cluster=cluster)
    found = verify(image, two_workers, windows=18)
    assert found.passed
    assert (found.windows, found.differing_labels, found.largest_difference) == (18, 0, 0.0)
    assert (found.allowed_labels, found.damaged) == (0, ())
    assert found.pixels > 18 * 100


@pytest.mark.parametrize("options", [{"level": 1}, {"mask": "tissue"}, {"tile": 48}])
def test_level_mask_and_tile_are_those_of_the_run(
    options: dict[str, Any], image: Path, make_model: MakeModel, one_worker: str
) -> None:
    cluster = ClusterOptions(one_worker)
    ts.segment(image, make_model(), options=replace(OPTIONS, **options), cluster=cluster)
    assert verify(image, one_worker, windows=6).differing_labels == 0


def test_labels_changed_along_a_tile_border_are_found(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    ts.segment(image, make_model(), options=OPTIONS, cluster=ClusterOptions(one_worker))
    labels = labels_of(image)
    row = labels[1, 64]
    labels[1, 64] = (row + 1) % 3
    found = verify(image, one_worker, windows=30)
    assert not found.passed
    assert found.largest_difference == 0.0
    assert {check.plane for check in found.differing_windows} == {1}
    assert all(check.y <= 64 < check.y + check.height for check in found.differing_windows)
    assert found.differing_labels == sum(check.width for check in found.differing_windows)


def test_a_lost_shard_is_found(image: Path, make_model: MakeModel, one_worker: str) -> None:
    """It must not read as background."""
    ts.segment(image, make_model(), options=OPTIONS, cluster=ClusterOptions(one_worker))
    for plane in "01":
        (image / "labels" / "model" / "0" / "c" / plane / "2" / "1").unlink()
    with pytest.raises(OutputError, match="has lost a chunk at row .* compute it again with"):
        verify(image, one_worker, windows=30)
    found = verify(image, one_worker, deep=True)
    assert not found.passed
    assert (found.windows, found.damaged) == (0, ("0/c/0/2/1", "0/c/1/2/1"))


def test_objects_and_windows_are_in_one_report(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    ts.segment(image, make_model(), options=OPTIONS, cluster=ClusterOptions(one_worker))
    found = verify(image, one_worker, windows=2, deep=True)
    assert found.passed
    assert (found.windows, found.damaged) == (2, ())


@pytest.mark.parametrize(
    "options",
    [{"pixel_size_um": 0.8, "tile": 64}, {"blend": "gaussian", "tile": 64}, {"average": 3}],
    ids=["resampled", "blended", "averaged"],
)
def test_whatever_the_network_was_shown_is_shown_again(
    options: dict[str, Any],
    image: Path,
    make_model: MakeModel,
    one_worker: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tilesegment.blending._WINDOW", 64)
    cluster = ClusterOptions(one_worker)
    ts.segment(image, make_model(), options=replace(OPTIONS, **options), cluster=cluster)
    found = verify(image, one_worker, windows=6)
    assert (found.differing_labels, found.largest_difference) == (0, 0.0)
    labels_of(image)[:, 32:64] = 1
    assert verify(image, one_worker, windows=6).differing_labels > 0


@pytest.mark.parametrize(
    "options", [{}, {"mask": "tissue", "smooth": 1.0}], ids=["plain", "refined"]
)
def test_probabilities_changed_in_one_pixel_are_found(
    options: dict[str, Any], image: Path, make_model: MakeModel, one_worker: str
) -> None:
    options = {**options, "probabilities": True}
    cluster = ClusterOptions(one_worker)
    ts.segment(image, make_model(), options=replace(OPTIONS, **options), cluster=cluster)
    found = verify(image, one_worker, windows=12)
    assert found.passed
    assert (found.differing_labels, found.differing_probabilities) == (0, 0)
    path = image / "labels" / "model" / "probabilities" / "0"
    stored = zarr.open_array(path, mode="r+")
    stored[1, 2] ^= 1
    found = verify(image, one_worker, windows=12)
    changed = sum(check.height * check.width for check in found.differing_windows)
    assert (found.differing_labels, found.differing_probabilities) == (0, changed)
    assert {check.plane for check in found.differing_windows} == {1}
    assert not found.passed
    with pytest.raises(VerificationError, match="0 of .* labels .probabilities: .* are not those"):
        refuse_unequal(found, image)


def test_a_halo_that_is_too_small_is_found(
    image: Path, make_model: MakeModel, one_worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: tiles of a network that sees further than their halo."""
    model = make_model(padding="same")
    ts.segment(image, model, options=OPTIONS, cluster=ClusterOptions(one_worker))
    labels, pixels = labels_of(image), zarr.open_array(image / "0", mode="r")
    predictor = load_predictor(model, "uint8")
    short = predictor.geometry.halo - predictor.geometry.alignment
    with monkeypatch.context() as patch:
        patch.setattr(type(predictor.geometry), "halo", property(lambda _: short))
        for plane in range(2):
            labels[plane] = by_tiles(predictor, pixels[plane], 32, "labels")
    found = verify(image, one_worker)
    assert found.differing_labels > 0
    assert not found.passed


def test_a_run_verifies_itself_and_its_finished_labels(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    """With another tile size too, for which the stored shards would be read wrongly."""
    cluster = ClusterOptions(one_worker)
    model = make_model()
    assert ts.segment(image, model, options=OPTIONS, cluster=cluster, verify=6).verified == 6
    other = replace(OPTIONS, tile=48)
    again = ts.segment(image, model, options=other, cluster=cluster, verify=3)
    assert (again.status, again.verified) == ("already complete", 3)
    labels = labels_of(image)
    labels[:, 32:64] = 1
    message = r"labels are not those that the model gives \(0 may differ\).*near row"
    with pytest.raises(VerificationError, match=message):
        ts.segment(image, model, options=OPTIONS, cluster=cluster, verify=6)


def test_the_model_is_found_by_its_content(
    image: Path, make_model: MakeModel, one_worker: str, tmp_path: Path
) -> None:
    model = make_model()
    ts.segment(image, model, options=OPTIONS, cluster=ClusterOptions(one_worker))
    moved = model.rename(tmp_path / "moved.safetensors")
    with pytest.raises(ModelError, match="which is gone or has changed; give it with --model"):
        verify(image, one_worker)
    assert verify(image, one_worker, windows=1, model=moved).passed
    other = make_model(seed=1)
    with pytest.raises(OutputConflictError, match="was made by the model sha256:.*, and .* is"):
        verify(image, one_worker, model=other)
    with pytest.raises(ModelError, match="which is gone or has changed"):
        verify(image, one_worker)


def change_image(image: Path) -> None:
    group = zarr.open_group(image)
    ome = dict(group.attrs["ome"])
    ome["multiscales"][0]["name"] = "another"
    group.attrs["ome"] = ome


def damage(image: Path) -> None:
    for path in (image / "labels" / "model" / "0" / "c").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-40] + b"x" * 40)


def take_provenance(image: Path) -> None:
    del zarr.open_group(image / "labels" / "model").attrs["tilesegment"]


BAD: dict[str, tuple[type[TilesegmentError], str, Callable[[Path], None]]] = {
    "other image": (OutputConflictError, r"metadata\.name: null there, another now", change_image),
    "damaged labels": (OutputError, "has a damaged chunk at row", damage),
    "labels of another program": (InputError, "was not made by `tilesegment run`", take_provenance),
    "no labels": (
        InputError, "there is no label image at .*model; `tilesegment info IMAGE` lists them",
        lambda image: (image / "labels" / "model").rename(image / "labels" / "renamed") and None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_what_cannot_be_verified_is_one_line(
    fault: str, image: Path, make_model: MakeModel, one_worker: str
) -> None:
    kind, message, plant = BAD[fault]
    ts.segment(image, make_model(), options=OPTIONS, cluster=ClusterOptions(one_worker))
    plant(image)
    with pytest.raises(kind, match=message) as caught:
        verify(image, one_worker)
    assert "\n" not in str(caught.value)


def test_one_in_a_thousand_may_differ_where_bits_may() -> None:
    def found(differing: int, is_exact: bool) -> Verification:
        check = WindowCheck(0, 0, 0, 100, 100, differing, largest_difference=0.1)
        return Verification.of([check], is_exact)

    assert found(10, is_exact=False).passed
    assert not found(11, is_exact=False).passed
    assert found(0, is_exact=True).passed
    assert not found(1, is_exact=True).passed
    assert not replace(found(0, is_exact=True), damaged=("0/c/0/0",)).passed
