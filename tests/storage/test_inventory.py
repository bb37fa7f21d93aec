"""What is not stored is not asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore

from tests.pictures import random_pixels, write_image
from tilesegment.geometry import YX
from tilesegment.storage.image import open_image
from tilesegment.storage.inventory import take_inventory
from tilesegment.tiling import Window


def sparse(data: st.DataObject, shape: list[int]) -> np.ndarray:
    """Random pixels in a part of an image of zeros, which zarr does not store."""
    pixels = np.zeros(shape, "uint8")
    part = tuple(slice(data.draw(st.integers(0, size - 1)), None) for size in shape)
    pixels[part] = random_pixels(pixels[part].shape, "uint8") | 1
    return pixels


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_pixels_are_the_same_with_and_without_an_inventory(
    data: st.DataObject, tmp_path: Path
) -> None:
    shape = [data.draw(st.integers(1, size)) for size in (3, 3, 3, 30, 30)]
    chunks = [data.draw(st.integers(1, size)) for size in (2, 2, 2, 9, 9)]
    version = data.draw(st.sampled_from(["0.4", "0.5"]))
    shards = (
        [2 * size for size in chunks] if version == "0.5" and data.draw(st.booleans()) else None
    )
    pixels = sparse(data, shape)
    path = write_image(
        tmp_path / "i.zarr", pixels, "tczyx", chunks=chunks, shards=shards, version=version
    )
    plain = open_image(path).pixels(0)
    knowing = plain.knowing_what_is_stored()
    plane = data.draw(st.integers(0, shape[0] * shape[2] - 1))
    window = Window(
        *(data.draw(st.integers(*ends)) for ends in ((-9, 29), (-9, 29), (1, 20), (1, 20)))
    )
    inner = Window(window.y, window.x, 1, window.width)
    expected = plain.read(plane, window)
    np.testing.assert_array_equal(knowing.read(plane, window), expected)
    around = knowing.around(window)
    np.testing.assert_array_equal(around.read(plane, window), expected)
    np.testing.assert_array_equal(around.read(plane, inner), expected[:, :1])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys that the store was asked for."""
    keys: list[str] = []
    plain = LocalStore.get

    async def get(self: LocalStore, key: str, *arguments: Any, **options: Any) -> Any:
        keys.append(key)
        return await plain(self, key, *arguments, **options)

    monkeypatch.setattr(LocalStore, "get", get)
    return keys


def test_absent_chunks_are_not_requested(tmp_path: Path, asked: list[str]) -> None:
    pixels = np.zeros((2, 64, 64), "uint8")
    pixels[1, :16, :16] = 9
    path = write_image(tmp_path / "i.zarr", pixels, chunks=(1, 16, 16))
    level = open_image(path).pixels(0).knowing_what_is_stored()
    asked.clear()
    assert not level.read(0, Window(16, 0, 48, 64)).any()
    assert asked == []
    assert level.read(0, Window(8, 8, 4, 4)).any()
    assert asked


def test_a_whole_image_needs_no_inventory(tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", random_pixels((3, 40, 40), "uint8"), chunks=(3, 9, 9))
    array = zarr.open_array(path / "0")
    assert take_inventory(array, 0, ()) is None


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_objects_beyond_the_array_do_not_count(version: str, tmp_path: Path) -> None:
    path = write_image(
        tmp_path / "i.zarr",
        random_pixels((1, 40, 40), "uint8"),
        chunks=(1, 20, 20),
        version=version,
    )
    folder = path / "0" / "c" / "0" / "0" if version == "0.5" else path / "0"
    (folder / ("7" if version == "0.5" else "0.0.7")).write_bytes(b"left behind")
    assert take_inventory(zarr.open_array(path / "0"), 0, ()) is None


def test_a_cut_knows_its_own_objects_only(tmp_path: Path) -> None:
    pixels = np.zeros((1, 500, 500), "uint8")
    pixels[:, :10, :10] = 1
    path = write_image(tmp_path / "i.zarr", pixels, chunks=(1, 10, 10))
    inventory = take_inventory(zarr.open_array(path / "0"), 0, ())
    assert inventory is not None
    assert inventory.present.shape == (1, 50, 50)
    part = inventory.cut(slice(5, 25), slice(300, 301))
    assert part.present.shape == (1, 3, 1)
    assert part.first == YX(0, 30)


def test_what_is_absent_has_the_arrays_fill_value(tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", np.zeros((1, 20, 20), "uint8"), chunks=(1, 5, 5))
    metadata = path / "0" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"fill_value": 0', '"fill_value": 7'))
    level = open_image(path).pixels(0).knowing_what_is_stored()
    assert (level.read(0, Window(0, 0, 9, 9)) == 7).all()
