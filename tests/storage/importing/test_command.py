"""``tilesegment import`` as it is typed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from tilesegment.errors import OutputError
from tilesegment_cli.import_ import import_


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "t.tif", np.zeros((20, 30), np.uint8))
    return tmp_path / "t.tif"


def test_one_json_object_on_stdout(picture: Path) -> None:
    output = picture.with_name("t.zarr")
    result = CliRunner().invoke(
        import_, [str(picture), str(output), "--pixel-size", "0.5", "--json"]
    )
    facts = json.loads(result.stdout)
    assert facts["path"] == str(output)
    assert facts["shape"] == [1, 20, 30]
    assert facts["pixel_size_um"] == {"y": 0.5, "x": 0.5, "z": None}
    assert output.is_dir()


def test_a_line_for_people(picture: Path) -> None:
    arguments = [str(picture), str(picture.with_name("t.zarr"))]
    result = CliRunner().invoke(import_, arguments)
    assert "1 x 20 x 30 (c, y, x), uint8, 1 levels, unknown pixel size" in result.stdout
    again = CliRunner().invoke(import_, arguments)
    assert isinstance(again.exception, OutputError)
    assert CliRunner().invoke(import_, [*arguments, "--overwrite"]).exit_code == 0


def test_help_has_examples() -> None:
    assert "tilesegment import slide.svs slide.zarr" in CliRunner().invoke(import_, "--help").output


def test_parts_as_they_are_typed(picture: Path) -> None:
    arguments = [str(picture), str(picture.with_name("t.zarr")), "--json"]
    given = ["--region", "2,3,10,20", "--bands", "1", "--level", "0"]
    facts = json.loads(CliRunner().invoke(import_, [*arguments, *given]).stdout)
    assert facts["shape"] == [1, 10, 20]
    for wrong, message in (("1,2,3", "has 3 numbers, not 4"), ("a,b,c,d", "no list of whole")):
        result = CliRunner().invoke(import_, [*arguments, "--region", wrong])
        assert result.exit_code == 2
        assert message in result.stderr


@pytest.mark.parametrize("command", [["import", "cut.svs", "cut.zarr"], ["info", "cut.svs"]])
def test_a_slide_that_is_cut_short_is_one_line(
    slide: Path, tmp_path: Path, command: list[str]
) -> None:
    whole = slide.read_bytes()
    (tmp_path / "cut.svs").write_bytes(whole[: len(whole) // 2])
    code = "from tilesegment_cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: cut.svs: the TIFF is damaged or cut short")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.svs"]
