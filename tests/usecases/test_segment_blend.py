"""Runs with blended windows: not one pass, but the same labels for every tile and worker."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import tilesegment as ts
from tests.pictures import load_predictor, random_pixels, whole_pass, write_image
from tests.usecases.test_segment_exact import PROFILE
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import OutputConflictError
from tilesegment.model.predictor import Predictor

MakeModel = Callable[..., Path]


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilesegment.blending._WINDOW", 64)


def labels_of(image: Path) -> npt.NDArray[Any]:
    return zarr.open_array(image / "labels" / "model" / "0", mode="r")[...]


@settings(PROFILE, max_examples=5)
@given(data=st.data())
def test_labels_do_not_depend_on_tiles_chunks_or_workers(
    data: st.DataObject,
    small_windows: None,
    make_model: MakeModel,
    tmp_path: Path,
    one_worker: str,
    two_workers: str,
) -> None:
    model = make_model(padding=data.draw(st.sampled_from(["valid", "same"])))
    pixels = random_pixels((3, *(data.draw(st.integers(1, 160)) for _ in "yx")), "uint8")
    chunks = (3, data.draw(st.integers(20, 90)), data.draw(st.integers(20, 90)))
    image = write_image(tmp_path / "image.zarr", pixels, chunks=chunks)
    kind, overlap = data.draw(st.sampled_from(["gaussian", "mean"])), data.draw(st.floats(0, 0.5))
    options = RunOptions(precision="float32", blend=kind, overlap=overlap)
    geometry = ts.plan(image, model, options).geometry
    tile = geometry.smallest_tile + geometry.alignment * data.draw(st.integers(0, 2))
    options = RunOptions(tile=tile, precision="float32", blend=kind, overlap=overlap)
    planned = ts.plan(image, model, options)
    cluster = ClusterOptions(data.draw(st.sampled_from([one_worker, two_workers])))
    ts.segment(image, model, options=options, cluster=cluster, overwrite=True)
    predictor = load_predictor(model, "uint8")
    blended = Predictor(
        model.read_bytes(), ts.model.file.read_description(model), pixels.dtype,
        "float32", "cpu", planned.network.blend,
    )  # fmt: skip
    np.testing.assert_array_equal(labels_of(image), whole_pass(blended, pixels, "labels"))
    # A network with a finite border sees the same in every window: only the last bit may differ.
    assert (labels_of(image) != whole_pass(predictor, pixels, "labels")).mean() < 0.01


def test_a_run_says_what_is_lost_and_does_not_mix_with_another(
    small_windows: None,
    make_model: MakeModel,
    tmp_path: Path,
    one_worker: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 70, 90), "uint8"))
    model, cluster = make_model(), ClusterOptions(one_worker)
    options = RunOptions(precision="float32", blend="mean")
    with caplog.at_level(logging.WARNING):
        ts.segment(image, model, options=options, cluster=cluster)
    assert "not those of one forward pass over the image" in caplog.text
    with pytest.raises(OutputConflictError, match="blend.kind: mean there, null now"):
        ts.segment(image, model, options=RunOptions(precision="float32"), cluster=cluster)


def test_the_plan_counts_every_window(
    small_windows: None, make_model: MakeModel, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 256, 256), "uint8"))
    options = RunOptions(tile=128, precision="float32", blend="gaussian", overlap=0.5)
    planned = ts.plan(image, make_model(), options)
    assert len(planned.grid) == 4
    # Five windows of 64 + 2 * 20 px per side touch a tile of 128.
    assert planned.compute_amplification == pytest.approx(4 * (5 * 104) ** 2 / 256**2)
