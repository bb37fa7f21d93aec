"""GeoTIFF, against rasterio: the same pixels, at the same place."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
import zarr_cm
from ome_zarr_models.v05.image import Image
from PIL import Image as Picture
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine as RasterioAffine

from tilesegment.errors import InputError, OptionError
from tilesegment.storage.geozarr import Affine, read_georeferencing
from tilesegment.storage.image import open_image
from tilesegment.storage.importing import import_image
from tilesegment.storage.importing.detect import open_source

RANDOM = np.random.default_rng(5)
NORTH_UP = RasterioAffine(0.5, 0, 733601, 0, -0.5, 3725139)
REAL = ["cog", "dsm", "m_4709963_se_14_1_20200831", "sample_geotiff", "road_mask_input"]


def geotiff(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """Write pixels, (c, y, x), with rasterio."""
    count, height, width = pixels.shape
    options = {"crs": "EPSG:32616", "transform": NORTH_UP, "dtype": pixels.dtype, **options}
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, **options
    ) as dataset:
        dataset.write(pixels)
    return path


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return RANDOM.integers(1, 250, shape).astype(dtype)


@pytest.mark.parametrize("name", REAL)
def test_real_scenes_keep_pixels_and_place(name: str, shared: Path, tmp_path: Path) -> None:
    path = shared / "geotiff" / f"{name}.tif"
    import_image(path, tmp_path / "i.zarr")
    group = zarr.open_group(tmp_path / "i.zarr", mode="r")
    place = read_georeferencing(dict(group.attrs), "it")
    assert place is not None
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(np.asarray(group["0"]), dataset.read())
        assert place.transform == tuple(dataset.transform)[:6]
        assert rasterio.CRS.from_string(place.crs) == dataset.crs


def test_ome_and_geozarr_metadata_are_both_valid(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "t.tif", noise(1, 600, 700))
    summary = import_image(path, tmp_path / "i.zarr")
    Image.from_zarr(zarr.open_group(tmp_path / "i.zarr", mode="r"))
    attributes = dict(zarr.open_group(tmp_path / "i.zarr", mode="r").attrs)
    zarr_cm.validate_all(attributes)
    assert (summary.format, summary.crs) == ("GeoTIFF", "EPSG:32616")
    image = open_image(tmp_path / "i.zarr")
    assert [axis.unit for axis in image.axes] == [None, "meter", "meter"]
    assert image.levels[1].scale[-2:] == (1.0, 1.0)
    assert image.levels[1].translation[-2:] == (0.25, 0.25)
    assert image.pixel_size_um(0) == (5e5, 5e5)


def test_pixel_is_point_means_centres(tmp_path: Path) -> None:
    """GeoTIFF 1.1, 7.1.3: PixelIsPoint ties the raster point to the centre of the pixel."""
    path = geotiff(tmp_path / "t.tif", noise(1, 9, 9))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT="Point")
    source = open_source(path)
    assert source.info.georeferencing is not None
    assert source.info.georeferencing.transform == tuple(NORTH_UP)[:6]


def test_many_bands_keep_their_names_and_order(tmp_path: Path) -> None:
    pixels = noise(7, 61, 83, dtype="uint16")
    path = geotiff(tmp_path / "t.tif", pixels, interleave="band", tiled=True)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = [f"B{number:02}" for number in range(1, 8)]
    import_image(path, tmp_path / "i.zarr")
    group = zarr.open_group(tmp_path / "i.zarr", mode="r")
    np.testing.assert_array_equal(np.asarray(group["0"]), pixels)
    channels = dict(group.attrs)["ome"]["omero"]["channels"]
    assert [channel["label"] for channel in channels][::6] == ["B01", "B07"]


def test_feet_become_metres(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "t.tif", noise(1, 9, 9), crs="EPSG:2263")
    info = open_source(path).info
    assert info.pixel_size == pytest.approx((152400.3, 152400.3, None))


@pytest.mark.parametrize("crs", ["EPSG:4326", None])
def test_degrees_and_unknown_units_are_no_pixel_size(crs: str | None, tmp_path: Path) -> None:
    info = open_source(geotiff(tmp_path / "t.tif", noise(1, 9, 9), crs=crs)).info
    assert info.pixel_size is None
    assert info.georeferencing is not None


def test_a_crs_without_a_code_is_kept_whole(tmp_path: Path) -> None:
    crs = rasterio.CRS.from_proj4("+proj=laea +lat_0=1 +lon_0=2 +datum=WGS84 +units=m")
    info = open_source(geotiff(tmp_path / "t.tif", noise(1, 9, 9), crs=crs)).info
    assert info.georeferencing is not None
    assert info.georeferencing.crs is not None
    assert info.georeferencing.crs.startswith("PROJCRS[")
    assert rasterio.CRS.from_string(info.georeferencing.crs) == crs


def test_a_rotated_scene_keeps_its_affine_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rotated = NORTH_UP @ RasterioAffine.rotation(30)
    info = open_source(geotiff(tmp_path / "t.tif", noise(1, 9, 9), transform=rotated)).info
    assert info.georeferencing is not None
    assert info.georeferencing.transform == Affine(*tuple(rotated)[:6])
    assert info.pixel_size == pytest.approx((5e5, 5e5, None))
    assert [record.message.split(": ")[1][:18] for record in caplog.records] == [
        "it is rotated agai"
    ]


def test_control_points_are_no_place_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corners = [GroundControlPoint(y, x, 5 + x, 9 - y) for y in (0, 9) for x in (0, 9)]
    path = geotiff(tmp_path / "t.tif", noise(1, 9, 9), transform=None, gcps=corners)
    assert open_source(path).info.georeferencing is None
    assert "ground control points instead of an affine; warp it first" in caplog.text


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 0), ("float32", -9999), ("float32", np.nan)]
)
def test_a_scene_of_nodata_is_refused_and_leaves_nothing(
    dtype: str, nodata: float, tmp_path: Path
) -> None:
    pixels = np.full((2, 30, 40), nodata, dtype)
    path = geotiff(tmp_path / "t.tif", pixels, nodata=nodata)
    with pytest.raises(InputError, match="every pixel is nodata"):
        import_image(path, tmp_path / "i.zarr")
    assert [item.name for item in tmp_path.iterdir()] == ["t.tif"]


def test_black_is_no_nodata_where_nobody_says_so(tmp_path: Path) -> None:
    import_image(geotiff(tmp_path / "t.tif", np.zeros((1, 30, 40), "uint8")), tmp_path / "i.zarr")


def test_nodata_is_kept_as_the_fill_value_and_nan_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = noise(1, 30, 40, dtype="float32")
    pixels[0, :5] = np.nan
    import_image(geotiff(tmp_path / "t.tif", pixels, nodata=np.nan), tmp_path / "i.zarr")
    array: Any = zarr.open_group(tmp_path / "i.zarr", mode="r")["0"]
    np.testing.assert_array_equal(np.asarray(array), pixels)
    assert np.isnan(array.fill_value)
    assert "import it with --fill-nodata VALUE" in caplog.text


def test_nodata_is_filled_on_request(tmp_path: Path) -> None:
    pixels = noise(1, 30, 40, dtype="float32")
    pixels[0, :5] = -9999
    path = geotiff(tmp_path / "t.tif", pixels, nodata=-9999)
    import_image(path, tmp_path / "i.zarr", fill_nodata=0)
    filled = np.where(pixels == -9999, 0, pixels)
    array = zarr.open_group(tmp_path / "i.zarr", mode="r")["0"]
    np.testing.assert_array_equal(np.asarray(array), filled)


@pytest.mark.parametrize(("dtype", "value"), [("uint8", 256), ("uint8", 0.5), ("float32", np.inf)])
def test_a_filling_that_pixels_cannot_have_is_refused(
    dtype: str, value: float, tmp_path: Path
) -> None:
    path = geotiff(tmp_path / "t.tif", noise(1, 9, 9, dtype=dtype))
    with pytest.raises(OptionError, match="no value that the"):
        import_image(path, tmp_path / "i.zarr", fill_nodata=value)


def test_a_palette_becomes_colour(tmp_path: Path) -> None:
    pixels = noise(1, 30, 40) % 3
    path = geotiff(tmp_path / "t.tif", pixels, photometric="palette")
    colours = {0: (1, 2, 3, 255), 1: (40, 50, 60, 255), 2: (7, 80, 90, 255)}
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, colours)
    info = open_source(path).info
    assert info.is_colour
    assert info.georeferencing is not None


def test_a_damaged_scene_is_one_line_and_leaves_nothing(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="corrupt.tif: the TIFF is damaged or cut short") as caught:
        import_image(shared / "geotiff/rasterio/corrupt.tif", tmp_path / "i.zarr")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["rasterio", "zarr_cm"])
def test_a_missing_library_is_named_with_the_way_to_install_it(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = geotiff(tmp_path / "t.tif", noise(1, 9, 9))
    monkeypatch.delitem(sys.modules, "tilesegment.storage.importing.geotiff")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=rf"needs {missing}.*pip install 'tilesegment\[geo\]'"):
        open_source(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_scene_cut_short(share: float, tmp_path: Path) -> None:
    path = geotiff(tmp_path / "t.tif", noise(3, 200, 300), compress="deflate", tiled=True)
    stored = path.read_bytes()
    path.write_bytes(stored[: int(len(stored) * share)])
    with pytest.raises(InputError, match="damaged or cut short"):
        import_image(path, tmp_path / "i.zarr")
    assert [item.name for item in tmp_path.iterdir()] == ["t.tif"]


@pytest.mark.parametrize("name", ["it.tif/it.tfw", "it.png/it.pgw", "it.jpg/it.wld"])
def test_a_world_file_beside_a_picture_gives_its_place(name: str, tmp_path: Path) -> None:
    """Its last two numbers are the centre of the first pixel, not its corner."""
    picture, world = (tmp_path / part for part in name.split("/"))
    Picture.fromarray(noise(30, 40)).save(picture)
    world.write_text("0.5\n0\n0\n-0.5\n733601.25\n3725138.75\n")
    place = open_source(picture).info.georeferencing
    assert place is not None
    assert place.transform == tuple(NORTH_UP)[:6]
    assert open_image(picture).group.attrs["spatial:transform"] == list(NORTH_UP)[:6]


@pytest.mark.parametrize("shape", [(1, 100_000, 1), (1, 1, 100_000), (3, 100_000, 2)])
def test_lines_of_pixels(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = noise(*shape)
    path = geotiff(tmp_path / "t.tif", pixels)
    import_image(path, tmp_path / "i.zarr")
    for place in (tmp_path / "i.zarr", path):
        found = open_image(place).pixels(0).stored(0, 0, shape[1], 0, shape[2])
        np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 7), ("float32", -9999.5)])
def test_nodata_is_declared_as_run_and_xarray_look_for_it(
    dtype: str, nodata: float, tmp_path: Path
) -> None:
    pixels = noise(2, 1100, 700).astype(dtype)
    pixels[:, :, 100:211] = nodata
    path = geotiff(tmp_path / "t.tif", pixels, nodata=nodata)
    import_image(path, tmp_path / "i.zarr")
    image = open_image(tmp_path / "i.zarr")
    assert [image.nodata(level) for level in range(2)] == [nodata, nodata]
    coarse = image.pixels(1).stored(0, 0, 550, 0, 350)
    assert (coarse[:, :, 50:105] == nodata).all()
    # The mean of the one column that holds something.
    expected = pixels[:, ::2, 211].astype(float) / 2 + pixels[:, 1::2, 211].astype(float) / 2
    assert np.abs(coarse[:, :, 105] - expected).max() <= 0.5

    import_image(path, tmp_path / "filled.zarr", fill_nodata=1)
    assert open_image(tmp_path / "filled.zarr").nodata(0) is None
