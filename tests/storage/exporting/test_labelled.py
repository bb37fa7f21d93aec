"""What is known of labels before they are exported."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.storage.exporting.labelled_images import CLASSES, SCENE, blobs, write_labelled
from tilesegment.errors import OptionError
from tilesegment.storage.exporting import export_labels
from tilesegment.storage.exporting.labelled import open_labelled
from tilesegment.storage.exporting.overview import _shares
from tilesegment.tiling import Window

LABELS = blobs(90, 70)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_classes_place_and_size(version: str, tmp_path: Path) -> None:
    image = write_labelled(tmp_path / "i.zarr", LABELS, version=version)
    labelled = open_labelled(image)
    assert labelled.classes == {item.value: item for item in CLASSES}
    assert labelled.label_class(9).name == "label 9"
    assert labelled.size == (90, 70)
    assert labelled.pixel_size_um == (0.5, 0.5)
    assert labelled.place is None
    part = labelled.read(0, Window(11, 7, 13, 17))
    np.testing.assert_array_equal(part, LABELS[11:24, 7:24])


def test_blocks_cover_each_pixel_once(tmp_path: Path) -> None:
    labelled = open_labelled(write_labelled(tmp_path / "i.zarr", LABELS))
    covered = np.zeros(LABELS.shape, int)
    for window in labelled.blocks(block=32):
        covered[window.slices] += 1
    assert (covered == 1).all()


def test_labels_in_a_store_of_their_own(tmp_path: Path) -> None:
    image = write_labelled(tmp_path / "i.zarr", LABELS, place=SCENE)
    store = image / "labels" / "cells"
    store.rename(tmp_path / "own.zarr")
    labelled = open_labelled(tmp_path / "own.zarr")
    assert (labelled.name, labelled.place) == ("cells", SCENE)
    assert export_labels(tmp_path / "own.zarr", tmp_path / "o.gpkg").labels == "cells"
    with pytest.raises(OptionError, match="labels without their image, which a picture needs"):
        export_labels(tmp_path / "own.zarr", tmp_path / "o.png")


def test_shares_are_those_that_the_run_has_counted(tmp_path: Path) -> None:
    image = write_labelled(tmp_path / "i.zarr", LABELS)
    group = zarr.open_group(image / "labels" / "cells")
    group.attrs["tilesegment"] = {"summary": {"shares": {"nucleus": 0.25, "stroma": 0.5}}}
    assert _shares(open_labelled(image), LABELS) == {0: 0.0, 1: 0.25, 2: 0.5}


def test_shares_of_other_labels_are_those_of_the_picture(tmp_path: Path) -> None:
    shares = _shares(open_labelled(write_labelled(tmp_path / "i.zarr", LABELS)), LABELS[:10])
    assert shares[1] == np.mean(LABELS[:10] == 1)
