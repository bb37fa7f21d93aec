"""JPEG 2000, against rasterio."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.storage.importing.test_geotiff import NORTH_UP, noise
from tilesegment.errors import InputError
from tilesegment.storage.geozarr import read_georeferencing
from tilesegment.storage.image import open_image
from tilesegment.storage.importing import import_image
from tilesegment.storage.importing.detect import open_source


def jpeg2000(path: Path, pixels: np.ndarray) -> Path:
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", count=count, height=height, width=width,
        dtype=pixels.dtype, crs="EPSG:32616", transform=NORTH_UP, quality=100, reversible="yes",
        blockxsize=256, blockysize=256,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


@pytest.mark.parametrize(("bands", "dtype"), [(3, "uint8"), (1, "uint16"), (4, "uint16")])
def test_pixels_and_place_are_those_of_rasterio(bands: int, dtype: str, tmp_path: Path) -> None:
    path = jpeg2000(tmp_path / "t.jp2", noise(bands, 600, 530, dtype=dtype))
    import_image(path, tmp_path / "i.zarr")
    for image in (open_image(tmp_path / "i.zarr"), open_image(path)):
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(image.pixels(0).stored(0, 0, 600, 0, 530), dataset.read())
        place = read_georeferencing(dict(image.group.attrs), "it")
        assert place is not None
        assert (place.crs, place.transform) == ("EPSG:32616", tuple(NORTH_UP)[:6])


def test_what_it_is_made_of_is_known(tmp_path: Path) -> None:
    info = open_source(jpeg2000(tmp_path / "t", noise(3, 600, 530))).info
    assert (info.format, info.is_colour, info.tile) == ("JPEG 2000", True, (256, 256))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_one_that_is_cut_short(share: float, tmp_path: Path) -> None:
    path = jpeg2000(tmp_path / "t.jp2", noise(3, 600, 530))
    stored = path.read_bytes()
    path.write_bytes(stored[: int(len(stored) * share)])
    with pytest.raises(InputError, match="damaged") as caught:
        import_image(path, tmp_path / "i.zarr")
    assert "\n" not in str(caught.value)
    assert [item.name for item in tmp_path.iterdir()] == ["t.jp2"]
