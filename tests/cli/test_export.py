"""``tilesegment export`` and ``info`` as they are typed."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.storage.exporting.labelled_images import SCENE, blobs, write_labelled
from tilesegment_cli.export import export
from tilesegment_cli.info import info


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_labelled(tmp_path / "i.zarr", blobs(90, 70), place=SCENE)


def typed(*words: object) -> Result:
    result = CliRunner().invoke(export, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def test_one_json_object_on_stdout(scene: Path) -> None:
    out = scene.with_name("o.gpkg")
    facts = json.loads(typed(scene, out, "--json").stdout)
    assert (facts["path"], facts["labels"]) == (str(out), "cells")
    assert facts["polygons"] > 10
    assert facts["bytes"] == out.stat().st_size


def test_a_line_for_people_and_the_options_of_polygons(scene: Path) -> None:
    out = scene.with_name("o.gpkg")
    every = json.loads(typed(scene, out, "--json").stdout)["polygons"]
    words = ["--class", "nucleus", "--class", 2, "--min-area", 50, "--simplify", 1.5]
    line = typed(scene, out, *words, "--overwrite").stdout
    assert line.startswith(f"{out}: ")
    assert line.endswith(" s\n")
    assert 0 < int(line.split(": ")[1].split(" polygons")[0]) < every


def test_info_says_where_a_scene_lies(scene: Path) -> None:
    facts = json.loads(CliRunner().invoke(info, [str(scene), "--json"]).stdout)
    assert facts["crs"] == "EPSG:32616"
    assert facts["affine"] == list(SCENE.transform)
