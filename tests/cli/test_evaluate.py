"""`tilesegment evaluate` as it is typed."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folders(tmp_path):
    for folder, step in (("truth", 0), ("predicted", 1)):
        (tmp_path / folder).mkdir()
        for name in ("a_1", "a_2", "b_1"):
            labels = np.zeros((8, 9), np.uint8)
            labels[2:5, 2 + step : 6] = 1
            Image.fromarray(labels).save(tmp_path / folder / f"{name}.png")
    return tmp_path


def test_json_has_the_keys_that_scripts_rely_on(typed, folders):
    words = "evaluate", folders / "predicted", folders / "truth", "--json", "--by-group"
    result = typed(*words)
    found = json.loads(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")
    assert found["pixel_error"] == pytest.approx(3 / 72)
    assert found["classes"]["foreground"] == {"iou": 9 / 12, "dice": 18 / 21}
    assert found["confusion"] == [[180, 0], [9, 27]]
    assert set(found["by_group"]) == {"a", "b"}
    assert set(found["by_picture"]) == {"a_1", "a_2", "b_1"}
    assert not {"instances", "boundaries"} & set(found)
    assert (
        json.loads(typed(*words, "--kind", "instances").stdout)["instances"]["thresholds"]["0.70"][
            "f1"
        ]
        == 1
    )


def test_tables_are_for_people(typed, folders):
    picture = folders / "e.png"
    words = "evaluate", folders / "predicted", folders / "truth", "--picture", picture
    result = typed(*words, "--kind", "instances", "--by-group")
    assert result.returncode == 0
    for text in ("a_2", "group b", "mean of groups", "panoptic quality", "IoU above", "0.0417"):
        assert text in result.stdout
    assert Image.open(picture).size[0] > 27
    assert "truth \\ predicted" in typed(*words, "--names", "x,y,z").stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["truth", "nowhere"], 1, "there is nothing at"),
        (["truth", "truth/a_1.png"], 2, "give two folders, or two files"),
        (["truth", "truth", "--model", "moon"], 1, "there is no model moon"),
        (["truth", "truth", "--model", "nuclei"], 1, "takes 3 channel(s)"),
        (["truth", "truth", "--thresholds", "few"], 2, "'few' is not a list"),
        (["truth", "truth", "--ignore", "red"], 2, "neither a number nor #rrggbb"),
        (["truth", "truth", "--picture", "e.gif"], 2, "must be called NAME.png"),
        (["truth", "truth", "--picture", "no/where/e.png"], 1, "cannot write"),
    ],
)
def test_bad_input_is_one_line(words, code, message, typed, folders, monkeypatch):
    monkeypatch.chdir(folders)
    result = typed("evaluate", *words)
    assert (result.returncode, result.stdout) == (code, "")
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last
    assert code == 2 or result.stderr.count("\n") == 1
