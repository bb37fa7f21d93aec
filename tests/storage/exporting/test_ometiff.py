"""OME-TIFF, read back by tifffile."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from tests.storage.exporting.labelled_images import blobs, write_labelled
from tilesegment.storage.exporting import export_labels, ometiff
from tilesegment.storage.importing import PixelSize
from tilesegment.storage.importing.tiff import TiffSource


@pytest.mark.parametrize("planes", [(), (3,)])
@pytest.mark.parametrize("block", [512, 1024])
def test_every_plane_and_level(
    planes: tuple[int, ...], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ometiff, "BLOCK", block)
    labels = (
        blobs(700, 1300) if not planes else np.stack([blobs(700, 1300, seed=s) for s in (1, 2, 3)])
    )
    image = write_labelled(tmp_path / "i.zarr", labels, levels=3)
    export_labels(image, tmp_path / "o.ome.tif")
    with tifffile.TiffFile(tmp_path / "o.ome.tif") as tiff:
        assert tiff.is_bigtiff
        (series,) = tiff.series
        assert series.axes == ("ZYX" if planes else "YX")
        stored = zarr.open_group(image / "labels" / "cells", mode="r")
        assert len(series.levels) == 3
        for number, level in enumerate(series.levels):
            assert level.keyframe.is_tiled
            np.testing.assert_array_equal(level.asarray(), np.asarray(stored[str(number)]))


def test_pixel_size_and_class_names(tmp_path: Path) -> None:
    export_labels(write_labelled(tmp_path / "i.zarr", blobs(90, 70)), tmp_path / "o.ome.tif")
    info = TiffSource(tmp_path / "o.ome.tif").info
    assert info.pixel_size == PixelSize(0.5, 0.5)
    assert info.channel_names == ("cells",)
    with tifffile.TiffFile(tmp_path / "o.ome.tif") as tiff:
        assert '<M K="2">stroma</M>' in str(tiff.ome_metadata)
