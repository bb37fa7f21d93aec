"""`tilesegment run` over several images, as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_commands import Typed, tilesegment
from tests.pictures import random_pixels, write_image
from tilesegment.errors import IncompleteError, InputError, OutputConflictError, QuarantineError
from tilesegment.usecases.batch import ImageOutcome
from tilesegment_cli.batch import exit_code
from tilesegment_cli.images import find_images, is_pattern

MakeModel = Callable[..., Path]


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Three images in a folder; the second is no image."""
    folder = tmp_path / "slides"
    for number in (1, 3):
        write_image(folder / f"{number}.zarr", random_pixels((3, 40, 40), "uint8", seed=number))
    (folder / "2.zarr").mkdir()
    return folder


def test_a_quoted_pattern_is_one_batch(
    slides: Path, make_model: MakeModel, typed: Typed, one_worker: str
) -> None:
    words = ["run", f"{slides}/*.zarr", "--model", make_model(), "--tile", 32]
    first = tilesegment(*words, "--json")
    assert first.returncode == 1, first.stderr
    told = json.loads(first.stdout)
    assert (told["status"], told["exit_code"]) == ("incomplete", 1)
    assert (told["total"], told["finished"]) == (3, 2)
    assert [image["status"] for image in told["images"]] == ["done", "failed", "done"]
    assert "2.zarr" in told["images"][1]["error"]
    assert "[2 of 3]" in first.stderr
    assert first.stderr.count("Dashboard: ") == 1
    assert "Traceback" not in first.stderr
    write_image(slides / "2.zarr", random_pixels((3, 40, 40), "uint8", seed=2))
    again = typed(*words, "--cluster", one_worker)
    assert again.returncode == 0, again.stderr
    table = [line.split() for line in again.stdout.splitlines()]
    assert table[0][:5] == ["Image", "Status", "Tiles", "Computed", "Time"]
    assert [row[1] for row in table[1:4]] == ["already", "done", "already"]
    assert again.stdout.endswith("3 of 3 images have labels\n")
    assert "\x1b" not in again.stdout + again.stderr


def test_a_list_names_images_and_patterns(
    slides: Path, make_model: MakeModel, typed: Typed, one_worker: str
) -> None:
    listed = slides / "list.txt"
    listed.write_text(f"# mine\n\n{slides}/1.zarr\n{slides}/[13].zarr\n")
    words = ["run", "--from", listed, "--model", make_model(), "--tile", 32, "--json"]
    for part, status, finished in (("1/2", "partition done", 0), ("2/2", "done", 2)):
        result = typed(*words, "--partition", part, "--cluster", one_worker)
        assert result.returncode == 0, result.stderr
        told = json.loads(result.stdout)
        assert [Path(image["image"]).name for image in told["images"]] == ["1.zarr", "3.zarr"]
        assert (told["status"], told["finished"]) == (status, finished)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["SLIDES/*.tif"], 1, "no image fits"),
        (["--from", "SLIDES/absent.txt"], 2, "No such file"),
        (
            ["SLIDES/*.zarr", "--output", "o.zarr"],
            2,
            "--performance-report are for one image",
        ),
        (["SLIDES/1.zarr", "SLIDES/3.zarr", "--model", "absent"], 1, "absent"),
        ([], 2, "Missing argument 'IMAGE'; or give a list: --from FILE"),
    ],
)
def test_bad_words_are_one_line_before_any_image(
    words: list[str], code: int, message: str, slides: Path, typed: Typed
) -> None:
    result = typed("run", *(word.replace("SLIDES", str(slides)) for word in words))
    assert result.returncode == code
    assert message in result.stderr
    assert result.stdout == ""


def test_a_path_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    odd = tmp_path / "slide[1].zarr"
    odd.mkdir()
    assert not is_pattern(str(odd))
    assert find_images([str(odd)], None) == [str(odd)]
    assert not is_pattern("s3://bucket/slide?.zarr")


def test_the_exit_code_is_the_worst() -> None:
    good = ImageOutcome("a", None)
    again = ImageOutcome("b", None, IncompleteError("stopped"))
    listed = ImageOutcome("c", None, QuarantineError("tiles"))
    other = ImageOutcome("d", None, OutputConflictError("another model"))
    bad = ImageOutcome("e", None, InputError("no image"))
    assert exit_code([]) == 0
    assert exit_code([good, again]) == 4
    assert exit_code([again, listed, good]) == 5
    assert exit_code([other, listed]) == 3
    assert exit_code([bad, other, again]) == 1
