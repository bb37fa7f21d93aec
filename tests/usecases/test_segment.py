"""A run as its user meets it: what it leaves behind, how it goes on, what it refuses."""

import hashlib
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import (
    ClusterError,
    IncompleteError,
    InputError,
    ModelError,
    OptionError,
    OutputConflictError,
    OutputError,
    TilesegmentError,
)
from tilesegment.execution.cluster import open_cluster
from tilesegment.storage.ledger import read_records
from tilesegment.usecases.workers import Progress

MakeModel = Callable[..., Path]
OPTIONS = RunOptions(tile=32, precision="float32")


def digest(folder: Path) -> dict[str, str]:
    """What every file below a folder holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def chunks(folder: Path) -> dict[str, str]:
    """What every stored object of a label image holds, and their checksums."""
    return {key: value for key, value in digest(folder).items() if "zarr.json" not in key}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Five by four tiles of 32 px, three levels."""
    return write_image(tmp_path / "i.zarr", random_pixels((3, 150, 120), "uint8"), levels=3)


class Stop(Exception):  # noqa: N818 - not an error
    pass


def stop_after(tiles: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.done >= tiles:
            raise Stop

    return report


def test_a_stopped_run_goes_on_where_it_stopped(
    image: Path, make_model: MakeModel, two_workers: str
) -> None:
    model, cluster = make_model(), ClusterOptions(two_workers)
    ts.segment(image, model, labels="whole", options=OPTIONS, cluster=cluster)
    with pytest.raises(Stop):
        ts.segment(image, model, options=OPTIONS, cluster=cluster, report=stop_after(7))
    assert ts.open_image(image).label_names() == ["whole"]
    summary = ts.segment(image, model, options=OPTIONS, cluster=cluster)
    assert (summary.tiles, summary.computed, summary.skipped) == (20, 13, 7)
    labels = image / "labels"
    assert chunks(labels / "model") == chunks(labels / "whole")
    again = ts.segment(image, model, options=OPTIONS, cluster=cluster)
    assert (again.status, again.computed) == ("already complete", 0)
    assert again.shares == summary.shares


def test_overwrite_goes_on_with_its_own_unfinished_run(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    """Whoever typed --overwrite and was interrupted is told to run the same command again."""
    model, cluster = make_model(), ClusterOptions(one_worker)
    ts.segment(image, model, options=OPTIONS, cluster=cluster)
    with pytest.raises(Stop):
        ts.segment(
            image, model, options=OPTIONS, cluster=cluster, overwrite=True, report=stop_after(6)
        )
    summary = ts.segment(image, model, options=OPTIONS, cluster=cluster, overwrite=True)
    assert summary.skipped >= 6


def test_two_runs_on_the_same_labels_do_not_mix(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(one_worker)

    def second(progress: Progress) -> None:
        if progress.done == 3:
            with pytest.raises(OutputError, match="another run is writing"):
                ts.segment(image, model, options=OPTIONS, cluster=cluster)

    summary = ts.segment(image, model, options=OPTIONS, cluster=cluster, report=second)
    assert summary.computed == 20


def test_a_run_that_is_taken_over_stops_and_nothing_is_mixed(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(one_worker)
    ts.segment(image, model, labels="calm", options=OPTIONS, cluster=cluster)
    summaries = []

    def second(progress: Progress) -> None:
        if progress.done == 3:
            summaries.append(
                ts.segment(image, model, options=OPTIONS, cluster=cluster, take_over=True)
            )

    with pytest.raises(OutputError, match="another run has finished .* this one stops"):
        ts.segment(image, model, options=OPTIONS, cluster=cluster, report=second)
    (summary,) = summaries
    assert summary.skipped <= 3
    assert chunks(image / "labels" / "model") == chunks(image / "labels" / "calm")


def test_an_image_that_changed_is_refused_with_the_difference(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(one_worker)
    with pytest.raises(Stop):
        ts.segment(image, model, options=OPTIONS, cluster=cluster, report=stop_after(3))
    (chunk,) = (path for path in (image / "0" / "c").rglob("*") if path.is_file())
    os.utime(chunk, (0, 0))
    with pytest.raises(OutputConflictError, match=r"\(image chunk times: .* there, .* now\)"):
        ts.segment(image, model, options=OPTIONS, cluster=cluster)


def test_the_ledger_is_kept_on_demand_where_no_reader_looks(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    cluster = ClusterOptions(one_worker)
    ts.segment(image, make_model(), options=OPTIONS, cluster=cluster, keep_ledger=True)
    labels = image / "labels" / "model"
    kept = labels / "0" / ".tilesegment" / "ledger" / "tiles-0001.jsonl"
    assert len([record for record in read_records(kept) if record.level == 0]) == 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sorted(name for name, _ in zarr.open_group(labels, mode="r").members()) == [
            "0", "1", "2",
        ]  # fmt: skip


def test_two_runs_share_the_workers_of_one_scheduler(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(one_worker)
    ts.segment(image, model, labels="alone", options=OPTIONS, cluster=cluster)

    def second(progress: Progress) -> None:
        if progress.phase == "tiles" and progress.done == 3:
            ts.segment(image, model, labels="guest", options=OPTIONS, cluster=cluster)

    ts.segment(image, model, labels="host", options=OPTIONS, cluster=cluster, report=second)
    labels = image / "labels"
    assert chunks(labels / "host") == chunks(labels / "guest") == chunks(labels / "alone")


def test_a_relative_path_is_found_by_workers_elsewhere(
    image: Path, make_model: MakeModel, one_worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cluster = make_model(), ClusterOptions(one_worker)
    whole = ts.segment(image, model, labels="absolute", options=OPTIONS, cluster=cluster)
    monkeypatch.chdir(image.parent)
    summary = ts.segment(image.name, model, options=OPTIONS, cluster=cluster)
    assert summary.shares == whole.shares
    assert len(chunks(image / "labels" / "model")) == len(chunks(image / "labels" / "absolute"))


def test_consolidated_metadata_shows_the_labels(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(image)
    ts.segment(image, make_model(), options=OPTIONS, cluster=ClusterOptions(one_worker))
    assert "labels/model/0" in zarr.open_group(image, mode="r")


def test_a_finished_tile_is_not_computed_again(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    """Planted: a tile of another value, noted as done, must still be there at the end."""
    model, cluster = make_model(), ClusterOptions(one_worker)
    with pytest.raises(Stop):
        ts.segment(image, model, options=OPTIONS, cluster=cluster, report=stop_after(5))
    folder = image / "labels" / "model"
    number = next(read_records(folder / ".tilesegment" / "tiles-0001.jsonl")).number
    shard = folder / "0" / "c" / str(number // 4) / str(number % 4)
    planted = shard.stat().st_mtime_ns
    ts.segment(image, model, options=OPTIONS, cluster=cluster)
    assert shard.stat().st_mtime_ns == planted


def test_provenance_tells_how_the_labels_were_made(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    model = make_model()
    ts.segment(image, model, options=OPTIONS, cluster=ClusterOptions(one_worker))
    stored = zarr.open_group(image / "labels" / "model", mode="r").attrs["tilesegment"]
    assert stored["version"] == ts.__version__
    assert stored["fingerprint"]["model"] == ts.model.file.model_hash(model)
    assert stored["plan"] == {
        "tile": 32,
        "halo": 20,
        "level": 0,
        "resampled_by": None,
        "reason": "the model states no pixel size, so scales cannot be compared",
        "blend": None,
        "refinement": None,
    }


def test_shares_add_up_and_are_those_of_the_labels(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    summary = ts.segment(image, make_model(), options=OPTIONS, cluster=ClusterOptions(one_worker))
    labels = zarr.open_array(image / "labels" / "model" / "0", mode="r")[...]
    for value, share in enumerate(summary.shares.values()):
        assert share == pytest.approx((labels == value).mean(), abs=1e-5)


def test_another_tile_size_finds_the_labels_complete(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(one_worker)
    ts.segment(image, model, options=OPTIONS, cluster=cluster)
    other = RunOptions(tile=48, precision="float32")
    assert ts.segment(image, model, options=other, cluster=cluster).status == "already complete"


def test_another_model_is_refused_and_overwrite_replaces(
    image: Path, make_model: MakeModel, one_worker: str, tmp_path: Path
) -> None:
    cluster = ClusterOptions(one_worker)
    ts.segment(image, make_model(), options=OPTIONS, cluster=cluster)
    before = digest(image)
    other = make_model(seed=1)
    with pytest.raises(OutputConflictError, match="model: sha256:.* there, sha256:.* now"):
        ts.segment(image, other, options=OPTIONS, cluster=cluster)
    assert digest(image) == before
    old = chunks(image / "labels" / "model")

    def old_labels_stay(_: Progress) -> None:
        assert chunks(image / "labels" / "model") == old

    summary = ts.segment(
        image, other, options=OPTIONS, cluster=cluster, overwrite=True, report=old_labels_stay
    )
    assert summary.status == "done"
    assert summary.labels == str(image / "labels" / "model")
    assert chunks(image / "labels" / "model") != old
    assert ts.open_image(image).label_names() == ["model"]
    assert {path.name for path in (image / "labels").iterdir()} == {"model", "zarr.json"}


def test_an_unfinished_run_of_another_model_is_refused(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    cluster = ClusterOptions(one_worker)
    with pytest.raises(Stop):
        ts.segment(image, make_model(), options=OPTIONS, cluster=cluster, report=stop_after(3))
    with pytest.raises(OutputConflictError, match="belongs to another run"):
        ts.segment(image, make_model(seed=1), options=OPTIONS, cluster=cluster)


def test_labels_of_another_program_are_not_touched(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    group = zarr.create_group(image / "labels" / "model")
    group.attrs["ome"] = {"version": "0.5", "image-label": {}}
    before = digest(image)
    model, cluster = make_model(), ClusterOptions(one_worker)
    with pytest.raises(OutputError, match="was not made by tilesegment"):
        ts.segment(image, model, options=OPTIONS, cluster=cluster)
    assert digest(image) == before
    summary = ts.segment(image, model, options=OPTIONS, cluster=cluster, overwrite=True)
    assert summary.status == "done"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("output", ["documents", "file.txt", "i.zarr"])
def test_what_is_no_label_image_is_never_replaced(
    output: str, overwrite: bool, image: Path, make_model: MakeModel, tmp_path: Path
) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "thesis.tex").write_text("years of work")
    (tmp_path / "file.txt").write_text("more work")
    model = make_model()
    before = digest(tmp_path)
    with pytest.raises(OutputError, match="is no label image; choose another place"):
        ts.segment(image, model, output=tmp_path / output, overwrite=overwrite)
    assert digest(tmp_path) == before


def test_output_goes_to_a_store_of_its_own(
    image: Path, make_model: MakeModel, one_worker: str, tmp_path: Path
) -> None:
    before = digest(image)
    ts.segment(
        image, make_model(), options=OPTIONS, cluster=ClusterOptions(one_worker),
        output=tmp_path / "labels.zarr",
    )  # fmt: skip
    assert digest(image) == before
    assert ts.open_image(tmp_path / "labels.zarr").levels[0].shape == (150, 120)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_any_level_can_be_segmented_and_all_are_written(
    level: int, image: Path, make_model: MakeModel, one_worker: str
) -> None:
    options = RunOptions(level=level, tile=32, precision="float32")
    ts.segment(image, make_model(), options=options, cluster=ClusterOptions(one_worker))
    group = zarr.open_group(image / "labels" / "model", mode="r")
    source = zarr.open_group(image, mode="r")
    for name in "012":
        assert group[name].shape == source[name].shape[1:]
    assert len(np.unique(group["0"][...])) > 1
    if level:
        fine, coarse = group["0"][...], group[str(level)][...]
        factor = 2**level
        expected = coarse.repeat(factor, 0).repeat(factor, 1)[: fine.shape[0], : fine.shape[1]]
        np.testing.assert_array_equal(fine, expected)


def test_a_chunk_lost_from_a_finished_run_is_an_error_in_strict_readers(
    image: Path, make_model: MakeModel, one_worker: str
) -> None:
    """Every shard of every level is stored, also where all is background."""
    ts.segment(image, make_model(), options=OPTIONS, cluster=ClusterOptions(one_worker))
    labels = image / "labels" / "model"
    for name, shards in (("0", 5 * 4), ("1", 3 * 2), ("2", 2 * 1)):
        stored = [path for path in (labels / name / "c").rglob("*") if path.is_file()]
        assert len(stored) == shards


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system that is soon full."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a small file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_stops_the_run_and_it_goes_on_later(
    image: Path, make_model: MakeModel, one_worker: str, tmp_path: Path
) -> None:
    model, cluster = make_model(), ClusterOptions(one_worker)
    ts.segment(image, model, labels="whole", options=OPTIONS, cluster=cluster)
    with small_disk(tmp_path / "disk", "160k") as disk:
        filler = disk / "filler"
        filler.write_bytes(b"x" * 80 * 1024)
        output = disk / "labels.zarr"
        with pytest.raises(IncompleteError, match="no space left .* run the same command again"):
            ts.segment(image, model, options=OPTIONS, cluster=cluster, output=output)
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        summary = ts.segment(image, model, options=OPTIONS, cluster=cluster, output=output)
        assert summary.skipped > 0
        assert chunks(output) == chunks(image / "labels" / "whole")


def nan_image(path: Path) -> Path:
    pixels = random_pixels((3, 90, 90), "float32")
    pixels[0, 80, 80] = np.nan
    return write_image(path, pixels)


def truncated(model: Path) -> Path:
    model.write_bytes(model.read_bytes()[:-10])
    return model


def run(image: Path, model: Path | str, cluster: str, **changes: Any) -> None:
    options = changes.pop("options", OPTIONS)
    kind = changes.pop("kind", cluster)
    ts.segment(image, model, options=options, cluster=ClusterOptions(kind), **changes)


BAD: dict[str, tuple[type[TilesegmentError], str, Callable[[Path, MakeModel, str], None]]] = {
    "no such image": (
        InputError, "there is no image at",
        lambda image, make, address: run(image / "nowhere", make(), address),
    ),
    "level out of range": (
        OptionError, "level 7 does not exist: .* has levels 0 to 2",
        lambda image, make, address: run(image, make(), address, options=RunOptions(level=7)),
    ),
    "float image with NaN": (
        InputError, "holds nan at plane 0, channel 0, row 80, column 80",
        lambda image, make, address: run(nan_image(image.with_name("n.zarr")), make(), address),
    ),
    "channels do not fit": (
        ModelError, r"the model takes 2 channel\(s\), .* has 3",
        lambda image, make, address: run(image, make(in_channels=2), address),
    ),
    "tile off the grid": (
        OptionError, "tile 50 is not a multiple of 4, .*; use 48 or 52",
        lambda image, make, address: run(image, make(), address, options=RunOptions(tile=50)),
    ),
    "truncated model": (
        ModelError, "is truncated",
        lambda image, make, address: run(image, truncated(make()), address),
    ),
    "model of another kind": (
        ModelError, "is not a safetensors file",
        lambda image, make, address: run(image, image / "zarr.json", address),
    ),
    "no such model": (
        ModelError, "there is no model tumor: neither a file nor a bundled model",
        lambda image, make, address: run(image, "tumor", address),
    ),
    "precision that the CPU lacks": (
        OptionError, "this CPU cannot compute in float16; use --precision float32",
        lambda image, make, address: run(
            image, make(), address, options=RunOptions(tile=32, precision="float16")
        ),
    ),
    "memory limit that is no size": (
        OptionError, "--memory-limit 8 GX is no size",
        lambda image, make, address: ts.segment(
            image, make(), options=OPTIONS, cluster=ClusterOptions(memory_limit="8 GX")
        ),
    ),
    "no scheduler": (
        ClusterError, "no dask scheduler answers at tcp://127.0.0.1:9",
        lambda image, make, address: run(image, make(), address, kind="tcp://127.0.0.1:9"),
    ),
    "unknown cluster": (
        OptionError, "--cluster cloud is not known",
        lambda image, make, address: run(image, make(), address, kind="cloud"),
    ),
    "workers of another's cluster": (
        OptionError, "--workers and --memory-limit are for workers that this command starts",
        lambda image, make, address: ts.segment(
            image, make(), options=OPTIONS, cluster=ClusterOptions(address, workers=2)
        ),
    ),
    "name that leaves the image": (
        OutputError, "cannot name a label image",
        lambda image, make, address: run(image, make(), address, labels="../../evil"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(
    fault: str, image: Path, make_model: MakeModel, one_worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilesegment.execution.cluster._CONNECT_SECONDS", 1)
    if "CPU lacks" in fault and torch.ops.mkldnn._is_mkldnn_fp16_supported():
        pytest.skip("this CPU computes in float16")
    kind, message, attempt = BAD[fault]
    before = digest(image)
    with pytest.raises(kind, match=message) as caught:
        attempt(image, make_model, one_worker)
    assert "\n" not in str(caught.value)
    assert digest(image) == before
    assert not (image / "labels").exists()
    assert not (image.with_name("n.zarr") / "labels").exists()


def test_nan_found_late_leaves_no_labels(
    make_model: MakeModel, one_worker: str, tmp_path: Path
) -> None:
    """Where the coarsest level hides it, the tile that reads it stops the run."""
    pixels = random_pixels((3, 64, 64), "float32")
    pixels[0, 33, 33] = np.inf
    image = write_image(tmp_path / "i.zarr", pixels, levels=2)
    with pytest.raises(InputError, match="holds inf at plane 0, channel 0, row 33, column 33"):
        run(image, make_model(), one_worker, options=RunOptions(tile=64, precision="float32"))
    assert not (image / "labels").exists()


def test_a_killed_worker_changes_nothing(make_model: MakeModel, tmp_path: Path) -> None:
    """Its tiles are computed elsewhere; the model reaches the worker that takes its place."""
    image = write_image(tmp_path / "i.zarr", random_pixels((3, 300, 300), "uint8"))
    model = make_model()
    with open_cluster(ClusterOptions(workers=2)) as client:
        cluster = ClusterOptions(client.scheduler.address)
        ts.segment(image, model, labels="calm", options=OPTIONS, cluster=cluster)
        killed: list[int] = []

        def kill_at_20(progress: Progress) -> None:
            if progress.done == 20 and not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

        summary = ts.segment(
            image, model, labels="stormy", options=OPTIONS, cluster=cluster, report=kill_at_20
        )
    assert killed
    assert summary.computed == 100
    assert chunks(image / "labels" / "stormy") == chunks(image / "labels" / "calm")


def test_the_driver_needs_no_torch(image: Path, make_model: MakeModel, one_worker: str) -> None:
    """It would take two seconds of each run and two hundred megabytes."""
    code = (
        "import sys, tilesegment as ts\n"
        f"cluster = ts.ClusterOptions({one_worker!r})\n"
        f"ts.segment({str(image)!r}, {str(make_model())!r}, cluster=cluster, verify=1)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
