"""Images from strangers: one clear line, at once, and without memory."""

import json
import os
import pickle
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from tests.pictures import random_pixels, write_image
from tilesegment.errors import InputError
from tilesegment.storage.image import open_image
from tilesegment.storage.limits import unpacked_bytes
from tilesegment.tiling import Window

_SPARE_MEMORY_BYTES = 300 * 2**20


@pytest.fixture
def little_memory(tmp_path: Path) -> Iterator[None]:
    """Not much more memory than the tests have taken already, zarr's threads among them."""
    open_image(small(tmp_path / "first.zarr"))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _SPARE_MEMORY_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def small(path: Path, **arguments: Any) -> Path:
    return write_image(path, random_pixels((1, 40, 40), "uint8"), chunks=(1, 20, 20), **arguments)


def edited(path: Path, change: Callable[[dict[str, Any]], None], version: str = "0.5") -> Path:
    """A small image whose array metadata has been changed."""
    small(path, version=version)
    document = path / "0" / ("zarr.json" if version == "0.5" else ".zarray")
    metadata = json.loads(document.read_text())
    change(metadata)
    document.write_text(json.dumps(metadata))
    return path


def group_edited(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A small image whose group metadata has been changed."""
    small(path)
    document = json.loads((path / "zarr.json").read_text())
    change(document["attributes"]["ome"])
    (path / "zarr.json").write_text(json.dumps(document))
    return path


def shape(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata.update(shape=value)


def chunk_shape(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata["chunk_grid"]["configuration"].update(chunk_shape=value)


def codecs(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata.update(codecs=value)


def first_path(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda ome: ome["multiscales"][0]["datasets"][0].update(path=value)


def bloated(path: Path) -> Path:
    small(path)
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["filler"] = "x" * (17 * 2**20)
    (path / "zarr.json").write_text(json.dumps(document))
    return path


def truncated(path: Path) -> Path:
    small(path)
    text = (path / "0" / "zarr.json").read_text()
    (path / "0" / "zarr.json").write_text(text[: len(text) // 2])
    return path


def swapped(path: Path) -> Path:
    """The group's metadata lies where the array's belongs."""
    small(path)
    (path / "0" / "zarr.json").write_text((path / "zarr.json").read_text())
    return path


def nested(path: Path) -> Path:
    small(path)
    (path / "zarr.json").write_text("[" * 100_000)
    return path


def piped(path: Path, key: str) -> Path:
    """Whoever opens a pipe waits for a writer, who never comes."""
    small(path)
    (path / key).unlink()
    os.mkfifo(path / key)
    return path


def foldered(path: Path) -> Path:
    small(path)
    (path / "zarr.json").unlink()
    (path / "zarr.json").mkdir()
    return path


def v2_codec(metadata: dict[str, Any]) -> None:
    metadata["compressor"] = {"id": "pickle"}


def v2_filter(metadata: dict[str, Any]) -> None:
    metadata["filters"] = [{"id": "pickle"}]


def v2_bz2(metadata: dict[str, Any]) -> None:
    metadata["compressor"] = {"id": "bz2", "level": 1}


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "shape of 10^18": (lambda p: edited(p, shape([1, 10**18, 10**18])), "claims 1000000.* pixels"),
    "many chunks": (lambda p: edited(p, shape([1, 10**7, 10**7])), "claims 250000000000 chunks"),
    "negative shape": (lambda p: edited(p, shape([1, -4, 40])), "metadata is damaged"),
    "zero shape": (lambda p: edited(p, shape([1, 0, 40])), "or is empty"),
    "shape of text": (lambda p: edited(p, shape("large")), "metadata is damaged"),
    "chunk of a terabyte": (
        lambda p: edited(p, chunk_shape([1, 2**20, 2**20])),
        "claims 1099511627776 bytes in a chunk",
    ),
    "negative chunk": (lambda p: edited(p, chunk_shape([1, -20, 20])), "0/?:? .*damaged|damaged"),
    "zero chunk": (lambda p: edited(p, chunk_shape([1, 0, 20])), "chunk|damaged"),
    "unknown codec": (
        lambda p: edited(p, codecs([BYTES, {"name": "evil", "configuration": {}}])), "damaged",
    ),
    "pickled codec": (
        lambda p: edited(p, codecs([{"name": "numcodecs.pickle", "configuration": {}}])), "damaged",
    ),
    "other codec": (
        lambda p: edited(
            p, codecs([BYTES, {"name": "numcodecs.bz2", "configuration": {"level": 1}}])
        ),
        "is packed with BZ2; write it again|damaged",
    ),
    "pickled objects, format 2": (lambda p: edited(p, v2_codec, "0.4"), "pickle"),
    "pickle filter, format 2": (lambda p: edited(p, v2_filter, "0.4"), "pickle"),
    "other codec, format 2": (lambda p: edited(p, v2_bz2, "0.4"), "is packed with bz2"),
    "path that leaves the root": (
        lambda p: group_edited(p, first_path("../../etc")), "damaged|lack",
    ),
    "path that is absolute": (
        lambda p: group_edited(p, first_path("/etc/passwd")), "damaged|lack",
    ),
    "path of another type": (lambda p: group_edited(p, first_path({"a": 1})), "not valid OME-Zarr"),
    "no list": (
        lambda p: group_edited(p, lambda ome: ome.update(multiscales={"a": 1})), "damaged metadata",
    ),
    "plate without wells": (
        lambda p: group_edited(p, lambda ome: (ome.clear(), ome.update(plate={}))),
        "damaged metadata",
    ),
    "17 MB of metadata": (bloated, "bytes of metadata; at most"),
    "truncated metadata": (truncated, "metadata is damaged"),
    "swapped metadata": (swapped, "does not fit the 3 axes"),
    "pipe for metadata": (lambda p: piped(p, "zarr.json"), "metadata is a file"),
    "pipe for metadata of an array": (lambda p: piped(p, "0/zarr.json"), "metadata is a file"),
    "folder for metadata": (foldered, "metadata is a file"),
    "deeply nested metadata": (nested, "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_is_one_line_at_once(
    name: str, tmp_path: Path, little_memory: None
) -> None:
    make, message = HOSTILE[name]
    path = make(tmp_path / "i.zarr")
    began = time.process_time()
    with pytest.raises(InputError, match=message) as caught:
        open_image(path)
    assert "\n" not in str(caught.value)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("address", ["reference://x", "simplecache::https://u:secret@h/i.zarr"])
def test_addresses_are_refused_and_their_secrets_not_told(address: str) -> None:
    with pytest.raises(InputError, match="cannot be opened") as caught:
        open_image(address)
    assert "secret" not in str(caught.value)


BOMB_BYTES = 512 * 2**20


def zstd_stream(size: int) -> bytes:
    """A frame without a content size: one byte, repeated in blocks of 128 KB (RFC 8878)."""
    frame = bytearray(b"\x28\xb5\x2f\xfd\x00\x58")
    blocks = size // 2**17
    for number in range(blocks):
        header = 2**17 << 3 | 1 << 1 | (number == blocks - 1)
        frame += header.to_bytes(3, "little") + b"\0"
    return bytes(frame)


PACKED: dict[str, tuple[Callable[[], bytes], Any]] = {
    "zstd": (lambda: numcodecs.Zstd().encode(bytes(BOMB_BYTES)), ZstdCodec()),
    "zstd stream": (lambda: zstd_stream(BOMB_BYTES), ZstdCodec()),
    "gzip": (lambda: numcodecs.GZip().encode(bytes(BOMB_BYTES)), GzipCodec()),
    "blosc": (lambda: numcodecs.Blosc("zstd").encode(bytes(BOMB_BYTES)), BloscCodec()),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_decompression_bomb_is_not_unpacked(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make, codec = PACKED[name]
    packed = make()
    path = small(tmp_path / "i.zarr")
    zarr.create_array(
        path / "0", shape=(1, 40, 40), chunks=(1, 20, 20), dtype="uint8",
        compressors=codec, overwrite=True,
    )  # fmt: skip
    (path / "0" / "c" / "0" / "1").mkdir(parents=True)
    (path / "0" / "c" / "0" / "1" / "0").write_bytes(packed)
    request.getfixturevalue("little_memory")
    with pytest.raises(InputError, match=r"damaged chunk .* it unpacks to \d+ bytes or more"):
        open_image(path).pixels(0).read(0, Window(0, 0, 40, 40))


@pytest.mark.parametrize(
    "compressor", [numcodecs.Zstd(), numcodecs.Blosc(), numcodecs.GZip(), numcodecs.Zlib(),
                   numcodecs.LZ4(), None],
)  # fmt: skip
def test_the_guard_lets_honest_chunks_of_format_2_pass(compressor: Any, tmp_path: Path) -> None:
    pixels = random_pixels((1, 40, 40), "uint16")
    path = write_image(tmp_path / "i.zarr", pixels, version="0.4")
    array = zarr.create_array(
        path / "0", shape=pixels.shape, chunks=(1, 20, 20), dtype="uint16",
        compressors=compressor, zarr_format=2, overwrite=True,
    )  # fmt: skip
    array[...] = pixels
    read = pickle.loads(pickle.dumps(open_image(path).pixels(0)))  # noqa: S301
    np.testing.assert_array_equal(read.read(0, Window(0, 0, 40, 40)), pixels)


@pytest.mark.parametrize("shards", [None, (1, 40, 40)])
@pytest.mark.parametrize(
    "compressors", [ZstdCodec(), [ZstdCodec(checksum=True), Crc32cCodec()], BloscCodec(), None]
)
def test_the_guard_lets_honest_chunks_of_format_3_pass(
    compressors: Any, shards: Any, tmp_path: Path
) -> None:
    pixels = random_pixels((1, 40, 40), "float32")
    path = write_image(tmp_path / "i.zarr", pixels)
    array = zarr.create_array(
        path / "0", shape=pixels.shape, chunks=(1, 20, 20), shards=shards, dtype="float32",
        compressors=compressors, overwrite=True,
    )  # fmt: skip
    array[...] = pixels
    read = pickle.loads(pickle.dumps(open_image(path).pixels(0)))  # noqa: S301
    np.testing.assert_array_equal(read.read(0, Window(0, 0, 40, 40)), pixels)
    np.testing.assert_array_equal(read.read(0, Window(3, 3, 9, 9)), pixels[:, 3:12, 3:12])


@given(size=st.integers(0, 70_000), filler=st.integers(0, 255))
def test_the_size_of_a_packed_chunk_is_told_before_it_is_unpacked(size: int, filler: int) -> None:
    content = bytes([filler]) * size
    for kind, codec in (("zstd", numcodecs.Zstd()), ("gzip", numcodecs.GZip()),
                        ("zlib", numcodecs.Zlib()), ("blosc", numcodecs.Blosc())):  # fmt: skip
        assert unpacked_bytes(kind, codec.encode(content), 100_000) == size


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(data=st.data())
def test_any_metadata_is_an_image_or_an_error(data: st.DataObject, tmp_path: Path) -> None:
    """One field of an image's metadata takes any value of JSON."""
    path = tmp_path / "i.zarr"
    small(path)
    document = path / data.draw(st.sampled_from(["zarr.json", "0/zarr.json"]))
    metadata = json.loads(document.read_text())
    place: Any = metadata
    for _ in range(data.draw(st.integers(0, 6))):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        deeper = [key for key in keys if isinstance(place[key], (dict, list)) and place[key]]
        if not deeper:
            break
        place = place[data.draw(st.sampled_from(deeper))]
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    place[data.draw(st.sampled_from(keys))] = data.draw(values)
    document.write_text(json.dumps(metadata))
    with suppress(InputError):
        open_image(path)
