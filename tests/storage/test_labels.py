"""Label images: valid, checked, and not there until they are whole."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.pictures import random_pixels, write_image
from tilesegment.errors import OutputError
from tilesegment.storage.image import open_image
from tilesegment.storage.labels import (
    LabelLayout,
    LabelProperties,
    LabelVolume,
    layout_volume,
    levels_to_derive,
    list_labels,
    published_provenance,
    remove_labels,
)
from tilesegment.storage.objects import make_aside
from tilesegment.storage.pyramid import pool_by_mode
from tilesegment.tiling import Window

VERSIONS = ["0.4", "0.5"]


def volume_for(image_path: Path, tile: int = 32, chunk: int = 16) -> LabelVolume:
    image = open_image(image_path)
    properties = (
        LabelProperties(0, "background", (0, 0, 0)),
        LabelProperties(2, "nucleus", (230, 159, 0)),
    )
    layout = LabelLayout("cells", image.version, "uint8", tile, chunk, properties, "../../")
    make_aside(image_path / "labels" / "cells")
    return layout_volume(image, layout, image_path / "labels" / "cells")


def write_all(volume: LabelVolume, seed: int = 0) -> None:
    """Random labels on level 0, and the levels above it."""
    generator = np.random.default_rng(seed)
    grid = volume.grid(0, 32)
    for tile in grid.tiles():
        window = grid.write_window(tile)
        labels = generator.integers(0, 3, (window.height, window.width), np.uint8)
        volume.write(0, tile.plane, window, labels)
    for level, neighbour in levels_to_derive(len(volume.arrays), 0):
        grid = volume.grid(level, 32)
        for tile in grid.tiles():
            volume.derive(level, neighbour, tile.plane, grid.write_window(tile))


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_visible_before_publish_and_all_after(version: str, tmp_path: Path) -> None:
    pixels = random_pixels((3, 70, 90), "uint8")
    path = write_image(tmp_path / "i.zarr", pixels, version=version, levels=2)
    volume = volume_for(path)
    write_all(volume)
    with pytest.raises((KeyError, FileNotFoundError)):
        zarr.open_group(path / "labels" / "cells", mode="r")
    assert published_provenance(volume.directory) is None
    volume.publish({"fingerprint": {"model": "sha256:1"}})
    list_labels(path / "labels", "cells", version)
    assert published_provenance(volume.directory) == {"fingerprint": {"model": "sha256:1"}}
    group = zarr.open_group(path / "labels" / "cells", mode="r")
    assert group["0"].shape == (70, 90)
    np.testing.assert_array_equal(group["1"][...], pool_by_mode(group["0"][...], (2, 2)))
    assert open_image(path).label_names() == ["cells"]


@pytest.mark.parametrize("axes", ["cyx", "yx", "tczyx"])
@pytest.mark.parametrize(
    ("program", "version"),
    [("ome-zarr-models", "0.4"), ("ome-zarr-models", "0.5"), ("ome-zarr-io", "0.5")],
)
def test_other_programs_find_it_valid(
    program: str, axes: str, version: str, tmp_path: Path
) -> None:
    lengths = {"t": 2, "z": 2, "c": 3, "y": 70, "x": 90}
    pixels = random_pixels([lengths[axis] for axis in axes], "uint8")
    path = write_image(tmp_path / "i.zarr", pixels, axes, version=version, levels=3)
    volume = volume_for(path)
    write_all(volume)
    volume.publish({"fingerprint": {}})
    list_labels(path / "labels", "cells", version)
    command = [Path(sys.executable).with_name(program), "validate", path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "cells" in result.stdout or program == "ome-zarr-models"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_flipped_bit_is_an_error_and_never_another_label(version: str, tmp_path: Path) -> None:
    pixels = random_pixels((1, 32, 32), "uint8")
    path = write_image(tmp_path / "i.zarr", pixels, version=version)
    volume = volume_for(path, tile=32, chunk=32)
    write_all(volume)
    volume.publish({})
    array = zarr.open_array(path / "labels" / "cells" / "0", mode="r")
    chunk = path / "labels" / "cells" / "0" / ("c/0/0" if version == "0.5" else "0/0")
    content = chunk.read_bytes()
    for position in range(0, len(content) * 8, 211):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        chunk.write_bytes(flipped)
        with pytest.raises((RuntimeError, ValueError)):
            array[...]


@pytest.mark.parametrize("version", VERSIONS)
def test_background_is_stored_not_implied(version: str, tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", random_pixels((1, 32, 32), "uint8"), version=version)
    volume = volume_for(path)
    volume.write(0, 0, Window(0, 0, 32, 32), np.zeros((32, 32), np.uint8))
    assert [item for item in (volume.directory / "0").rglob("*") if item.is_file()]


def test_labels_lie_on_the_image(tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", random_pixels((3, 70, 90), "uint8"), levels=3)
    volume = volume_for(path)
    write_all(volume)
    volume.publish({})
    image, labels = open_image(path), open_image(volume.directory)
    for ours, theirs in zip(labels.levels, image.levels, strict=True):
        assert (ours.shape, ours.scale) == (theirs.shape[1:], theirs.scale[1:])
        assert ours.translation == theirs.translation[1:]
    assert [axis.unit for axis in labels.axes] == ["micrometer", "micrometer"]


def test_levels_of_any_shape_and_factor_are_filled(tmp_path: Path) -> None:
    """Other programs round level shapes up, down, or thin by four."""
    path = tmp_path / "i.zarr"
    group = zarr.create_group(path)
    datasets = []
    for name, shape, scale in [("0", (67, 45), 1.0), ("1", (34, 22), 2.0), ("2", (8, 6), 8.0)]:
        group.create_array(name, shape=shape, dtype="uint8")
        transform = [{"type": "scale", "scale": [scale, scale]}]
        datasets.append({"path": name, "coordinateTransformations": transform})
    axes = [{"name": name, "type": "space"} for name in "yx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    volume = volume_for(path)
    labels = np.random.default_rng(0).integers(1, 3, (34, 22), np.uint8)
    volume.write(1, 0, Window(0, 0, 32, 22), labels[:32])
    volume.write(1, 0, Window(32, 0, 2, 22), labels[32:])
    for level, neighbour in levels_to_derive(3, 1):
        grid = volume.grid(level, 32)
        for tile in grid.tiles():
            volume.derive(level, neighbour, tile.plane, grid.write_window(tile))
    finer, coarser = volume.arrays[0][...], volume.arrays[2][...]
    np.testing.assert_array_equal(finer[:, :44], labels.repeat(2, 0).repeat(2, 1)[:67])
    np.testing.assert_array_equal(finer[:, 44], finer[:, 43])
    np.testing.assert_array_equal(coarser, pool_by_mode(labels, (4, 4))[:8])


def test_no_permission_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_image(tmp_path / "i.zarr", random_pixels((1, 32, 32), "uint8"))
    volume = volume_for(path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tilesegment.storage.objects.os.link", refuse)
    with pytest.raises(OutputError, match="no permission to write .* choose another place"):
        volume.write(0, 0, Window(0, 0, 32, 32), np.zeros((32, 32), np.uint8))


def test_removed_labels_leave_nothing_behind(tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", random_pixels((1, 32, 32), "uint8"))
    volume = volume_for(path)
    write_all(volume)
    volume.publish({})
    remove_labels(volume.directory)
    assert list(volume.directory.parent.iterdir()) == []
