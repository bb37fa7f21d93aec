"""Objects and cleaning as a user meets them: through a scheduler, into a store."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import tifffile
import zarr
from ome_zarr_models import open_ome_zarr
from scipy import ndimage
from skimage.measure import regionprops

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tests.storage.exporting.labelled_images import CLASSES, add_labels
from tilesegment.config import ClusterOptions
from tilesegment.errors import InputError, OptionError, OutputError
from tilesegment.storage.exporting import overview
from tilesegment.storage.measurements import open_measurements
from tilesegment.usecases.deep import check_objects
from tilesegment.usecases.workers import Progress

HEIGHT, WIDTH = 190, 157


def classes(planes: int = 1) -> np.ndarray:
    """Blobs of two classes that touch; (planes, y, x)."""
    noise = np.random.default_rng(7).random((planes, HEIGHT, WIDTH))
    smooth = np.stack([ndimage.gaussian_filter(plane, 3) for plane in noise])
    return np.digitize(smooth, np.quantile(smooth, [0.5, 0.85])).astype(np.uint8)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Two channels and three levels, with labels "cells"."""
    pixels = random_pixels((2, HEIGHT, WIDTH), "uint16")
    path = write_image(tmp_path / "i.zarr", pixels, levels=3, chunks=(2, 64, 64))
    add_labels(path, classes()[0], "cells", CLASSES)
    return path


@pytest.fixture
def on(one_worker: str) -> ClusterOptions:
    return ClusterOptions(kind=one_worker)


def stored(image: Path, name: str) -> dict[str, Any]:
    """Everything that a label image says of its objects."""
    group = zarr.open_group(image / "labels" / name, mode="r")
    found = open_measurements(image / "labels" / name)
    assert found is not None
    levels = {level: group[level][...] for level in ("0", "1", "2")}
    return {**levels, **found.read(0, found.count)}


@pytest.mark.parametrize("split", [ts.Split(), ts.Split("distance", 5)], ids=["whole", "split"])
def test_labels_and_measurements_are_the_same_for_every_tile(
    image: Path, on: ClusterOptions, split: ts.Split
) -> None:
    results = []
    for tile in (1024, 64, 37):
        summary = ts.objects(
            image, "cells", name=f"o{tile}", split=split, tile=tile, cluster=on,
            cleaning=ts.Cleaning(min_area=20, fill_holes=9),
        )  # fmt: skip
        assert summary.objects > 20
        results.append(stored(image, f"o{tile}"))
    whole, *others = results
    for other in others:
        assert other.keys() == whole.keys()
        for name, values in whole.items():
            np.testing.assert_array_equal(other[name], values, err_msg=name)


def test_objects_are_components_measured_as_by_scikit_image(
    image: Path, on: ClusterOptions
) -> None:
    summary = ts.objects(image, tile=64, cluster=on)
    found = stored(image, "cells-objects")
    labels, classes_ = found["0"], classes()[0]
    expected = [ndimage.label(classes_ == value)[1] for value in (1, 2)]
    assert summary.classes == {"nucleus": expected[0], "stroma": expected[1]}
    assert summary.objects == sum(expected) == labels.max()
    assert labels.dtype == np.int32
    pixels = np.moveaxis(zarr.open_array(image / "0", mode="r")[...], 0, -1)
    for item in regionprops(labels, pixels):
        row = item.label - 1
        assert found["class"][row] == classes_[labels == item.label][0]
        assert found["area_px"][row] == item.area
        assert found["area_um2"][row] == item.area * 0.25
        np.testing.assert_allclose(found["perimeter_px"][row], item.perimeter)
        names = [name for name in found if name.startswith("mean_")]
        np.testing.assert_allclose([found[name][row] for name in names], item.intensity_mean)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_label_image_is_valid_and_has_checksums(
    tmp_path: Path, on: ClusterOptions, version: str
) -> None:
    pixels = random_pixels((1, HEIGHT, WIDTH), "uint8")
    image = write_image(tmp_path / "i.zarr", pixels, levels=3, chunks=(1, 64, 64), version=version)
    add_labels(image, classes()[0], "cells", CLASSES)
    ts.objects(image, tile=64, cluster=on)
    open_ome_zarr(zarr.open_group(image, mode="r"))
    directory = image / "labels" / "cells-objects"
    open_ome_zarr(zarr.open_group(directory, mode="r"))
    assert check_objects(directory).damaged == ()
    assert ts.open_image(image).label_names() == ["cells", "cells-objects"]
    assert sorted(path.name for path in (image / "labels").iterdir() if path.is_dir()) == [
        "cells", "cells-objects",
    ]  # fmt: skip


def test_tables_and_density_hold_every_object(
    image: Path, on: ClusterOptions, tmp_path: Path
) -> None:
    for ending in ("parquet", "csv"):
        files = ts.ObjectFiles(tmp_path / f"t.{ending}", tmp_path / f"{ending}.tif", cell=50)
        summary = ts.objects(image, "cells", tile=64, cluster=on, files=files, overwrite=True)
    found = stored(image, "cells-objects")
    table = pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pydict()
    assert table["identity"] == list(range(1, summary.objects + 1))
    assert {*zip(table["class"], table["class_name"], strict=True)} == {
        (1, "nucleus"), (2, "stroma"),
    }  # fmt: skip
    for name in ("area_um2", "centroid_x", "eccentricity"):
        assert table[name] == found[name].tolist()
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert len(lines) == summary.objects + 1
    assert lines[0].split(",") == [f'"{name}"' for name in table]
    density = tifffile.imread(tmp_path / "csv.tif")
    sides = [np.diff([*range(0, size, 50), size]) * 0.5e-3 for size in (HEIGHT, WIDTH)]
    count = (density * np.multiply.outer(*sides)).sum()
    np.testing.assert_allclose(count, summary.objects, rtol=1e-6)


def test_identities_go_on_over_planes(tmp_path: Path, on: ClusterOptions) -> None:
    planes = classes(3)
    image = write_image(
        tmp_path / "i.zarr", random_pixels((3, HEIGHT, WIDTH), "float32"), "zyx", chunks=(1, 64, 64)
    )
    add_labels(image, planes, "cells", CLASSES)
    summary = ts.objects(image, tile=100, cluster=on)
    found = open_measurements(image / "labels" / "cells-objects")
    assert found is not None
    counts = [sum(ndimage.label(plane == value)[1] for value in (1, 2)) for plane in planes]
    assert np.bincount(found.read(0, found.count)["plane"]).tolist() == counts
    assert summary.objects == sum(counts)


def test_labels_without_objects_have_an_empty_table(
    image: Path, on: ClusterOptions, tmp_path: Path
) -> None:
    add_labels(image, np.zeros((HEIGHT, WIDTH), np.uint8), "nothing", CLASSES)
    files = ts.ObjectFiles(tmp_path / "t.parquet", tmp_path / "d.png")
    summary = ts.objects(image, "nothing", files=files, tile=64, cluster=on)
    assert (summary.objects, summary.classes) == (0, {})
    assert pyarrow.parquet.read_table(tmp_path / "t.parquet").num_rows == 0


def test_cleaning_is_the_same_for_every_tile_and_keeps_the_classes(
    image: Path, on: ClusterOptions
) -> None:
    cleaning = ts.Cleaning(min_area=60, fill_holes=60)
    results = []
    for tile in (1024, 41):
        summary = ts.clean(image, cleaning=cleaning, name=f"c{tile}", tile=tile, cluster=on,
                           labels="cells")  # fmt: skip
        group = zarr.open_group(image / "labels" / f"c{tile}", mode="r")
        results.append([group[level][...] for level in ("0", "1", "2")])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    cleaned = results[0][0]
    assert summary.changed == (cleaned != classes()[0]).sum() > 0
    assert summary.pixels == HEIGHT * WIDTH
    for value in (1, 2):
        before = ndimage.label(classes()[0] == value)[0]
        kept = np.bincount(before.ravel())[1:] >= 60
        assert kept.any()
        assert not kept.all()
    assert dict(group.attrs)["ome"]["image-label"]["properties"][1]["class"] == "nucleus"


Fault = Callable[[Path], Any]


@pytest.mark.parametrize(
    ("fault", "error", "told"),
    [
        (lambda image: ts.clean(image, cleaning=ts.Cleaning()), OptionError, "nothing to clean"),
        (lambda image: ts.objects(image, "absent"), InputError, "no labels 'absent'"),
        (lambda image: ts.objects(image / "labels" / "cells"), InputError, "without their image"),
        (lambda image: ts.objects(image, name="cells"), OutputError, "another --name"),
        (lambda image: ts.objects(image, name="../x"), OutputError, "cannot name"),
        (lambda image: ts.objects(image, tile=0), OptionError, "--tile 0"),
        (
            lambda image: ts.objects(image, files=ts.ObjectFiles(image / "t.xlsx")),
            OptionError,
            "says no table",
        ),
        (
            lambda image: ts.objects(image, files=ts.ObjectFiles(density=image / "d.bmp")),
            OptionError,
            "says no density map",
        ),
        (
            lambda image: ts.objects(image, files=ts.ObjectFiles(image / "no" / "t.csv")),
            OutputError,
            "there is no folder",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    image: Path, fault: Fault, error: type[Exception], told: str
) -> None:
    before = sorted(image.rglob("*"))
    with pytest.raises(error, match=told):
        fault(image)
    assert sorted(image.rglob("*")) == before


def test_a_damaged_label_chunk_leaves_nothing_behind(image: Path, on: ClusterOptions) -> None:
    chunk = next(path for path in (image / "labels/cells/0/c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 3] ^= 255
    chunk.write_bytes(content)
    before = sorted(image.rglob("*"))
    with pytest.raises(InputError, match="damaged"):
        ts.objects(image, cluster=on)
    assert sorted(image.rglob("*")) == before


def test_what_is_replaced_stays_until_the_new_is_whole(image: Path, on: ClusterOptions) -> None:
    split = ts.Split("distance")
    ts.objects(image, "cells", cluster=on)
    with pytest.raises(OutputError, match="exists already"):
        ts.objects(image, "cells", cluster=on, split=split)
    ts.objects(image, "cells", cluster=on, overwrite=True, split=split)
    document = json.loads((image / "labels/cells-objects/zarr.json").read_text())
    assert document["attributes"]["tilesegment"]["fingerprint"]["split"]["kind"] == "distance"


_PASSES = (
    "regions",
    "holes",
    "cleaning",
    "objects",
    "identities",
    "levels",
    "range",
    "measurements",
)
_KILLED = """
import os, signal, sys
import tilesegment as ts
import tilesegment.execution.engine
from tilesegment.config import ClusterOptions

image, address, *phases = sys.argv[1:]
cluster, cleaning = ClusterOptions(address), ts.Cleaning(20, 9)

def report(progress):
    if progress.phase == phase and progress.done > progress.total // 2:
        os.kill(os.getpid(), signal.SIGKILL)

for phase in phases:
    child = os.fork()
    if not child:
        ts.objects(image, tile=64, cluster=cluster, cleaning=cleaning, report=report)
    ended = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL, (phase, ended)
    assert ts.open_image(image).label_names() == ["cells"]
"""


def test_after_a_kill_in_any_pass_the_same_command_goes_on(tmp_path: Path, one_worker: str) -> None:
    """It is killed in each pass, one after the other; no block that was finished is done again."""
    images = []
    for name in ("calm.zarr", "killed.zarr"):
        pixels = random_pixels((1, HEIGHT, WIDTH), "float32")
        images.append(write_image(tmp_path / name, pixels, levels=3, chunks=(1, 64, 64)))
        add_labels(images[-1], classes()[0], "cells", CLASSES)
    calm, image = images
    command = [sys.executable, "-c", _KILLED, str(image), one_worker, *_PASSES]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    seen: dict[str, Progress] = {}

    def report(progress: Progress) -> None:
        seen.setdefault(progress.phase, progress)

    options = {"tile": 64, "cluster": ClusterOptions(one_worker), "cleaning": ts.Cleaning(20, 9)}
    summary = ts.objects(image, report=report, **options)
    assert {phase: each.done for phase, each in seen.items() if each.done < each.total} == {
        "measurements": 5
    }
    assert seen["measurements"].total == 9
    assert summary.objects == ts.objects(calm, **options).objects > 20
    expected = stored(calm, "cells-objects")
    for name, values in stored(image, "cells-objects").items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
    options["report"] = lambda progress: pytest.fail(progress.phase)
    again = ts.objects(image, "cells", **options)
    assert again.objects == summary.objects


def test_a_cleaning_that_was_killed_goes_on(image: Path, on: ClusterOptions) -> None:
    def stop(progress: Progress) -> None:
        if progress.phase == "cleaning" and progress.done == 5:
            raise KeyboardInterrupt

    options = {"cleaning": ts.Cleaning(60, 60), "tile": 64, "cluster": on}
    with pytest.raises(KeyboardInterrupt):
        ts.clean(image, report=stop, **options)
    told: list[tuple[str, int]] = []
    found = ts.clean(image, report=lambda each: told.append((each.phase, each.done)), **options)
    assert ("cleaning", 5) in told
    assert ("cleaning", 4) not in told
    cleaned = zarr.open_array(image / "labels/cells-clean/0", mode="r")[...]
    assert found.changed == (cleaned != classes()[0]).sum() > 0
    assert ts.clean(image, "cells", **options).changed == found.changed


def test_what_was_begun_for_other_labels_is_not_gone_on_with(
    image: Path, on: ClusterOptions
) -> None:
    def stop(progress: Progress) -> None:
        if progress.phase == "identities" and progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ts.objects(image, tile=64, cluster=on, report=stop)
    shutil.rmtree(image / "labels" / "cells")
    add_labels(image, classes()[0][::-1], "cells", CLASSES)
    ts.objects(image, "cells", tile=64, cluster=on)
    identities = stored(image, "cells-objects")["0"]
    np.testing.assert_array_equal(identities != 0, classes()[0][::-1] != 0)


def test_exported_objects_have_their_measurements(
    image: Path, on: ClusterOptions, tmp_path: Path
) -> None:
    ts.objects(image, "cells", tile=64, cluster=on, split=ts.Split("distance", 5))
    found = stored(image, "cells-objects")
    ts.export_labels(image, tmp_path / "o.geojson", "cells-objects")
    features = json.loads((tmp_path / "o.geojson").read_text())["features"]
    ts.export_labels(image, tmp_path / "o.parquet", "cells-objects")
    table = pyarrow.parquet.read_table(tmp_path / "o.parquet").to_pydict()
    assert len(features) == len(found["identity"])
    assert sorted(table["value"]) == found["identity"].tolist()
    areas = sorted(item["properties"]["measurements"]["Area px^2"] for item in features)
    assert areas == sorted(found["area_px"].tolist())
    for item in features:
        assert item["properties"]["classification"]["name"] in ("nucleus", "stroma")
        assert "Mean channel 2" in item["properties"]["measurements"]
    for row, value in enumerate(table["value"]):
        assert table["eccentricity"][row] == found["eccentricity"][value - 1]
        assert table["class"][row] == {1: "nucleus", 2: "stroma"}[found["class"][value - 1]]


def test_a_picture_of_objects_has_their_classes_in_its_legend(
    image: Path, on: ClusterOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ts.objects(image, "cells", tile=64, cluster=on)
    told: list[Any] = []
    entries = overview._entries
    monkeypatch.setattr(overview, "_entries", lambda *of: told.extend(entries(*of)) or told)
    ts.export_labels(image, tmp_path / "o.png", "cells-objects")
    shares = [(classes() == value).mean() for value in (1, 2)]
    assert [text for _, text in told] == [
        f"{name}  {share:.1%}" for name, share in zip(("nucleus", "stroma"), shares, strict=True)
    ]


def test_the_mean_probability_is_that_of_the_class_of_each_pixel(
    make_model: Callable[..., Path], tmp_path: Path, on: ClusterOptions
) -> None:
    pixels = random_pixels((3, 96, 128), "uint8")
    image = write_image(tmp_path / "i.zarr", pixels, chunks=(3, 64, 64))
    options = ts.RunOptions(tile=64, precision="float32", probabilities=True)
    ts.segment(image, make_model(), labels="cells", options=options, cluster=on)
    ts.objects(image, "cells", tile=50, cluster=on)
    labels = image / "labels"
    values = zarr.open_array(labels / "cells/probabilities/0", mode="r")[...] / 255
    own = np.take_along_axis(values, zarr.open_array(labels / "cells/0")[...][None], 0)[0]
    identities = zarr.open_array(labels / "cells-objects/0")[...]
    found = open_measurements(labels / "cells-objects")
    assert found is not None
    means = ndimage.mean(own, identities, np.arange(1, found.count + 1))
    np.testing.assert_allclose(found.read(0, found.count)["mean_probability"], means)
    assert means.min() > 0.3
