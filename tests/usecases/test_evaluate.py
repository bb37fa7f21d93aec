import json
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.pictures import load_predictor, random_pixels, whole_pass, write_image
from tilesegment.errors import InputError, ModelError, OptionError
from tilesegment.metrics.boundaries import label_objects, score_boundaries
from tilesegment.metrics.instances import match_objects, score_matches
from tilesegment.metrics.overlaps import count_overlaps
from tilesegment.usecases import comparison, label_sources
from tilesegment.usecases.evaluate import EvaluateOptions, evaluate
from tilesegment.usecases.label_sources import Segmentation

TRUTH = np.array([
    [0, 0, 0, 0, 0, 0],
    [0, 1, 1, 0, 2, 2],
    [0, 1, 1, 0, 2, 2],
], np.uint8)  # fmt: skip
PREDICTED = np.array([
    [0, 0, 0, 0, 0, 0],
    [0, 1, 1, 1, 2, 2],
    [0, 1, 0, 0, 1, 2],
], np.uint8)  # fmt: skip
IGNORED = 9


def save(path, labels):
    path.parent.mkdir(exist_ok=True, parents=True)
    if path.suffix == ".png":
        Image.fromarray(labels).save(path)
    else:
        tifffile.imwrite(path, labels)
    return path


def save_labels(path, labels, names=None, **options):
    """An OME-Zarr label image."""
    axes = "zyx"[-labels.ndim :]
    write_image(path, labels, axes, **options)
    group = zarr.open_group(path)
    properties = [{"label-value": value, "class": name} for value, name in (names or {}).items()]
    ome = {**group.attrs["ome"], "image-label": {"properties": properties}}
    group.attrs["ome"] = ome
    return path


def as_text(evaluation):
    return json.dumps(evaluation.as_json())


def test_classes_of_two_pictures_by_hand(tmp_path):
    found = evaluate(save(tmp_path / "p.png", PREDICTED), save(tmp_path / "t.png", TRUTH))
    assert found.kind == "classes"
    assert found.class_names == ("background", "class 1", "class 2")
    assert found.overall.confusion == ((9, 1, 0), (1, 3, 0), (0, 1, 3))
    assert found.overall.pixel_error == pytest.approx(3 / 18)
    assert found.overall.classes["class 1"].iou == pytest.approx(3 / 6)
    assert found.overall.classes["class 2"].dice == pytest.approx(6 / 7)


def test_two_sides_with_one_foreground_value_each_are_compared(tmp_path):
    truth, predicted = (TRUTH > 0) * np.uint8(255), (PREDICTED > 0) * np.uint8(1)
    found = evaluate(save(tmp_path / "p.png", predicted), save(tmp_path / "t.tif", truth))
    assert found.class_names == ("background", "foreground")
    assert found.overall.pixel_error == pytest.approx(2 / 18)
    assert set(found.overall.headline()) == {"pixel_error", "iou foreground", "dice foreground"}


def test_pixels_that_nobody_annotated_do_not_count(tmp_path):
    truth = np.where(TRUTH != PREDICTED, IGNORED, TRUTH)
    paths = save(tmp_path / "p.png", PREDICTED), save(tmp_path / "t.png", truth)
    found = evaluate(*paths, options=EvaluateOptions(ignore=IGNORED))
    assert found.overall.pixel_error == 0
    assert np.sum(found.overall.confusion) == 15
    with_objects = EvaluateOptions(kind="instances", ignore=IGNORED)
    scores = evaluate(*paths, options=with_objects).overall.instances
    assert (scores.panoptic_quality, scores.true_objects) == (1, 2)
    # Also where the truth's objects are connected parts.
    binary = np.where(truth == 2, 1, truth)
    save(tmp_path / "t.png", binary)
    assert evaluate(*paths, options=with_objects).overall.instances.true_objects == 2


def test_objects_are_those_that_are_numbered(tmp_path):
    predicted = save(tmp_path / "p.png", PREDICTED)
    found = evaluate(predicted, save(tmp_path / "instances" / "t.png", TRUTH))
    assert found.kind == "instances"
    assert found.overall.instances == score_matches(match_objects(count_overlaps(TRUTH, PREDICTED)))
    assert found.overall.classes["object"].iou == pytest.approx(7 / 9)


def test_objects_of_classes_are_the_connected_parts_of_the_foreground(tmp_path):
    predicted = (PREDICTED > 0) * np.uint8(1)
    paths = save(tmp_path / "p.png", predicted), save(tmp_path / "t_instances.png", TRUTH)
    expected = score_matches(match_objects(count_overlaps(TRUTH, label_objects(predicted > 0))))
    assert expected.predicted_objects == 1
    assert str(evaluate(*paths).overall.instances) == str(expected)
    # A store that says that its values are classes holds no numbered objects.
    named = save_labels(tmp_path / "p.zarr", PREDICTED, {0: "ground", 1: "a", 2: "b"})
    assert str(evaluate(named, paths[1]).overall.instances) == str(expected)
    numbered = save_labels(tmp_path / "q.zarr", PREDICTED)
    assert evaluate(numbered, paths[1]).overall.instances.predicted_objects == 2


def test_boundaries_are_the_mean_of_the_sections(tmp_path):
    cells = [np.kron(part > 0, np.ones((3, 3))) > 0 for part in (TRUTH, PREDICTED)]
    for name, truth in (("a", cells[0]), ("b", cells[1])):
        save(tmp_path / "t" / f"{name}.png", truth * np.uint8(255))
        save(tmp_path / "p" / f"{name}.png", cells[1] * np.uint8(255))
    found = evaluate(tmp_path / "p", tmp_path / "t", options=EvaluateOptions(kind="boundaries"))
    assert found.pictures["a"].boundaries == score_boundaries(*cells)
    assert found.pictures["b"].boundaries.rand_error == 0
    assert found.overall.boundaries.rand_error == found.pictures["a"].boundaries.rand_error / 2
    assert found.overall.best_thresholds is None


def test_probabilities_are_cut_where_all_sections_together_are_best(tmp_path):
    truth = np.array([[1, 1, 1, 0, 1, 1, 1]] * 3, np.uint8)
    for name, membrane in (("a", 0.3), ("b", 0.5)):
        save(tmp_path / "t" / f"{name}.png", truth)
        probability = np.where(truth > 0, 0.8, membrane).astype(np.float32)
        save(tmp_path / "p" / f"{name}.tif", probability)
    options = EvaluateOptions(thresholds=(0.2, 0.4, 0.6, 0.9))
    found = evaluate(tmp_path / "p", tmp_path / "t", options=options)
    assert found.kind == "boundaries"
    assert found.overall.boundaries.rand_error == 0
    assert set(found.overall.best_thresholds.values()) == {0.6}
    assert found.pictures["a"].best_thresholds["rand_error"] == 0.4


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=8)
@given(
    block=st.integers(5, 12), kind=st.sampled_from(["classes", "instances"]), seed=st.integers(0)
)
def test_blocks_give_the_same_as_the_whole(tmp_path, monkeypatch, block, kind, seed):
    random = np.random.default_rng(seed)
    truth, predicted = random.integers(0, 5, (2, 2, 13, 17), np.uint16)
    paths = [
        save_labels(tmp_path / f"{name}.zarr", labels, chunks=(1, 8, 8))
        for name, labels in (("p", predicted), ("t", truth))
    ]
    options = EvaluateOptions(kind=kind, ignore=4)
    monkeypatch.setattr(label_sources, "BLOCK", 32)
    whole = evaluate(*paths, options=options)
    monkeypatch.setattr(label_sources, "BLOCK", block)
    found = evaluate(*paths, options=options)
    assert as_text(found) == as_text(whole)
    pixels = np.stack([truth, predicted])[:, truth != 4]
    counts = count_overlaps(*(pixels if kind == "classes" else pixels > 0))
    expected = counts.matrix(range(len(found.class_names)))
    np.testing.assert_array_equal(found.overall.confusion, expected)


def test_labels_in_an_image_are_found_by_name(tmp_path):
    image = write_image(tmp_path / "i.zarr", random_pixels((3, *TRUTH.shape), "uint8"))
    group = zarr.open_group(image).create_group("labels")
    for name, labels in (("mine", PREDICTED), ("true", TRUTH)):
        save_labels(image / "labels" / name, labels, {1: "a", 2: "b", 0: "ground"})
    group.attrs["ome"] = {"version": "0.5", "labels": ["mine", "true"]}
    truth = image / "labels" / "true"
    found = evaluate(image, truth, options=EvaluateOptions(labels="mine"))
    assert found.class_names == ("ground", "a", "b")
    assert found.overall.pixel_error == pytest.approx(3 / 18)
    with pytest.raises(
        InputError, match=r"has the labels mine, true; choose one with --labels, or"
    ):
        evaluate(image, truth)


@pytest.fixture
def pictures(tmp_path):
    """Two groups: x_1 and x_2 with 2 and 0 of 18 pixels wrong, y_1 with 1 of 2."""
    wrong = TRUTH.copy()
    wrong[0, :2] = 1
    for name, truth, predicted in (
        ("x_1", TRUTH, wrong), ("x_2", TRUTH, TRUTH), ("y_1", TRUTH[:1, :2], wrong[:1, 1:3]),
    ):  # fmt: skip
        save(tmp_path / "t" / f"{name}.png", truth)
        save(tmp_path / "p" / f"{name}.png", predicted)
    return tmp_path / "p", tmp_path / "t"


def test_pictures_groups_and_all(pictures):
    found = evaluate(*pictures, options=EvaluateOptions(by_group=True))
    assert {name: item.pixel_error for name, item in found.pictures.items()} == {
        "x_1": pytest.approx(2 / 18), "x_2": 0, "y_1": 0.5,
    }  # fmt: skip
    assert found.groups["x"].pixel_error == pytest.approx(2 / 36)
    assert found.overall.pixel_error == pytest.approx(3 / 38)
    assert found.picture_mean["pixel_error"] == pytest.approx((2 / 18 + 0.5) / 3)
    assert found.group_mean["pixel_error"] == pytest.approx((2 / 36 + 0.5) / 2)
    # Class 2 does not occur in y_1.
    assert math.isnan(found.pictures["y_1"].classes["class 2"].iou)
    assert found.picture_mean["iou class 2"] == 1
    plain = found.as_json()
    assert plain["by_picture"]["y_1"]["classes"]["class 2"] == {"iou": None, "dice": None}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_progress_is_reported_after_each_picture(pictures):
    reported = []
    evaluate(*pictures, report=lambda done, total: reported.append((done, total)))
    assert reported == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("where", ["picture", "store"])
def test_a_model_gives_the_labels_of_one_pass_over_the_whole(
    where, tmp_path, make_model, monkeypatch
):
    monkeypatch.setattr(label_sources, "LARGEST_TILE", 32)
    pixels = random_pixels((3, 45, 70), "uint8")
    model = make_model()
    expected = whole_pass(load_predictor(model, "uint8"), pixels, "labels")
    assert len(np.unique(expected)) == 3
    image = (
        save(tmp_path / "i.png", np.moveaxis(pixels, 0, -1))
        if where == "picture"
        else write_image(tmp_path / "i.zarr", pixels)
    )
    truth = save(tmp_path / "t.png", expected.astype(np.uint8))
    found = evaluate(image, truth, model=Segmentation(model, "float32"))
    assert found.class_names == ("background", "class 1", "class 2")
    assert found.overall.pixel_error == 0


def test_truth_may_have_the_colours_of_the_classes(tmp_path, make_model):
    model = make_model()
    pixels = random_pixels((3, 40, 40), "uint8")
    labels = whole_pass(load_predictor(model, "uint8"), pixels, "labels")
    image = save(tmp_path / "i.png", np.moveaxis(pixels, 0, -1))
    from tilesegment.model.file import read_description

    palette = np.array([item.colour for item in read_description(model).classes], np.uint8)
    colours = save(tmp_path / "t.png", palette[labels])
    found = evaluate(image, colours, model=Segmentation(model, "float32"))
    assert found.overall.pixel_error == 0


def test_picture_of_errors_shows_what_is_wrong(tmp_path):
    from tilesegment.usecases.error_picture import VERDICTS

    truth = np.where(TRUTH == 2, IGNORED, TRUTH)
    paths = save(tmp_path / "p.png", PREDICTED), save(tmp_path / "t.png", truth)
    for kind in ("classes", "instances"):
        options = EvaluateOptions(kind=kind, ignore=IGNORED)
        evaluate(*paths, options=options, picture=tmp_path / "e.png")
        shown = np.asarray(Image.open(tmp_path / "e.png"))[30:33, 2 * (6 + 4) :][:, :6]
        colours = {verdict.text.split()[0]: verdict.colour for verdict in VERDICTS}
        assert tuple(shown[1, 1]) == colours["right"]
        assert tuple(shown[2, 2]) == colours["missed"]
        assert tuple(shown[1, 3]) == colours["too"]
        assert tuple(shown[1, 4]) == colours["not"]
        assert tuple(shown[0, 0]) == colours["background"]


def test_large_pictures_are_thinned_for_the_picture_of_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(label_sources, "BLOCK", 7)
    from tilesegment.usecases import error_picture

    monkeypatch.setattr(error_picture, "_LARGEST", 10)
    labels = np.arange(23 * 31, dtype=np.int32).reshape(1, 23, 31)
    thinned = error_picture._thinned(label_sources.MemoryLabels("a", labels), 4)
    np.testing.assert_array_equal(thinned, labels[0, ::4, ::4])


def bad_input(folder):
    """Names and makers of input that cannot be used."""
    good = save(folder / "good.png", TRUTH)
    (folder / "empty").mkdir()
    (folder / "cut.png").write_bytes(good.read_bytes()[:40])
    save(folder / "one" / "a.png", TRUTH)
    save(folder / "other" / "b.png", TRUTH)
    save(folder / "small.png", TRUTH[:2])
    save(folder / "float.tif", np.full(TRUTH.shape, 0.5, np.float32))
    save(folder / "values.png", TRUTH * 10)
    save(folder / "many.tif", np.arange(18, dtype=np.uint16).reshape(3, 6) * 100)
    save(folder / "more.tif", np.arange(80, dtype=np.uint16).reshape(2, 40))
    save(folder / "alpha.png", np.dstack([TRUTH, TRUTH, TRUTH + 1, TRUTH]))
    write_image(folder / "image.zarr", random_pixels((3, 3, 6), "uint8"))


@pytest.mark.parametrize(
    ("predicted", "truth", "options", "message"),
    [
        ("nowhere.png", "good.png", {}, "there is nothing at .*nowhere.png"),
        ("one", "other", {}, "one/a.png has no partner of the same name in .*other"),
        ("one", "good.png", {}, "one is a folder of pictures and .*good.png is not"),
        ("empty", "one", {}, "empty holds no pictures"),
        ("small.png", "good.png", {}, r"has 2 x 6 pixels \(y, x\), .*good.png has 3 x 6"),
        ("cut.png", "good.png", {}, "cannot read .*cut.png.* is the file whole"),
        ("float.tif", "good.png", {}, "are no whole numbers"),
        ("values.png", "good.png", {}, "holds the values 0, 10, 20, the truth 0, 1, 2"),
        ("good.png", "good.png", {"names": ("a", "b")}, r"classes are 0 \(a\), 1 \(b\)"),
        ("more.tif", "more.tif", {}, "80 different values; .*--kind instances"),
        ("alpha.png", "good.png", {}, "holds the values 1, #010102, #020203, the truth"),
        ("image.zarr", "good.png", {}, "image.zarr has no labels"),
        ("good.png", "good.png", {"kind": "boundaries"}, "2 values besides 0"),
        ("float.tif", "good.png", {"thresholds": (0.5,)}, "good.png holds 2 values besides 0"),
        ("many.tif", "good.png", {"thresholds": (2.0,)}, "at least 0 and below 1"),
        ("alpha.png", "good.png", {"thresholds": (0.5,)}, "transparent|3 channel"),
        ("good.png", "good.png", {"kind": "classes", "thresholds": (0.5,)}, "leave them out"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(predicted, truth, options, message, tmp_path):
    bad_input(tmp_path)
    with pytest.raises((InputError, OptionError), match=message) as error:
        evaluate(tmp_path / predicted, tmp_path / truth, options=EvaluateOptions(**options))
    assert "\n" not in str(error.value)


def test_pictures_that_are_too_large_for_what_is_asked_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "LARGEST_WITH_OBJECTS", 16)
    monkeypatch.setattr(comparison, "LARGEST_WITH_BOUNDARIES", 16)
    binary = save(tmp_path / "p.png", (PREDICTED > 0) * np.uint8(1))
    truth = save(tmp_path / "t.png", TRUTH)
    for kind in ("instances", "boundaries"):
        with pytest.raises(InputError, match="3 x 6 pixels, more than 4 x 4; cut out a part"):
            evaluate(binary, truth, options=EvaluateOptions(kind=kind))
    numbered = EvaluateOptions(kind="instances")
    assert evaluate(truth, truth, options=numbered).overall.instances.panoptic_quality == 1


def test_model_and_picture_must_fit(tmp_path, make_model):
    grey = save(tmp_path / "grey.png", TRUTH)
    with pytest.raises(ModelError, match=r"takes 3 channel\(s\), .*grey.png has 1"):
        evaluate(grey, grey, model=Segmentation(make_model()))
    with pytest.raises(OptionError, match="NAME.png"):
        evaluate(grey, grey, picture=Path("errors.gif"))


def test_without_a_gpu_there_is_one_line(tmp_path, make_model, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    picture = save(tmp_path / "i.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(OptionError, match="no GPU for --device cuda; use --device cpu"):
        evaluate(picture, picture, model=Segmentation(make_model(), device="cuda"))
