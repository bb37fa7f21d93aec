"""Whole imports: what is on disk afterwards, and what is not."""

import errno
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ome_zarr_models.v05.image import Image

from tilesegment.errors import InputError, OptionError, OutputError
from tilesegment.storage.importing import ImportSummary, PixelSize, import_image, writer
from tilesegment.storage.importing import layout as layout_module
from tilesegment.storage.importing.pyramid import halve

RANDOM = np.random.default_rng(13)


def tiff(path: Path, *shape: int, dtype: str = "uint8", **options: Any) -> np.ndarray:
    """Write noise, and give it back as (c, y, x)."""
    pixels = RANDOM.integers(0, 200, shape).astype(dtype)
    is_colour = len(shape) == 3
    tifffile.imwrite(path, pixels, photometric="rgb" if is_colour else "minisblack", **options)
    return pixels.transpose(2, 0, 1) if is_colour else pixels[np.newaxis]


def levels(output: Path) -> list[np.ndarray]:
    group = zarr.open_group(output, mode="r")
    return [np.asarray(group[key]) for key in sorted(group.array_keys())]


def assert_pyramid(found: list[np.ndarray], pixels: np.ndarray) -> None:
    """The finest level is the image, and each other the means of the one before."""
    np.testing.assert_array_equal(found[0], pixels)
    assert found[0].dtype == pixels.dtype
    for fine, coarse in pairwise(found):
        np.testing.assert_array_equal(coarse, halve(fine))
    assert min(found[-1].shape[-2:]) < 512


def test_a_real_slide_is_imported_whole(slide: Path, tmp_path: Path) -> None:
    openslide = pytest.importorskip("openslide")
    summary = import_image(slide, tmp_path / "slide.zarr")
    with openslide.OpenSlide(slide) as plain:
        expected = np.asarray(plain.read_region((0, 0), 0, plain.dimensions).convert("RGB"))
    assert_pyramid(levels(tmp_path / "slide.zarr"), expected.transpose(2, 0, 1))
    assert summary.shape == (3, 2967, 2220)
    assert summary.axes == "cyx"
    assert summary.levels == 4
    assert summary.pixel_size_um == PixelSize(y=0.499, x=0.499)


def test_only_the_finest_level_of_a_slide_is_read(shared: Path, tmp_path: Path) -> None:
    openslide = pytest.importorskip("openslide")
    (path,) = (shared / "slides").glob("tcga-*.svs")
    import_image(path, tmp_path / "slide.zarr", pixel_size_um=0.25)
    fine, *coarser = levels(tmp_path / "slide.zarr")
    with openslide.OpenSlide(path) as plain:
        expected = np.asarray(plain.read_region((1900, 1900), 0, (300, 200)).convert("RGB"))
    np.testing.assert_array_equal(fine[:, 1900:2100, 1900:2200], expected.transpose(2, 0, 1))
    np.testing.assert_array_equal(coarser[0], halve(fine))


@settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    channels=st.sampled_from([(), (3,)]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
)
def test_pixels_and_levels_of_any_shape(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    channels: tuple[int, ...],
    dtype: str,
) -> None:
    """With chunks and shards small enough that images of a few pixels have many."""
    monkeypatch.setattr(layout_module, "CHUNK_SIDE", 16)
    monkeypatch.setattr(writer, "shard_side", lambda _: 32)
    monkeypatch.setattr("tilesegment.storage.importing.pyramid.COARSEST_SIDE", 16)
    pixels = tiff(tmp_path / "t.tif", *size, *channels, dtype=dtype, tile=(16, 48))
    import_image(tmp_path / "t.tif", tmp_path / "t.zarr", overwrite=True)
    assert_pyramid(levels(tmp_path / "t.zarr"), pixels)
    Image.from_zarr(zarr.open_group(tmp_path / "t.zarr", mode="r"))


def test_a_stack_keeps_its_axes(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 4000, (2, 3, 5, 30, 40), np.uint16)
    tifffile.imwrite(
        tmp_path / "s.ome.tif", pixels, photometric="minisblack", metadata={"axes": "TZCYX"}
    )
    summary = import_image(tmp_path / "s.ome.tif", tmp_path / "s.zarr")
    assert summary.axes == "tczyx"
    np.testing.assert_array_equal(levels(tmp_path / "s.zarr")[0], pixels.transpose(0, 2, 1, 3, 4))
    ome = zarr.open_group(tmp_path / "s.zarr", mode="r").attrs["ome"]
    windows = [channel["window"] for channel in ome["omero"]["channels"]]
    assert [window["end"] for window in windows] == pixels.max((0, 1, 3, 4)).tolist()


def test_metadata_say_where_each_level_lies(tmp_path: Path) -> None:
    """OME coordinates are those of pixel centres: level 1 begins half a pixel further in."""
    tiff(tmp_path / "t.tif", 700, 600, 3)
    import_image(tmp_path / "t.tif", tmp_path / "t.zarr", pixel_size_um=0.25)
    ome = Image.from_zarr(zarr.open_group(tmp_path / "t.zarr", mode="r")).ome_attributes
    (multiscale,) = ome.multiscales
    assert [(axis.name, axis.unit) for axis in multiscale.axes] == [
        ("c", None),
        ("y", "micrometer"),
        ("x", "micrometer"),
    ]
    scale, translation = multiscale.datasets[1].coordinateTransformations
    assert scale.scale == [1, 0.5, 0.5]
    assert translation.translation == [0, 0.125, 0.125]


def test_chunks_have_checksums_and_the_finest_level_is_sharded(tmp_path: Path) -> None:
    tiff(tmp_path / "t.tif", 2100, 600, 3)
    import_image(tmp_path / "t.tif", tmp_path / "t.zarr", pixel_size_um=1)
    fine, coarse = (zarr.open_array(tmp_path / "t.zarr" / level, mode="r") for level in "01")
    assert (fine.shards, fine.chunks) == ((3, 2048, 1024), (3, 512, 512))
    assert (coarse.shards, coarse.chunks) == ((3, 1536, 300), (3, 512, 300))
    assert [codec.to_dict()["configuration"] for codec in fine.compressors] == [
        {"level": 3, "checksum": True}
    ]
    assert fine.metadata.dimension_names == ("c", "y", "x")


def test_black_chunks_are_stored(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "t.tif", np.zeros((20, 20), np.uint8))
    import_image(tmp_path / "t.tif", tmp_path / "t.zarr")
    assert (tmp_path / "t.zarr/0/c/0/0/0").is_file()


def test_the_standard_tool_finds_the_image_valid(tmp_path: Path) -> None:
    tiff(tmp_path / "t.tif", 600, 700, dtype="float32")
    import_image(tmp_path / "t.tif", tmp_path / "t.zarr")
    validate = Path(sys.executable).with_name("ome-zarr-models")
    subprocess.run([validate, "validate", tmp_path / "t.zarr"], check=True, capture_output=True)


def test_a_missing_pixel_size_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiff(tmp_path / "t.tif", 20, 30)
    assert import_image(tmp_path / "t.tif", tmp_path / "t.zarr").pixel_size_um is None
    (record,) = caplog.records
    assert "--pixel-size" in record.getMessage()
    ome = zarr.open_group(tmp_path / "t.zarr", mode="r").attrs["ome"]
    assert all("unit" not in axis for axis in ome["multiscales"][0]["axes"])


def test_progress_counts_every_pixel_of_every_level(tmp_path: Path) -> None:
    tiff(tmp_path / "t.tif", 2500, 600)
    seen: list[tuple[int, int]] = []
    import_image(tmp_path / "t.tif", tmp_path / "t.zarr", progress=lambda *both: seen.append(both))
    total = 2500 * 600 + 1250 * 300
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_only_whole_shards_of_bounded_size_are_read(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilesegment.storage.importing.slide import SlideSource

    windows = []
    plain = SlideSource.read

    def read(self: Any, plane: Any, window: Any) -> np.ndarray:
        windows.append(window)
        return plain(self, plane, window)

    monkeypatch.setattr(SlideSource, "read", read)
    import_image(slide, tmp_path / "s.zarr")
    assert sum(window.pixels for window in windows) == 2967 * 2220
    assert all(max(window.size) <= 2048 for window in windows)


class TestNothingIsLeftBehind:
    """Whatever ends an import early, the folder is as it was."""

    def failing(self, path: Path, error: BaseException, **options: Any) -> None:
        def stop(done: int, total: int) -> None:
            raise error

        tiff(path / "t.tif", 2100, 600)
        import_image(path / "t.tif", path / "t.zarr", progress=stop, **options)

    def test_after_ctrl_c(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            self.failing(tmp_path, KeyboardInterrupt())
        assert [path.name for path in tmp_path.iterdir()] == ["t.tif"]

    def test_after_damage_in_the_middle(self, slide: Path, tmp_path: Path) -> None:
        stored = bytearray(slide.read_bytes())
        stored[900_000:1_000_000] = bytes(100_000)
        (tmp_path / "damaged.svs").write_bytes(stored)
        with pytest.raises(InputError, match="damaged"):
            import_image(tmp_path / "damaged.svs", tmp_path / "t.zarr")
        assert [path.name for path in tmp_path.iterdir()] == ["damaged.svs"]

    def test_after_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        tiff(tmp_path / "t.tif", 20, 30)
        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left on device"):
            import_image(tmp_path / "t.tif", tmp_path / "t.zarr")
        assert [path.name for path in tmp_path.iterdir()] == ["t.tif"]

    def test_and_the_old_image_stays(self, tmp_path: Path) -> None:
        old = self.imported(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            self.failing(tmp_path, KeyboardInterrupt(), overwrite=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["t.tif", "t.zarr"]
        assert levels(old.path)[0].shape == (1, 20, 30)

    def imported(self, path: Path) -> ImportSummary:
        tiff(path / "t.tif", 20, 30)
        return import_image(path / "t.tif", path / "t.zarr")

    def test_an_image_in_the_making_is_none(self, tmp_path: Path) -> None:
        found = []

        def look(done: int, total: int) -> None:
            (partial,) = tmp_path.glob("*.partial")
            found.append((partial / "zarr.json").exists() or (tmp_path / "t.zarr").exists())

        tiff(tmp_path / "t.tif", 600, 600)
        import_image(tmp_path / "t.tif", tmp_path / "t.zarr", progress=look)
        assert found == [False]


def test_an_existing_image_is_kept_or_replaced_as_asked(tmp_path: Path) -> None:
    tiff(tmp_path / "old.tif", 20, 30)
    tiff(tmp_path / "new.tif", 21, 31)
    import_image(tmp_path / "old.tif", tmp_path / "i.zarr")
    with pytest.raises(OutputError, match=r"exists already.*--overwrite"):
        import_image(tmp_path / "new.tif", tmp_path / "i.zarr")
    import_image(tmp_path / "new.tif", tmp_path / "i.zarr", overwrite=True)
    assert levels(tmp_path / "i.zarr")[0].shape == (1, 21, 31)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i.zarr", "new.tif", "old.tif"]


def test_a_folder_that_is_no_image_is_never_replaced(tmp_path: Path) -> None:
    tiff(tmp_path / "t.tif", 20, 30)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is no Zarr group"):
        import_image(tmp_path / "t.tif", tmp_path / "home", overwrite=True)
    assert (tmp_path / "home/thesis.txt").exists()


def test_a_missing_folder_for_the_output(tmp_path: Path) -> None:
    tiff(tmp_path / "t.tif", 20, 30)
    with pytest.raises(OutputError, match="there is no folder"):
        import_image(tmp_path / "t.tif", tmp_path / "absent/t.zarr")


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pixel_size_that_is_none(tmp_path: Path, size: float) -> None:
    with pytest.raises(OptionError, match="micrometres per pixel"):
        import_image(tmp_path / "t.tif", tmp_path / "t.zarr", pixel_size_um=size)
