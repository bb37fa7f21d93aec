"""What is not stored is not asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore

from tests.pictures import random_pixels, write_image
from tilesegment.errors import InputError
from tilesegment.storage.image import MirroredPixels, open_image
from tilesegment.storage.inventory import write_absent
from tilesegment.tiling import Window


def knowing(path: Path) -> MirroredPixels:
    """The pixels of the first level, read by its inventory."""
    image = open_image(path)
    return image.pixels(0, write_absent(path.parent, image.inventory(0)))


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
    plane = data.draw(st.integers(0, shape[0] * shape[2] - 1))
    window = Window(
        *(data.draw(st.integers(*ends)) for ends in ((-9, 29), (-9, 29), (1, 20), (1, 20)))
    )
    expected = plain.read(plane, window)
    np.testing.assert_array_equal(knowing(path).read(plane, window), expected)


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
    level = knowing(path)
    asked.clear()
    assert not level.read(0, Window(16, 0, 48, 64)).any()
    assert asked == []
    assert level.read(0, Window(8, 8, 4, 4)).any()
    assert asked


def test_a_chunk_that_vanishes_is_no_background(tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", random_pixels((1, 20, 20), "uint8"), chunks=(1, 9, 9))
    level = knowing(path)
    (path / "0" / "c" / "0" / "1" / "1").unlink()
    with pytest.raises(InputError, match="the image has lost a chunk"):
        level.read(0, Window(0, 0, 20, 20))


def test_what_is_absent_has_the_arrays_fill_value(tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", np.zeros((1, 20, 20), "uint8"), chunks=(1, 5, 5))
    metadata = path / "0" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"fill_value": 0', '"fill_value": 7'))
    level = knowing(path)
    assert (level.read(0, Window(0, 0, 9, 9)) == 7).all()
