"""Smoothing, CRF and thresholds inside a run, zarr to zarr, against one pass over the whole."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import tilesegment as ts
from tests.pictures import (
    load_predictor,
    random_pixels,
    whole_pass,
    whole_resampled_pass,
    write_image,
)
from tests.usecases.test_segment_exact import PROFILE, networks
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import OptionError, OutputConflictError
from tilesegment.model.file import save_model
from tilesegment.refinement import choose_refinement
from tilesegment_cli.plan import plan

MakeModel = Callable[..., Path]
CLASSES = ["background", "class 1", "class 2", "class 3", "class 4"]


@st.composite
def refined(draw: st.DrawFn) -> RunOptions:
    steps = draw(st.sampled_from(["smooth", "crf", "smooth crf", "threshold", "all"]))
    return RunOptions(
        precision="float32",
        probabilities=True,
        smooth=draw(st.sampled_from([0.4, 1.3]))
        if steps in ("smooth", "smooth crf", "all")
        else None,
        refine="crf" if steps in ("crf", "smooth crf", "all") else None,
        class_thresholds=(("class 1", 0.4),) if steps in ("threshold", "all") else (),
        average=draw(st.sampled_from([1, 1, 3])),
    )


@PROFILE
@given(data=st.data())
def test_refined_labels_equal_the_whole_image(
    data: st.DataObject, tmp_path: Path, two_workers: str
) -> None:
    options = data.draw(refined())
    network = data.draw(networks(2))
    model = save_model(network, tmp_path / "model.safetensors", pixel_size_um=0.5)
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "float32"]))
    shape = (2, *(data.draw(st.integers(1, 160)) for _ in "yx"))
    pixels = random_pixels(shape, dtype)
    chunks = (data.draw(st.integers(1, 2)), *(data.draw(st.integers(20, 90)) for _ in "yx"))
    resampled = data.draw(st.sampled_from([0.5, 0.5, 0.8]))
    image = write_image(tmp_path / "image.zarr", pixels, chunks=chunks, pixel_size_um=resampled)
    planned = ts.plan(image, model, options)
    extra = planned.geometry.alignment * data.draw(st.integers(0, 3))
    options = RunOptions(**{**vars(options), "tile": planned.geometry.smallest_tile + extra})
    planned = ts.plan(image, model, options)
    ts.segment(image, model, options=options, cluster=ClusterOptions(two_workers), overwrite=True)
    predictor = load_predictor(
        model,
        dtype,
        options.average,
        probabilities=True,
        refinement=choose_refinement(options, CLASSES[: max(network.arguments["classes"], 2)]),
    )
    labels = zarr.open_array(image / "labels" / "model" / "0", mode="r")[...]
    if planned.resampling is not None:
        expected = whole_resampled_pass(predictor, pixels, planned.resampling)
        np.testing.assert_array_equal(labels, expected)
        return
    np.testing.assert_array_equal(labels, whole_pass(predictor, pixels, "labels"))
    stored = zarr.open_array(image / "labels" / "model" / "probabilities" / "0", mode="r")[...]
    np.testing.assert_array_equal(stored, whole_pass(predictor, pixels, "probabilities"))


def test_verify_computes_refined_labels_again(
    make_model: MakeModel, tmp_path: Path, one_worker: str
) -> None:
    pixels = random_pixels((3, 150, 140), "uint8")
    image = write_image(tmp_path / "image.zarr", pixels)
    model, cluster = make_model(), ClusterOptions(one_worker)
    options = RunOptions(
        tile=64,
        precision="float32",
        smooth=1.0,
        refine="crf",
        class_thresholds=(("class 2", 0.45),),
        average=2,
    )
    ts.segment(image, model, options=options, cluster=cluster)
    found = ts.verify(image, "model", windows=6, cluster=cluster)
    assert (found.windows, found.differing_labels, found.largest_difference) == (6, 0, 0)
    array = zarr.open_array(image / "labels" / "model" / "0")
    array[...] = (array[...] + 1) % 3
    assert ts.verify(image, "model", windows=2, cluster=cluster).differing_labels > 0


def test_refinement_is_part_of_what_a_run_is(
    make_model: MakeModel, tmp_path: Path, one_worker: str
) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 70, 60), "uint8"))
    model, cluster = make_model(), ClusterOptions(one_worker)
    ts.segment(image, model, options=RunOptions(precision="float32", smooth=1.0), cluster=cluster)
    for other in (
        RunOptions(precision="float32"),
        RunOptions(precision="float32", smooth=1.5),
        RunOptions(precision="float32", smooth=1.0, refine="crf"),
    ):
        with pytest.raises(OutputConflictError, match="refinement"):
            ts.segment(image, model, options=other, cluster=cluster)


def test_the_plan_adds_the_borders_up(make_model: MakeModel, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 500, 500), "uint8"))
    plain = ts.plan(image, make_model(), RunOptions(tile=256))
    both = ts.plan(image, make_model(), RunOptions(tile=256, refine="crf", smooth=2.0))
    assert both.halo == plain.halo + 24
    assert both.compute_amplification > plain.compute_amplification
    assert both.worker_memory_bytes > plain.worker_memory_bytes


def test_a_class_that_is_not_there_is_one_line(make_model: MakeModel, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 50, 50), "uint8"))
    with pytest.raises(OptionError, match="it has background, class 1, class 2"):
        ts.plan(image, make_model(), RunOptions(class_thresholds=(("tumour", 0.5),)))


def test_the_command_line_says_it_all(make_model: MakeModel, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.zarr", random_pixels((3, 50, 50), "uint8"))
    options = ["--smooth", "1", "--refine", "crf", "--crf-contrast", "0.1"]
    command = [str(image), "--model", str(make_model()), "--json", *options]
    result = CliRunner().invoke(plan, [*command, "--class-threshold", "class 1=0.3"])
    assert result.exit_code == 0, result.output
    planned = json.loads(result.stdout)
    assert planned["halo"] == 20 + 20
    assert planned["refinement"]["crf"]["contrast"] == 0.1
    told = CliRunner().invoke(plan, [word for word in command if word != "--json"])
    assert "smoothing of 1 px, CRF: labels depend on 18 px more" in told.stdout
    wrong = CliRunner().invoke(plan, [*command, "--class-threshold", "0.3"])
    assert wrong.exit_code == 2
    assert "is not CLASS=P" in wrong.output
