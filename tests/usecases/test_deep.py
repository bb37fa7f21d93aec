"""Every damaged or lost object is found, and computed again bit for bit."""

import random
from pathlib import Path

import pytest

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tests.storage.test_labels import volume_for, write_all
from tests.usecases.test_segment import MakeModel, digest
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.errors import OutputConflictError, OutputError
from tilesegment.storage.checksums import checksums_folder, write_copies, write_objects
from tilesegment.storage.labels import LabelVolume
from tilesegment.storage.ledger import TileRecord
from tilesegment.storage.objects import describe
from tilesegment.usecases.deep import check_objects

OPTIONS = RunOptions(tile=32, precision="float32")


def published(path: Path) -> LabelVolume:
    """A label image of 16 x 16 tiles of 32 px on two levels, with checksums, and no network."""
    write_image(path, random_pixels((1, 512, 512), "uint8"), levels=2)
    volume = volume_for(path)
    write_all(volume)
    records = [
        TileRecord(number, (), level, (describe(f"{level}/{key}", content),))
        for level in (0, 1)
        for number, (key, content) in enumerate(sorted(objects(volume.directory / str(level))))
    ]
    folder = checksums_folder(volume.directory, "0")
    provenance = {"checksums": write_objects(folder, records)}
    write_copies(folder, volume.final_documents(provenance))
    volume.publish(provenance)
    return volume


def objects(level: Path) -> list[tuple[str, bytes]]:
    return [
        (path.relative_to(level).as_posix(), path.read_bytes())
        for path in (level / "c").rglob("*")
        if path.is_file()
    ]


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    position = chance.randrange(len(content) * 8)
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)


def test_200_flipped_bits_and_50_lost_objects_are_all_found(tmp_path: Path) -> None:
    directory = published(tmp_path / "i.zarr").directory
    assert check_objects(directory).damaged == ()
    chance = random.Random(3)
    files = [path for path in directory.rglob("*") if path.is_file() and "/c/" in str(path)]
    victims = chance.sample(sorted(files), 250)
    for path in victims[:200]:
        flip(path, chance)
    for path in victims[200:]:
        path.unlink()
    found = check_objects(directory)
    expected = {
        str(path.relative_to(directory)): "damaged" if number < 200 else "missing"
        for number, path in enumerate(victims)
    }
    assert {item.key: item.problem for item in found.damaged} == expected


@pytest.mark.parametrize(
    "name",
    ["zarr.json", "0/zarr.json", "0/.tilesegment/objects.jsonl", "0/.tilesegment/zarr.json.copies"],
)
def test_a_flipped_bit_anywhere_else_is_found_too(name: str, tmp_path: Path) -> None:
    directory = published(tmp_path / "i.zarr").directory
    content = (directory / name).read_bytes()
    chance = random.Random(5)
    for _ in range(30):
        flip(directory / name, chance)
        assert name in {item.key for item in check_objects(directory).damaged}
        (directory / name).write_bytes(content)


def test_labels_without_checksums_are_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="has no checksums"):
        check_objects(tmp_path)


def test_repair_computes_what_is_damaged_and_nothing_else(
    make_model: MakeModel, one_worker: str, tmp_path: Path
) -> None:
    pixels = random_pixels((3, 150, 120), "uint8")
    image = write_image(tmp_path / "i.zarr", pixels, levels=3)
    model, cluster = make_model(), ClusterOptions(one_worker)
    with pytest.raises(OutputError, match="has no checksums"):
        ts.repair(image, model, options=OPTIONS, cluster=cluster)
    ts.segment(image, model, options=OPTIONS, cluster=cluster)
    whole = digest(image)
    labels = image / "labels" / "model"
    flip(labels / "0" / "c" / "2" / "1", random.Random(0))
    (labels / "0" / "c" / "4" / "3").unlink()
    flip(labels / "1" / "c" / "0" / "0", random.Random(0))
    (labels / "0" / "zarr.json").write_text("{")
    (labels / "zarr.json").write_text("{")
    repaired = ts.repair(image, model, options=RunOptions(precision="float32"), cluster=cluster)
    assert (repaired.status, repaired.computed, repaired.skipped) == ("repaired", 2, 18)
    assert digest(image) == whole
    with pytest.raises(OutputConflictError, match="model: sha256:"):
        ts.repair(image, make_model(seed=1), options=OPTIONS, cluster=cluster)
