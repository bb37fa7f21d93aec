"""Opening images, and reading them as if they were endless."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pictures import random_pixels, write_image
from tilesegment.errors import InputError, OptionError
from tilesegment.geometry import YX
from tilesegment.storage.image import open_image
from tilesegment.tiling import Window


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_axes_levels_and_scale(version: str, tmp_path: Path) -> None:
    pixels = random_pixels((2, 3, 4, 50, 31), "uint16")
    path = write_image(tmp_path / "i.zarr", pixels, "tczyx", version=version, levels=3)
    image = open_image(path)
    assert image.version == version
    assert "".join(axis.name for axis in image.axes) == "tczyx"
    assert (image.channels, image.planes(0), image.plane_shape(1)) == (3, 8, YX(25, 16))
    assert image.levels[2].scale == (1.0, 1.0, 1.0, 2.0, 2.0)
    assert image.pixel_size_um(1) == (1.0, 1.0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_window_is_what_numpy_mirrors(data: st.DataObject, tmp_path: Path) -> None:
    shape = [data.draw(st.integers(1, 12)) for _ in "tczyx"]
    pixels = random_pixels(shape, "uint8")
    chunks = [data.draw(st.integers(1, size)) for size in shape]
    image = open_image(write_image(tmp_path / "i.zarr", pixels, "tczyx", chunks=chunks))
    plane = data.draw(st.integers(0, shape[0] * shape[2] - 1))
    window = Window(
        data.draw(st.integers(-20, 20)), data.draw(st.integers(-20, 20)),
        data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30)),
    )  # fmt: skip
    t, z = divmod(plane, shape[2])
    padded = np.pad(pixels[t, :, z], [(0, 0), (20, 50), (20, 50)], mode="reflect")
    rows, columns = window.slices
    expected = padded[:, rows.start + 20 : rows.stop + 20, columns.start + 20 : columns.stop + 20]
    np.testing.assert_array_equal(image.pixels(0).read(plane, window), expected)


def test_an_image_without_channel_axis_has_one_channel(tmp_path: Path) -> None:
    pixels = random_pixels((7, 9), "uint8")
    image = open_image(write_image(tmp_path / "i.zarr", pixels, "yx"))
    assert image.channels == 1
    np.testing.assert_array_equal(image.pixels(0).read(0, Window(0, 0, 7, 9)), pixels[None])


def test_nan_is_refused_with_its_place(tmp_path: Path) -> None:
    pixels = random_pixels((2, 20, 30), "float32")
    pixels[1, 13, 17] = np.nan
    image = open_image(write_image(tmp_path / "i.zarr", pixels))
    message = "holds nan at plane 0, channel 1, row 13, column 17"
    with pytest.raises(InputError, match=message):
        image.pixels(0).read(0, Window(10, 10, 10, 10))
    with pytest.raises(InputError, match=message):
        image.refuse_non_finite()


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", random_pixels((1, 40, 40), "uint8"), chunks=(1, 20, 20))
    (path / "0" / "c" / "0" / "1" / "0").write_bytes(b"not zstd")
    with pytest.raises(InputError, match="damaged chunk in rows 0 to 40"):
        open_image(path).pixels(0).read(0, Window(0, 0, 40, 40))


def test_a_level_out_of_range_is_refused(tmp_path: Path) -> None:
    image = open_image(write_image(tmp_path / "i.zarr", random_pixels((1, 9, 9), "uint8")))
    with pytest.raises(OptionError, match="has levels 0 to 0"):
        image.level_number(1)


def plain_array(path: Path) -> None:
    zarr.create_array(path, shape=(4, 4, 4), dtype="uint8")


def plain_group(path: Path) -> None:
    zarr.create_group(path).create_group("inside")


def plate(path: Path) -> None:
    zarr.create_group(path).attrs["ome"] = {"plate": {"wells": [{"path": "B/03"}]}}


def collection(path: Path) -> None:
    zarr.create_group(path).attrs["ome"] = {"bioformats2raw.layout": 3}


def not_a_picture(path: Path) -> None:
    path.write_text("these are no pixels")


def lost_level(path: Path) -> None:
    write_image(path, random_pixels((1, 9, 9), "uint8"))
    (path / "0" / "zarr.json").unlink()


def damaged_metadata(path: Path) -> None:
    write_image(path, random_pixels((1, 9, 9), "uint8"))
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type"')


def wrong_axes(path: Path) -> None:
    write_image(path, random_pixels((1, 9, 9), "uint8"))
    document = json.loads((path / "zarr.json").read_text())
    axes = document["attributes"]["ome"]["multiscales"][0]["axes"]
    axes[1], axes[2] = axes[2], axes[1]
    (path / "zarr.json").write_text(json.dumps(document))


def no_datasets(path: Path) -> None:
    zarr.create_group(path).attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": []}]}


def complex_pixels(path: Path) -> None:
    write_image(path, np.zeros((1, 9, 9), "complex64"))


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("absent.zarr", lambda _: None, "there is no image at"),
        ("empty", Path.mkdir, "neither Zarr nor OME-Zarr"),
        ("array.zarr", plain_array, "plain Zarr array"),
        ("group.zarr", plain_group, "without OME-Zarr metadata .* holds inside"),
        ("plate.zarr", plate, "a plate or collection without any image"),
        ("collection.zarr", collection, "a plate or collection without any image"),
        ("slide.svs", not_a_picture, "it is no image that can be read; needed is a slide"),
        ("lost.zarr", lost_level, "lacks the array '0'"),
        ("damaged.zarr", damaged_metadata, "damaged Zarr metadata"),
        ("axes.zarr", wrong_axes, "axes c, x, y; tilesegment needs y and x last"),
        ("datasets.zarr", no_datasets, "not valid OME-Zarr 0.5"),
        ("complex.zarr", complex_pixels, "pixels of type complex64"),
    ],
)
def test_what_is_no_image_is_named(name: str, make: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    make(path)  # type: ignore[operator]
    with pytest.raises(InputError, match=message) as caught:
        open_image(path)
    assert "\n" not in str(caught.value)


def test_images_of_other_programs_open(shared_data: Path) -> None:
    plates = shared_data / "zarr" / "ez_zarr" / "example_data"
    image = open_image(plates / "plate_ones_mip.zarr" / "B" / "03" / "0")
    assert image.label_names() == ["organoids"]
    assert image.channels == 2


@pytest.mark.parametrize(
    ("stored", "value"),
    [(None, None), (0, 0), (255, 255), (-9999.0, -9999), ("AAAAAACIw8A=", -10000), (np.nan, None)],
)
def test_nodata_is_what_the_level_declares(
    stored: Any, value: float | None, tmp_path: Path
) -> None:
    """Floats may be written as base64, as xarray does; NaN is refused elsewhere."""
    path = write_image(tmp_path / "i.zarr", random_pixels((1, 9, 9), "float32"))
    if stored is not None:
        zarr.open_array(path / "0").attrs["_FillValue"] = stored
    assert open_image(path).nodata(0) == value
