"""The commands as they are typed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image as PILImage

import tilesegment as ts
from tests.pictures import random_model, random_pixels, write_image
from tilesegment.storage.ledger import read_records

PROGRAM = Path(sys.executable).with_name("tilesegment")
COMMANDS = [
    "import",
    "info",
    "plan",
    "run",
    "verify",
    "clean",
    "objects",
    "export",
    "view",
    "check",
    "models",
    "train",
    "calibrate",
    "evaluate",
]
MakeModel = Callable[..., Path]
Done = subprocess.CompletedProcess[str]
Typed = Callable[..., Done]


def tilesegment(*words: object) -> Done:
    """The program, in a process of its own."""
    return subprocess.run(
        [PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "i.zarr", random_pixels((3, 100, 130), "uint8"), levels=2)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A folder with an image i.zarr, a model, and report.html; and the run that segmented it."""
    folder = tmp_path_factory.mktemp("ran")
    image = write_image(folder / "i.zarr", random_pixels((3, 100, 130), "uint8"), levels=2)
    words = ["run", image, "--model", random_model(folder), "--labels", "cells", "--tile", 32]
    options = ["--workers", "1:2", "--performance-report", folder / "report.html", "--verify", 2]
    # dask's report must bear what tiles tell of their steps.
    options += ["--feed", "tile", "--precision", "float32", "--json"]
    return folder, tilesegment(*words, *options)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_itself(command: str, typed: Typed) -> None:
    result = typed(command, "--help")
    assert result.returncode == 0
    assert "\\b" not in result.stdout
    assert command == "models" or f"tilesegment {command}" in result.stdout.split("Examples:")[1]
    assert command in typed("--help").stdout


def test_info_tells_of_a_bundled_model_by_its_name(typed: Typed) -> None:
    told = typed("info", "nuclei").stdout
    assert "0 background, 1 nucleus" in told
    assert max(map(len, told.splitlines())) < 200
    assert json.loads(typed("info", "nuclei", "--json").stdout)["training"]["recipe"]


def test_run_on_the_embedded_cluster_and_again(
    ran: tuple[Path, Done], typed: Typed, tmp_path: Path
) -> None:
    folder, first = ran
    image = folder / "i.zarr"
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout)
    assert (summary["status"], summary["tiles"], summary["computed"]) == ("done", 20, 20)
    assert {"labels", "skipped", "seconds", "megapixels_per_second"} <= set(summary)
    assert "Dashboard: http://127.0.0.1:" in first.stderr
    assert "Segmenting: 20 of 20 tiles" in first.stderr
    assert "INFO" not in first.stderr
    assert "\x1b" not in first.stderr
    model = folder / "model.safetensors"
    again = typed(
        "run", image, "--model", model, "--labels", "cells", "--tile", 32, "--precision", "float32"
    )
    assert again.returncode == 0
    assert again.stdout.startswith("Already complete")
    overlay = tmp_path / "o.png"
    assert typed("export", image, overlay, "--labels", "cells").returncode == 0
    assert PILImage.open(overlay).size[0] == 130
    assert "cells" in typed("info", image).stdout


def test_run_tells_of_its_workers(ran: tuple[Path, Done], typed: Typed) -> None:
    folder, done = ran
    told = json.loads(done.stdout)["cluster"]
    assert sum(worker["tiles"] for worker in told["workers"]) == 20
    assert {"megapixels_per_second", "idle_share"} <= set(told["workers"][0])
    assert {"retries", "moved_bytes"} <= set(told)
    assert "<html" in (folder / "report.html").read_text()
    wrong = typed("run", folder / "i.zarr", "--workers", "4:2")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "write 2:16" in wrong.stderr


def test_plan_prints_its_keys_and_writes_nothing(
    image: Path, make_model: MakeModel, typed: Typed
) -> None:
    before = sorted(image.rglob("*"))
    result = typed("plan", image, "--model", make_model(), "--tile", 48, "--json")
    facts = json.loads(result.stdout)
    assert (facts["level"], facts["tile"], facts["halo"], facts["tiles"]) == (0, 48, 20, 9)
    assert {
        "regions", "compute_amplification", "read_amplification", "worker_memory_bytes",
        "output_bytes", "seconds",
    } <= set(facts)  # fmt: skip
    assert facts["seconds"] > 0
    assert sorted(image.rglob("*")) == before


def test_plan_for_people(image: Path, make_model: MakeModel, typed: Typed) -> None:
    result = typed("plan", image, "--model", make_model())
    assert "Halo:      20 px per side (border 20, alignment 4)" in result.stdout


def test_plan_and_run_tell_what_a_partition_does(
    image: Path, make_model: MakeModel, typed: Typed, one_worker: str
) -> None:
    words = [image, "--model", make_model(), "--tile", 32, "--partition", "2/3"]
    facts = json.loads(typed("plan", *words, "--json").stdout)
    assert (facts["tiles"], facts["partition"], facts["partition_tiles"]) == (20, "2/3", 7)
    assert "Partition: 2/3: 7 of the tiles" in typed("plan", *words).stdout
    done = typed("run", *words, "--cluster", one_worker)
    assert done.returncode == 0, done.stderr
    assert "Partition 2/3 done: 7 tiles; not finished yet: 1, 3." in done.stdout
    refused = typed("run", *words[:-1], "0/3")
    assert refused.returncode == 2
    assert "(for a job array: --array=1-3)" in refused.stderr


def test_plan_says_which_pixels_the_network_is_shown(
    image: Path, make_model: MakeModel, typed: Typed
) -> None:
    words = ["plan", image, "--model", make_model(), "--pixel-size"]
    fits = typed(*words, 1)
    assert "level 1: 50 x 65 px" in fits.stdout
    assert "Scale:     as it is (--pixel-size 1, and its pixels are 1 um)" in fits.stdout
    resampled = typed(*words, 0.8)
    assert "Scale:     resampled, 1.6 px to one (--pixel-size 0.8, and no level" in resampled.stdout
    facts = json.loads(typed(*words, 0.8, "--json").stdout)
    assert (facts["level"], facts["resampled_by"]) == (0, [1.6, 1.6])


def test_verify_prints_its_keys_and_fails_where_labels_differ(
    ran: tuple[Path, Done], typed: Typed, tmp_path: Path
) -> None:
    folder, made = ran
    assert json.loads(made.stdout)["verified"] == 2
    image = Path(shutil.copytree(folder / "i.zarr", tmp_path / "i.zarr"))
    labels = zarr.open_array(image / "labels" / "cells" / "0")
    labels[...] = (labels[...] + 1) % 3
    result = typed("verify", image, "--labels", "cells", "--windows", 6, "--json")
    assert result.returncode == 1
    found = json.loads(result.stdout)
    assert (found["windows"], found["largest_difference"], found["damaged"]) == (6, 0.0, [])
    assert found["differing_labels"] > 0
    assert "labels are not those that the model gives" in result.stderr


def test_plan_counts_what_a_mask_spares(
    image: Path, make_model: MakeModel, typed: Typed, tmp_path: Path
) -> None:
    mask = tmp_path / "mask.zarr"
    zarr.create_array(mask, data=np.eye(1, 5, dtype="uint8"))
    words = ["plan", image, "--model", make_model(), "--tile", 32, "--mask", mask]
    assert json.loads(typed(*words, "--json").stdout)["masked"] == 16
    assert "20 of 32 px, 16 of them outside the mask, in 1 region" in typed(*words).stdout


def test_options_come_from_the_environment(
    image: Path, make_model: MakeModel, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILESEGMENT_PLAN_TILE", "64")
    result = typed("plan", image, "--model", make_model(), "--json")
    assert json.loads(result.stdout)["tile"] == 64


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "nowhere.zarr"], 1, "nowhere.zarr; give the path of an OME-Zarr image"),
        (["run"], 2, "Missing argument 'IMAGE'"),
        (["run", "IMAGE", "--repair", "--overwrite"], 2, "leave out the other options of a run"),
        (["run", "IMAGE", "--cluster", "tcp://10.0.0.5:8786"], 2, "use tls:// with certificates"),
        (["verify", "IMAGE", "--deep"], 1, "has no checksums"),
        (["run", "IMAGE", "--tile", "many"], 2, "'many' is neither auto nor a number"),
        (["run", "IMAGE", "--model", "MODEL", "--tile", "50"], 2, "use 48 or 52"),
        (["run", "IMAGE", "--model", "MODEL", "--level", "9"], 2, "has levels 0 to 1"),
        (["run", "IMAGE", "--model", "MODEL", "--pixel-size", "0"], 2, "not in the range x>0"),
        (["run", "IMAGE", "--model", "MODEL", "--pixel-size", "99"], 2, "8 times at most"),
        (["run", "IMAGE", "--model", "MODEL", "--overlap", "0.3"], 2, "add --blend gaussian"),
        (
            ["run", "IMAGE", "--model", "MODEL", "--pixel-size", "1", "--level", "1"],
            2,
            "--level and --pixel-size exclude each other",
        ),
        (
            ["run", "IMAGE", "--model", "MODEL", "--cluster", "moon"],
            2,
            "--cluster moon is not known",
        ),
        (["run", "IMAGE", "--model", "MODEL", "--mask", "tisue"], 1, "there is no mask at tisue"),
        (["verify", "IMAGE", "--labels", "x"], 1, "there is no label image at"),
        (["verify", "IMAGE", "--windows", "-1"], 2, "-1 is not in the range x>=0"),
        (["info", "MODEL.safetensors"], 1, "cannot read the model"),
        (["export", "IMAGE", "o.png", "--labels", "x"], 1, "has no labels 'x'; there are: none"),
        (["export", "IMAGE", "o.gif"], 2, "its ending says no format that can be written"),
        (["export", "IMAGE", "o.tif"], 1, "has no labels; there are: none"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    words: list[str], code: int, message: str, image: Path, make_model: MakeModel, typed: Typed
) -> None:
    places = {"IMAGE": image, "MODEL": make_model()}
    result = typed(*(places.get(word, word) for word in words))
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr
    assert not (image / "labels").exists()


@pytest.mark.parametrize(("words", "code"), [(["nowhere.zarr"], 1), ([], 2)])
def test_a_process_ends_with_the_code_and_without_a_traceback(words: list[str], code: int) -> None:
    result = tilesegment("run", *words)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in result.stderr


def test_no_gpu_is_one_line_at_once(image: Path, make_model: MakeModel, typed: Typed) -> None:
    from tilesegment.execution.cluster import count_gpus

    if count_gpus():
        pytest.skip("this machine has a GPU")
    result = typed("run", image, "--model", make_model(), "--cluster", "gpu")
    assert result.returncode == 1
    assert result.stderr.startswith("Error: no GPU found")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGINT, 4, "stopped; run the same command again to go on"),
        (signal.SIGTERM, 75, "asked to stop (SIGTERM); run the same command again to go on"),
    ],
)
def test_a_signal_keeps_finished_tiles(
    number: int,
    code: int,
    message: str,
    make_model: MakeModel,
    tmp_path: Path,
    typed: Typed,
    one_worker: str,
) -> None:
    pixels = random_pixels((3, 320, 320), "uint8")
    image = write_image(tmp_path / "i.zarr", pixels, chunks=(3, 160, 160))
    words = ["run", image, "--model", make_model(base_channels=8), "--tile", "32"]
    command = [PROGRAM, *map(str, words)]
    run = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell in the background ignores the signal, and whatever it starts inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    records = image / "labels" / "model" / ".tilesegment" / "tiles-0001.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (records.exists() and records.stat().st_size):
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(run.pid, number)
    else:
        os.kill(run.pid, number)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == code, stderr
    assert message in stderr
    assert "Traceback" not in stderr
    # A record that was being written when the signal came may be there twice.
    done = len({record.number for record in read_records(records)})
    assert 0 < done < 100
    assert ts.open_image(image).label_names() == []
    result = typed(*words, "--cluster", one_worker, "--json")
    assert json.loads(result.stdout)["skipped"] == done


def test_check_prints_one_object_with_the_keys_that_scripts_rely_on(
    make_model: MakeModel, typed: Typed
) -> None:
    result = typed("check", make_model(depth=1), "--json")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert (facts["local"], facts["border"], facts["alignment"]) == (True, 8, 2)
    assert result.stderr == ""
