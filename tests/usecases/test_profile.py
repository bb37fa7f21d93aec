"""`run --profile`, on real workers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import OutputError
from tilesegment.usecases.workers import Progress

MakeModel = Callable[..., Path]


def test_a_profile_tells_of_every_tile_and_step(tmp_path: Path, make_model: MakeModel) -> None:
    image = write_image(tmp_path / "i.zarr", random_pixels((3, 90, 100), "uint8"), levels=2)
    ts.segment(
        image,
        make_model(),
        options=RunOptions(tile=32, precision="float32"),
        cluster=ClusterOptions(workers=2),
        profile=tmp_path / "profile",
    )
    found = json.loads((tmp_path / "profile" / "profile.json").read_text())
    assert (found["tiles"], found["workers"]) == (12, 2)
    assert sum(one["tiles"] for one in found["per_worker"].values()) == 12
    assert all(found["steps"][step] > 0 for step in ("reading", "halo", "inference", "writing"))
    assert found["steps"]["levels"] > 0
    assert found["steps"]["other"] == found["steps"]["resampling"] == 0
    assert found["sent_bytes"] > 0
    assert "<svg" in (tmp_path / "profile" / "profile.svg").read_text()


def test_a_place_for_the_profile_that_cannot_be_written_ends_the_run_before_it_begins(
    tmp_path: Path, make_model: MakeModel
) -> None:
    image = write_image(tmp_path / "i.zarr", random_pixels((3, 90, 100), "uint8"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the profile"):
        ts.segment(image, make_model(), profile=tmp_path / "file" / "below")
    assert not (image / "labels").exists()


def test_a_run_that_stops_leaves_its_profile(tmp_path: Path, make_model: MakeModel) -> None:
    image = write_image(tmp_path / "i.zarr", random_pixels((3, 90, 100), "uint8"))

    def stop(progress: Progress) -> None:
        if progress.phase == "tiles" and progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ts.segment(
            image,
            make_model(),
            options=RunOptions(tile=32, precision="float32"),
            profile=tmp_path / "profile",
            report=stop,
        )
    found = json.loads((tmp_path / "profile" / "profile.json").read_text())
    assert found["tiles"] >= 5
