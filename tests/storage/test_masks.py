"""Masks that were found on the image, or that somebody has stored."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from tests.pictures import random_pixels, write_image
from tilesegment.errors import InputError
from tilesegment.storage.image import Image, open_image
from tilesegment.storage.masks import read_mask
from tilesegment.tiling import Window


def slide(path: Path, levels: int = 4) -> Image:
    """2000 x 2400 pixels of glass with a square of tissue from 800 to 1200."""
    pixels = np.full((3, 2000, 2400), 240, "uint8")
    pixels[:, 800:1200, 800:1200] = 120
    pixels[:, 0, 0] = 230
    return open_image(write_image(path, pixels, chunks=(3, 500, 500), levels=levels))


def whole(image: Image, source: str, level: int = 0, halo: int = 94) -> npt.NDArray[np.bool_]:
    mask = read_mask(source, image, level, halo)
    assert mask is not None
    shape = image.plane_shape(level)
    return mask.read(0, Window(0, 0, shape.y, shape.x))


def test_no_mask_wants_all(tmp_path: Path) -> None:
    assert read_mask("none", slide(tmp_path / "i.zarr"), 0, 94) is None


@pytest.mark.parametrize("level", [0, 1, 3])
def test_tissue_is_found_on_a_coarse_level_with_its_surroundings(
    level: int, tmp_path: Path
) -> None:
    """Level 1, of 1000 x 1200 pixels, is looked at, or the processed one if it is coarser."""
    image = slide(tmp_path / "i.zarr")
    mask = read_mask("tissue", image, level, halo=94)
    assert mask is not None
    assert mask.size == image.plane_shape(max(level, 1))
    wanted = whole(image, "tissue", level)
    first, last = 800 // 2**level, 1200 // 2**level
    assert wanted[first - 94 if first > 94 else 0 : last + 94, first:last].all()
    reach = 94 + 6
    assert not wanted[: max(first - reach, 0)].any()
    assert not wanted[last + reach :].any()


def test_tissue_of_any_plane_counts_for_all(tmp_path: Path) -> None:
    pixels = np.full((3, 1, 200, 200), 240, "uint8")
    pixels[0, :, 20:60, 20:60] = pixels[2, :, 120:160, 120:160] = 100
    image = open_image(write_image(tmp_path / "i.zarr", pixels, "tcyx"))
    wanted = whole(image, "tissue", halo=2)
    assert wanted[20:60, 20:60].all()
    assert wanted[120:160, 120:160].all()
    assert wanted.mean() < 0.2


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float32"])
def test_an_array_is_spread_over_the_image(dtype: str, tmp_path: Path) -> None:
    image = slide(tmp_path / "i.zarr")
    zarr.create_array(tmp_path / "mask.zarr", data=np.array([[0, 1], [0, 0]]).astype(dtype))
    wanted = whole(image, str(tmp_path / "mask.zarr"))
    assert wanted[:1000, 1200:].all()
    assert wanted.sum() == 1000 * 1200


@pytest.mark.parametrize("level", [0, 2])
def test_a_label_image_is_read_on_the_images_own_grid(level: int, tmp_path: Path) -> None:
    image = slide(tmp_path / "i.zarr")
    labels = random_pixels((2000, 2400), "uint8") % 3
    path = write_image(tmp_path / "labels.zarr", labels, "yx", chunks=(500, 500), levels=4)
    step = 2**level
    np.testing.assert_array_equal(whole(image, str(path), level), labels[::step, ::step] != 0)


def test_a_large_label_image_is_read_on_a_coarser_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilesegment.storage.masks._LARGEST_MASK", 2000 * 2400 // 4)
    image = slide(tmp_path / "i.zarr")
    labels = np.eye(2000, 2400, dtype="uint8")
    path = write_image(tmp_path / "labels.zarr", labels, "yx", chunks=(500, 500), levels=3)
    mask = read_mask(str(path), image, 0, 94)
    assert mask is not None
    assert mask.size == (1000, 1200)


def store(path: Path, shape: tuple[int, ...]) -> Path:
    zarr.create_array(path, shape=shape, dtype="uint8", chunks=tuple(min(s, 64) for s in shape))
    return path


BAD: dict[str, tuple[str, Any]] = {
    "nothing there": ("there is no mask at", lambda folder: folder / "nowhere"),
    "a folder": ("is a directory, but neither Zarr nor", lambda folder: folder),
    "one axis": (r"has the shape \(64,\); it needs", lambda folder: store(folder / "m", (64,))),
    "other planes": (
        "as many planes as the image: 1", lambda folder: store(folder / "m", (2, 9, 9))
    ),
    "too large": ("134,217,728 are the most", lambda folder: store(folder / "m", (10**6, 10**6))),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_a_mask_that_cannot_be_used_is_one_line(fault: str, tmp_path: Path) -> None:
    message, make = BAD[fault]
    image = slide(tmp_path / "i.zarr", levels=1)
    with pytest.raises(InputError, match=message) as caught:
        read_mask(str(make(tmp_path)), image, 0, 94)
    assert "\n" not in str(caught.value)


def test_an_image_without_coarse_levels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilesegment.storage.masks._LARGEST_PICTURE", 1000)
    with pytest.raises(InputError, match="has no level of less than 1,000 pixels to look for"):
        read_mask("tissue", slide(tmp_path / "i.zarr"), 0, 94)
