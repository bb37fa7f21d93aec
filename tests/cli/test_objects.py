import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.storage.exporting.labelled_images import blobs, write_labelled
from tilesegment.errors import OutputError
from tilesegment_cli.main import tilesegment


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_labelled(tmp_path / "i.zarr", blobs(90, 70))


def invoke(*words: object) -> str:
    result = CliRunner().invoke(tilesegment, [*map(str, words)], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_clean_then_objects(image: Path, tmp_path: Path, one_worker: str) -> None:
    on = ("--cluster", one_worker)
    text = invoke("clean", image, "--min-area", 30, "--fill-holes", 30, *on)
    assert text.splitlines()[0] == f"Labels:  {image}/labels/cells-clean"
    table = tmp_path / "t.csv"
    words = ("objects", image, "--labels", "cells-clean", "--table", table, "--tile", 32)
    found = json.loads(invoke(*words, *on, "--json"))
    assert found["objects"] == len(table.read_text().splitlines()) - 1 > 3
    assert found["classes"].keys() == {"nucleus", "stroma"}
    assert found["labels"].endswith("cells-clean-objects")
    text = invoke(*words, "--split", "distance", "--overwrite", *on)
    assert "Objects: " in text
    assert f"Table:   {table}" in text


def test_what_exists_is_not_replaced(image: Path, tmp_path: Path, one_worker: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        invoke("objects", image, "--table", table, "--cluster", one_worker)
    assert table.read_text() == "mine"
    assert not (image / "labels" / "cells-objects").exists()
