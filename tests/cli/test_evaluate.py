"""`tilesegment evaluate` as it is typed."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from tilesegment_cli.main import main


@pytest.fixture
def folders(tmp_path):
    for folder, step in (("truth", 0), ("predicted", 1)):
        (tmp_path / folder).mkdir()
        for name in ("a_1", "a_2", "b_1"):
            labels = np.zeros((8, 9), np.uint8)
            labels[2:5, 2 + step : 6] = 1
            Image.fromarray(labels).save(tmp_path / folder / f"{name}.png")
    return tmp_path


@pytest.fixture
def tilesegment(monkeypatch, capsys):
    """Run a command in this process; returns exit code, stdout and stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["tilesegment", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run


def test_json_has_the_keys_that_scripts_rely_on(tilesegment, folders):
    words = "evaluate", folders / "predicted", folders / "truth", "--json", "--by-group"
    code, stdout, stderr = tilesegment(*words)
    found = json.loads(stdout)
    assert (code, stderr) == (0, "")
    assert found["pixel_error"] == pytest.approx(3 / 72)
    assert found["classes"]["foreground"] == {"iou": 9 / 12, "dice": 18 / 21}
    assert found["confusion"] == [[180, 0], [9, 27]]
    assert set(found["by_group"]) == {"a", "b"}
    assert set(found["by_picture"]) == {"a_1", "a_2", "b_1"}
    assert not {"instances", "boundaries"} & set(found)
    _, stdout, _ = tilesegment(*words, "--kind", "instances")
    assert json.loads(stdout)["instances"]["thresholds"]["0.70"]["f1"] == 1


def test_tables_are_for_people(tilesegment, folders):
    picture = folders / "e.png"
    words = "evaluate", folders / "predicted", folders / "truth", "--picture", picture
    code, stdout, _ = tilesegment(*words, "--kind", "instances", "--by-group")
    assert code == 0
    for text in ("a_2", "group b", "mean of groups", "panoptic quality", "IoU above", "0.0417"):
        assert text in stdout
    assert Image.open(picture).size[0] > 27
    _, stdout, _ = tilesegment(*words, "--names", "x,y,z")
    assert "truth \\ predicted" in stdout


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
def test_bad_input_is_one_line(words, code, message, tilesegment, folders, monkeypatch):
    monkeypatch.chdir(folders)
    found, stdout, stderr = tilesegment("evaluate", *words)
    assert (found, stdout) == (code, "")
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last
    assert code == 2 or stderr.count("\n") == 1
