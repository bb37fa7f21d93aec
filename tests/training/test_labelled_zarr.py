import numpy as np
import pytest
import zarr

from tilesegment.errors import InputError
from tilesegment.tiling import Window
from tilesegment.training.dataset import LabelRule, measure
from tilesegment.training.labelled_zarr import is_zarr, load_zarr
from tilesegment.training.weight_map import BorderWeight, border_weights, separate_touching

from .conftest import draw_discs

IMAGE, INSTANCES = draw_discs(11, size=96, discs=12, radius=9)


def multiscales(axes, paths):
    scales = [
        {"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for path, scale in paths
    ]
    return {
        "version": "0.5",
        "multiscales": [
            {"axes": [{"name": axis, "type": "space"} for axis in axes], "datasets": scales}
        ],
    }


def write_image(path, image=IMAGE, labels=None):
    """An OME-Zarr 0.5 image (y, x) with label images of two levels."""
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.create_array("0", data=image, chunks=(32, 32))
    root.attrs["ome"] = multiscales("yx", [("0", [1.0, 1.0])])
    group = root.create_group("labels")
    group.attrs["ome"] = {"version": "0.5", "labels": list(labels or {})}
    for name, values in (labels or {}).items():
        label = group.create_group(name)
        label.create_array("0", data=values, chunks=(32, 32))
        label.create_array("1", data=values[::2, ::2], chunks=(32, 32))
        levels = [("0", [1.0, 1.0]), ("1", [2.0, 2.0])]
        label.attrs["ome"] = {**multiscales("yx", levels), "image-label": {}}
    return path


@pytest.fixture
def annotated(tmp_path):
    return write_image(tmp_path / "a.zarr", labels={"cells": INSTANCES})


def test_images_are_found_alone_and_in_a_folder(annotated, tmp_path):
    assert is_zarr(annotated)
    assert is_zarr(tmp_path)
    assert not is_zarr(tmp_path / "elsewhere")


# Every window must weigh as the whole picture would: objects beyond it count, too.
@pytest.mark.parametrize("window", [Window(0, 0, 96, 96), Window(-9, 60, 31, 50)])
def test_window_holds_what_the_whole_picture_would(annotated, window):
    weight = BorderWeight(sigma=3)
    (picture,) = load_zarr(annotated, LabelRule("instances"), weight).pictures
    patch = picture.read(window)
    separated = separate_touching(INSTANCES)
    pad = ((100, 100), (100, 100))
    inner = Window(window.y + 100, window.x + 100, window.height, window.width).slices
    for found, whole in (
        (patch.image, IMAGE / np.float32(255)),
        (patch.classes, separated > 0),
        (patch.border, border_weights(separated, weight)),
    ):
        expected = np.pad(whole, pad, mode="reflect")[inner]
        np.testing.assert_allclose(np.squeeze(found), expected, atol=1e-5)


def test_objects_and_classes_are_taken_from_the_overview(annotated):
    data = load_zarr(annotated, LabelRule("instances"), BorderWeight())
    (picture,) = data.pictures
    assert data.names == ("background", "object")
    assert picture.object_size == pytest.approx(17, abs=4)
    assert (INSTANCES[tuple(picture.foreground.T)] > 0).mean() > 0.9
    assert measure(data.pictures, data.names).class_pixels[1] > 500


def test_label_image_must_be_chosen_among_several(tmp_path):
    classes = (INSTANCES > 0).astype(np.uint8)
    path = write_image(tmp_path / "a.zarr", labels={"cells": INSTANCES, "tissue": classes})
    with pytest.raises(InputError, match="cells, tissue; choose one with --label-name"):
        load_zarr(path, LabelRule(), BorderWeight())
    data = load_zarr(path, LabelRule(label_name="tissue"), BorderWeight())
    assert data.names == ("background", "class 1")


def test_image_without_labels_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no labels"):
        load_zarr(write_image(tmp_path / "a.zarr"), LabelRule(), BorderWeight())


def test_labels_of_another_size_are_refused(tmp_path):
    path = write_image(tmp_path / "a.zarr", labels={"cells": INSTANCES[:90]})
    with pytest.raises(InputError, match=r"\(96, 96\) .* \(90, 96\); they must be equal"):
        load_zarr(path, LabelRule(), BorderWeight())


def test_value_that_the_overview_missed_is_named(tmp_path):
    values = np.zeros((96, 96), np.uint8)
    values[:40] = 1
    values[5, 5] = 7
    path = write_image(tmp_path / "a.zarr", labels={"tissue": values})
    (picture,) = load_zarr(path, LabelRule(), BorderWeight()).pictures
    with pytest.raises(InputError, match="value 7, which is none of the classes"):
        picture.read(Window(0, 0, 16, 16))
