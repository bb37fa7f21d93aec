"""Runs straight from a slide or scene, without an import."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

import tilesegment as ts
from tests.usecases.test_georeferenced import write_scene
from tilesegment.errors import (
    OutputConflictError,
    OutputError,
    TilesegmentError,
)
from tilesegment.planning import Plan
from tilesegment.storage.geozarr import read_georeferencing
from tilesegment.storage.image import open_image
from tilesegment.usecases.originals import decoded_times


def test_labels_are_those_of_the_imported_image(
    tmp_path: Path, make_model: Callable[..., Path], two_workers: str
) -> None:
    scene, imported, model = write_scene(tmp_path / "scene.tif"), tmp_path / "i.zarr", make_model()
    ts.import_image(scene, imported)
    cluster = ts.ClusterOptions(kind=two_workers)
    for level in (0, 1):
        options = ts.RunOptions(tile=128, level=level)
        for image in (scene, imported):
            summary = ts.segment(
                image, model, labels=f"at{level}", options=options, cluster=cluster
            )
            assert summary.status == "done"
        ours = zarr.open_group(tmp_path / f"scene.tif.labels.zarr/at{level}", mode="r")
        theirs = zarr.open_group(imported / f"labels/at{level}", mode="r")
        assert sorted(ours) == sorted(theirs) == ["0", "1"]
        for number in ours:
            np.testing.assert_array_equal(np.asarray(ours[number]), np.asarray(theirs[number]))
        assert read_georeferencing(dict(ours.attrs), "it") == read_georeferencing(
            dict(theirs.attrs), "it"
        )


@pytest.mark.parametrize("program", ["ome-zarr-models", "ome-zarr-io"])
def test_other_programs_find_the_labels_beside_an_original_valid(
    program: str, tmp_path: Path, make_model: Callable[..., Path], one_worker: str
) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    ts.segment(scene, make_model(), labels="cells", cluster=ts.ClusterOptions(kind=one_worker))
    command = [Path(sys.executable).with_name(program), "validate"]
    labels = tmp_path / "scene.tif.labels.zarr/cells"
    subprocess.run([*command, labels], check=True, capture_output=True)
    (labels / "1/zarr.json").unlink()
    assert subprocess.run([*command, labels], check=False, capture_output=True).returncode != 0


def test_run_verify_and_export_find_the_labels_beside_the_original(
    tmp_path: Path, make_model: Callable[..., Path], one_worker: str
) -> None:
    scene, model = write_scene(tmp_path / "scene.tif"), make_model()
    cluster = ts.ClusterOptions(kind=one_worker)
    ts.segment(scene, model, labels="cells", cluster=cluster)
    assert open_image(scene).label_names() == ["cells"]
    again = ts.segment(scene, model, labels="cells", cluster=cluster)
    assert again.status == "already complete"
    found = ts.verify(scene, "cells", windows=2, model=model, cluster=cluster)
    assert (found.windows, found.differing_labels) == (2, 0)
    assert ts.export_labels(scene, tmp_path / "cells.gpkg").path.exists()


def test_another_file_of_that_name_is_another_image(
    tmp_path: Path, make_model: Callable[..., Path], one_worker: str
) -> None:
    scene, model = write_scene(tmp_path / "scene.tif"), make_model()
    cluster = ts.ClusterOptions(kind=one_worker)
    ts.segment(scene, model, labels="cells", cluster=cluster)
    content = bytearray(scene.read_bytes())
    content[-1] ^= 1
    scene.write_bytes(content)
    with pytest.raises(OutputConflictError, match="image chunk sizes"):
        ts.segment(scene, model, labels="cells", cluster=cluster)


def test_a_folder_that_is_read_only_is_one_line_and_output_helps(
    tmp_path: Path,
    make_model: Callable[..., Path],
    one_worker: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "archive").mkdir()
    scene, model = write_scene(tmp_path / "archive/scene.tif"), make_model()
    cluster = ts.ClusterOptions(kind=one_worker)
    # Not by the folder's mode: root, who runs tests in containers, may write everywhere.
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode, **_: path != scene.parent)
        with pytest.raises(OutputError, match="name another place with --output STORE"):
            ts.segment(scene, model, cluster=cluster)
    ts.segment(scene, model, output=tmp_path / "labels.zarr", cluster=cluster)
    assert [item.name for item in scene.parent.iterdir()] == ["scene.tif"]
    assert len(open_image(tmp_path / "labels.zarr").levels) == 2


def test_a_run_that_begins_nothing_leaves_nothing_beside_the_original(
    tmp_path: Path, make_model: Callable[..., Path], one_worker: str
) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    content = bytearray(scene.read_bytes())
    scene.write_bytes(content[:-9])
    with pytest.raises(TilesegmentError):
        ts.segment(scene, make_model(), cluster=ts.ClusterOptions(kind=one_worker))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["model.safetensors", "scene.tif"]


def test_an_import_is_worth_it_where_pixels_are_decoded_again_and_again(
    tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    scene, model = write_scene(tmp_path / "scene.tif"), make_model()
    plan: Plan = ts.plan(scene, model, ts.RunOptions(tile=64))
    image = open_image(scene)
    once = decoded_times(image, plan, reads_all=False)
    assert once == plan.read_amplification > 1
    assert decoded_times(image, plan, reads_all=True) == once + 1
