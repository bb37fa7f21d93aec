"""Stores as other programs write them: opened right, or one clear line."""

import json
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.pictures import random_pixels, write_image
from tilesegment.errors import InputError
from tilesegment.storage.image import images_of, open_image

PIXELS = random_pixels((3, 45, 70), "uint16")


def older(path: Path, version: str, **multiscale: object) -> Path:
    """OME-Zarr before 0.4: no transformations, a dot in chunk keys, axes by their letters."""
    group = zarr.create_group(path, zarr_format=2)
    for level, step in enumerate((1, 2)):
        pixels = PIXELS[None, :, None, ::step, ::step]
        array = group.create_array(
            str(level), shape=pixels.shape, dtype=pixels.dtype, chunks=(1, 1, 1, 32, 32)
        )
        array[...] = pixels
    datasets = [{"path": "0"}, {"path": "1"}]
    group.attrs["multiscales"] = [{"version": version, "datasets": datasets, **multiscale}]
    return path


def plain(path: Path, version: int, **options: object) -> Path:
    array = zarr.create_array(
        path, shape=PIXELS.shape, dtype=PIXELS.dtype, chunks=(3, 32, 32), zarr_format=version,
        **options,
    )  # fmt: skip
    array[...] = PIXELS
    return path


def with_xarray_names(path: Path) -> Path:
    plain(path, 2)
    zarr.open_array(path).attrs["_ARRAY_DIMENSIONS"] = ["band", "lat", "lon"]
    return path


def zipped(path: Path, folder: str) -> Path:
    store = write_image(path.with_name("there.zarr"), PIXELS, chunks=(1, 32, 32), levels=2)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(store.rglob("*")):
            archive.write(file, f"{folder}{file.relative_to(store)}")
    shutil.rmtree(store)
    return path


def collection(path: Path, version: str = "0.4") -> Path:
    zarr.create_group(path, zarr_format=2).attrs["bioformats2raw.layout"] = 3
    write_image(path / "0", PIXELS, version=version)
    return path


MADE = {
    "0.1": lambda path: older(path, "0.1"),
    "0.2": lambda path: older(path, "0.2"),
    "0.3": lambda path: older(path, "0.3", axes=list("tczyx")),
    "0.4": lambda path: write_image(path, PIXELS, version="0.4"),
    "0.5": lambda path: write_image(path, PIXELS, version="0.5"),
    "0.5, sharded": lambda path: write_image(path, PIXELS, chunks=(1, 16, 16), shards=(3, 64, 64)),
    "array, dimension names": lambda path: plain(path, 3, dimension_names=["c", "y", "x"]),
    "array, sharded": lambda path: plain(
        path, 3, shards=(3, 64, 64), dimension_names=["channel", "Y", "X"]
    ),
    "array of xarray": with_xarray_names,
    "zip": lambda path: zipped(path.with_suffix(".zip"), ""),
    "zip with a folder": lambda path: zipped(path.with_suffix(".ozx"), "i.zarr/"),
    "collection of one": collection,
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_pixels_are_those_that_were_written(make: Callable[[Path], Path], tmp_path: Path) -> None:
    image = open_image(make(tmp_path / "it.zarr"))
    assert image.channels == 3
    # As workers get them.
    pixels = pickle.loads(pickle.dumps(image.pixels(0)))  # noqa: S301
    np.testing.assert_array_equal(pixels.stored(0, 3, 41, 7, 70), PIXELS[:, 3:41, 7:70])
    assert image.inventory(0) == image.inventory(0)
    assert image.label_names() == []


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
def test_levels_of_older_versions_have_the_scale_of_their_shapes(
    version: str, tmp_path: Path
) -> None:
    image = open_image(MADE[version](tmp_path / "it.zarr"))
    assert [axis.name for axis in image.axes] == list("tczyx")
    assert [level.scale for level in image.levels] == [(1.0,) * 5, (1.0, 1.0, 1.0, 2.0, 2.0)]
    assert image.pixel_size_um(0) is None


def test_axes_are_taken_as_they_are_given(tmp_path: Path) -> None:
    path = plain(tmp_path / "it.zarr", 2)
    assert open_image(path, "cyx").channels == 3
    image = open_image(path, "zyx")
    assert (image.channels, image.planes(0)) == (1, 3)
    np.testing.assert_array_equal(image.pixels(0).stored(2, 0, 45, 0, 70)[0], PIXELS[2])


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (None, r"plain Zarr array of shape \(3, 45, 70\) that does not say what its axes are"),
        ("yx", "which the axes yx do not fit"),
        ("cyq", "which the axes cyq do not fit"),
        ("cyy", "which the axes cyy do not fit"),
        ("yxc", "any of t, c, z and then y, x"),
    ],
)
def test_axes_that_nobody_tells_or_that_do_not_fit(
    axes: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_image(plain(tmp_path / "it.zarr", 2), axes)
    assert "\n" not in str(caught.value)


def plate(path: Path) -> Path:
    group = zarr.create_group(path, zarr_format=2)
    wells = [{"path": "A/1", "rowIndex": 0}, {"path": "B/3", "rowIndex": 1}]
    group.attrs["plate"] = {"version": "0.4", "wells": wells}
    for well, fields in (("A/1", "01"), ("B/3", "0")):
        zarr.create_group(path / well, zarr_format=2)
        for field in fields:
            write_image(path / well / field, PIXELS, version="0.4")
    listed = {"images": [{"path": "1"}, {"path": "0"}]}
    zarr.open_group(path / "A/1").attrs["well"] = listed
    return path


def test_the_images_of_a_plate_are_those_that_its_wells_list(tmp_path: Path) -> None:
    path = plate(tmp_path / "it.zarr")
    assert images_of(str(path)) == [f"{path}/{name}" for name in ("A/1/1", "A/1/0", "B/3/0")]
    with pytest.raises(InputError, match="a plate of 3 images; give one of them, as .*/A/1/1"):
        open_image(path)


def test_the_images_of_a_collection_are_those_that_it_names(tmp_path: Path) -> None:
    path = collection(tmp_path / "it.zarr")
    write_image(path / "1", PIXELS, version="0.4")
    assert images_of(str(path)) == [f"{path}/0", f"{path}/1"]
    zarr.create_group(path / "OME", zarr_format=2).attrs["series"] = ["1", "0"]
    assert images_of(str(path)) == [f"{path}/1", f"{path}/0"]
    assert images_of(str(path / "0")) == [str(path / "0")]
    assert images_of(str(tmp_path / "absent")) == [str(tmp_path / "absent")]


def damaged_zip(path: Path) -> Path:
    path = zipped(path.with_suffix(".zip"), "")
    path.write_bytes(path.read_bytes()[:200] + path.read_bytes()[-300:])
    return path


def zip_of_text(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "these are no pixels")
    return path


def unknown_codec(path: Path) -> Path:
    plain(path, 3, dimension_names=["c", "y", "x"])
    document = json.loads((path / "zarr.json").read_text())
    document["codecs"].append({"name": "nobody's", "configuration": {}})
    (path / "zarr.json").write_text(json.dumps(document))
    return path


def text_array(path: Path) -> Path:
    zarr.create_array(path, shape=(4, 5), dtype="bool", zarr_format=2)[...] = True
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (damaged_zip, "is a zip file, but holds no Zarr group that can be read"),
        (zip_of_text, "is a zip file, but holds no Zarr group that can be read"),
        (unknown_codec, "names a codec that is not installed"),
        (text_array, "pixels of type bool"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_image(make(tmp_path / "it.zarr"))
    assert "\n" not in str(caught.value)


def stores_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        documents = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
        if path.suffix == ".zip" or any((path / name).exists() for name in documents):
            yield path
        elif path.is_dir():
            yield from stores_in(path)


def test_every_store_of_others_opens_or_is_one_line(shared_data: Path) -> None:
    opened, told = 0, []
    for store in stores_in(shared_data / "zarr"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of stores with the metadata of two versions
                image = open_image(store)
                image.pixels(len(image.levels) - 1).stored(0, 0, 2, 0, 2)
            opened += 1
        except InputError as error:
            told.append(str(error))
    assert (opened, len(told)) == (26, 26)
    assert not [line for line in told if "\n" in line or len(line) > 400]
