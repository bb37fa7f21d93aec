"""Tissue on made-up and on real slides."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from skimage.filters import threshold_otsu

from tilesegment.tissue import find_tissue, otsu_threshold

GLASS, PINK, HAZE = (243, 242, 244), (205, 130, 170), (225, 205, 220)


def disc(radius: int) -> npt.NDArray[np.bool_]:
    y, x = np.ogrid[:200, :240]
    return (y - 90) ** 2 + (x - 130) ** 2 < radius**2


def picture(background: Any, tissue: Any, where: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """(3, 200, 240), with noise."""
    colours = np.where(where, np.reshape(tissue, (3, 1, 1)), np.reshape(background, (3, 1, 1)))
    noise = np.random.default_rng(0).normal(0, 3, colours.shape)
    return np.clip(colours + noise, 0, 255).astype("uint8")


@pytest.mark.parametrize("tissue", [PINK, HAZE])
def test_stained_tissue_on_glass(tissue: tuple[int, int, int]) -> None:
    found = find_tissue(picture(GLASS, tissue, disc(50)))
    assert found[disc(48)].all()
    assert not found[~disc(53)].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_fluorescence_on_a_dark_background(dtype: str) -> None:
    light = picture((8, 8, 8), (60, 9, 200), disc(50)).astype(dtype)
    found = find_tissue(light * 13 if dtype == "uint16" else light / 7)
    assert found[disc(48)].all()
    assert found[~disc(53)].mean() < 0.01


def test_a_lumen_belongs_to_the_tissue_around_it() -> None:
    assert find_tissue(picture(GLASS, PINK, disc(60) & ~disc(20)))[disc(58)].all()


def test_tissue_without_glass_is_not_split() -> None:
    """Otsu alone would call the paler half background."""
    found = find_tissue(picture(PINK, (120, 60, 140), disc(70)))
    assert found[disc(68)].all()


def test_where_the_scanner_was_not_there_is_no_tissue() -> None:
    pixels = picture(GLASS, PINK, disc(50))
    pixels[:, :, :20] = 0
    assert not find_tissue(pixels)[:, :17].any()


@pytest.mark.parametrize("value", [0, 255])
def test_where_nothing_can_be_told_all_is_kept(value: int) -> None:
    assert find_tissue(np.full((3, 20, 30), value, "uint8")).all()


def test_a_channel_without_light_does_no_harm() -> None:
    pixels = picture(GLASS, PINK, disc(50))
    pixels[2] = 0
    assert find_tissue(pixels)[disc(48)].all()


def test_otsu_is_that_of_scikit_image() -> None:
    values = np.random.default_rng(0).normal([[0.1], [0.7]], 0.1, (2, 5000))
    assert otsu_threshold(values) == pytest.approx(threshold_otsu(values), abs=1e-2)


@pytest.mark.parametrize(("name", "share"), [("CMU-1-Small-Region.svs", 0.4)])
def test_a_real_slide(name: str, share: float, shared_data: Path) -> None:
    pixels = np.moveaxis(tifffile.imread(shared_data / "slides" / name), -1, 0)[:, ::2, ::2]
    assert find_tissue(pixels).mean() == pytest.approx(share, abs=0.05)
