from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesegment.errors import InputError, OptionError
from tilesegment.geometry import YX, unet_geometry
from tilesegment.tiling import Window
from tilesegment.training.augment import NO_AUGMENTATION, Augmentation, Placement
from tilesegment.training.dataset import (
    LabelRule,
    MemoryPicture,
    draw_tile,
    load_folder,
    measure,
    picture_shares,
    sample,
    split_by_pattern,
    split_pictures,
)
from tilesegment.training.loss import IGNORED
from tilesegment.training.pictures import group_of
from tilesegment.training.weight_map import BorderWeight

from .conftest import draw_discs, write_pair

GEOMETRY = unet_geometry(depth=2)
RANDOM_IMAGE = np.random.default_rng(5).integers(0, 256, (2, 61, 67), np.uint8)


def picture(image, classes=None, name="a", objects=()):
    classes = np.zeros(image.shape[1:], np.uint8) if classes is None else classes
    border = np.zeros(image.shape[1:], np.float32)
    return MemoryPicture(name, image, classes, border, 0, np.array(objects).reshape(-1, 2))


def pictures(*names):
    return [picture(RANDOM_IMAGE[:, :4, :4], name=name) for name in names]


@given(st.integers(-150, 100), st.integers(-150, 100), st.integers(1, 90), st.integers(1, 90))
def test_beyond_the_rim_pictures_are_mirrored_as_numpy_reflect(y, x, height, width):
    whole = np.pad(RANDOM_IMAGE, ((0, 0), (200, 200), (200, 200)), mode="reflect")
    expected = whole[:, y + 200 : y + 200 + height, x + 200 : x + 200 + width]
    patch = picture(RANDOM_IMAGE).read(Window(y, x, height, width))
    np.testing.assert_allclose(patch.image * 255, expected, atol=1e-4)


# The network with unpadded convolutions "can be applied ... by an overlap-tile strategy": it
# sees the real context of the tile, which only beyond the picture's rim is mirrored (figure 2).
def test_plain_tile_is_a_piece_of_the_picture_with_its_real_context():
    tile = draw_tile(
        picture(RANDOM_IMAGE), 16, GEOMETRY, NO_AUGMENTATION, 1, np.random.default_rng(1)
    )
    size = GEOMETRY.input_size(16)
    padded = np.pad(RANDOM_IMAGE, ((0, 0), (50, 50), (50, 50)), mode="reflect") / 255
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    assert tile.image.shape == (2, size, size)
    assert np.abs(windows - tile.image[:, None, None]).max(axis=(0, 3, 4)).min() < 1e-6


def test_sampling_at_whole_pixels_copies_image_and_classes():
    classes = (RANDOM_IMAGE[0] > 127).astype(np.uint8)
    placement = Placement(np.eye(2), np.zeros((2, 3, 3)))
    size = GEOMETRY.input_size(8)
    positions = placement.positions(YX(30 + (size % 2 == 0) / 2, 30 + (size % 2 == 0) / 2), size)
    tile = sample(picture(RANDOM_IMAGE, classes), positions, GEOMETRY.halo, 1)
    low = round(float(positions.min()))
    expected = RANDOM_IMAGE[:, low : low + size, low : low + size] / 255
    np.testing.assert_allclose(tile.image, expected, atol=1e-6)
    inner = slice(low + GEOMETRY.halo, low + GEOMETRY.halo + 8)
    np.testing.assert_array_equal(tile.classes, classes[inner, inner])


def test_labels_move_with_the_deformed_picture():
    _, instances = draw_discs(3, size=160, discs=12, radius=14)
    classes = (instances > 0).astype(np.uint8)
    shown = picture((255 * classes)[None], classes)
    geometry_only = replace(
        Augmentation(), brightness=0, contrast=0, gamma=0, noise=0, blur=0, smallest_zoom=0.4
    )
    for seed in range(5):
        tile = draw_tile(shown, 64, GEOMETRY, geometry_only, 1, np.random.default_rng(seed))
        halo = GEOMETRY.halo
        inner = tile.image[0, halo:-halo, halo:-halo]
        assert ((inner > 0.5) == tile.classes).mean() > 0.97
        assert set(np.unique(tile.classes)) <= {0, 1}


def test_reduced_pictures_are_averaged_against_aliasing():
    checkers = (255 * (np.indices((80, 80)).sum(axis=0) % 2)).astype(np.uint8)
    half = replace(NO_AUGMENTATION, smallest_zoom=0.5, largest_zoom=0.5)
    tile = draw_tile(picture(checkers[None]), 8, GEOMETRY, half, 1, np.random.default_rng(0))
    np.testing.assert_allclose(tile.image, 0.5, atol=0.01)


def test_tiles_are_drawn_near_objects():
    lonely = np.zeros((400, 400), np.uint8)
    lonely[300, 50] = 1
    shown = picture(lonely[None], lonely, objects=[(300, 50)])
    always = replace(NO_AUGMENTATION, foreground=1)
    drawn = [
        draw_tile(shown, 32, GEOMETRY, always, 1, np.random.default_rng(seed)).classes.sum()
        for seed in range(20)
    ]
    assert all(drawn)


def test_same_generator_draws_the_same_tile(discs):
    shown = load_folder(discs, LabelRule(), BorderWeight()).pictures[0]
    one, two = (
        draw_tile(shown, 16, GEOMETRY, Augmentation(), 1, np.random.default_rng(7))
        for _ in range(2)
    )
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.border, two.border)


def test_touching_instances_are_separated_and_weighted(discs):
    data = load_folder(discs, LabelRule(), BorderWeight(w0=3))
    assert data.names == ("background", "object")
    assert (data.channels, data.integers) == (1, True)
    assert max(item.border.max() for item in data.pictures) > 1
    assert data.pictures[0].object_size == pytest.approx(11, abs=3)


def test_values_of_classes_are_numbered_in_rising_order(tmp_path):
    label = np.array([[0, 255], [7, 255]], np.uint8)
    write_pair(tmp_path, "a", label, label, labels="labels")
    data = load_folder(tmp_path, LabelRule(ignore=7), BorderWeight())
    assert data.names == ("background", "class 255")
    np.testing.assert_array_equal(data.pictures[0].classes, [[0, 1], [IGNORED, 1]])


@pytest.mark.parametrize(
    ("label", "rule", "message"),
    [
        ([[0, 0]], LabelRule(), "nothing is annotated"),
        ([[0, 0]], LabelRule("instances"), "only background"),
        ([[9, 9]], LabelRule(ignore=9), "nothing is annotated"),
        ([[0, 1, 2]], LabelRule(names=("ground", "cell")), "3 classes .* but 2 are named"),
        ([[0, 2]], LabelRule(names=("ground", "cell", "rim")), "'cell' has no pixels"),
        ([[0, 90]], LabelRule(names=("ground", "cell", "rim")), "fewer than the 3 named"),
        ([list(range(70))], LabelRule(), "70 different values; .* --labels instances"),
    ],
)
def test_labels_that_cannot_be_learnt_from_are_refused(tmp_path, label, rule, message):
    pixels = np.array(label, np.uint8)
    write_pair(tmp_path, "a", pixels, pixels, labels="labels")
    with pytest.raises(InputError, match=message):
        load_folder(tmp_path, rule, BorderWeight())


def test_labels_of_another_size_are_refused(tmp_path):
    write_pair(tmp_path, "a", np.zeros((4, 6), np.uint8), np.ones((6, 4), np.uint8))
    with pytest.raises(InputError, match=r"4 x 6 pixels .* 6 x 4; they must be equal"):
        load_folder(tmp_path, LabelRule(), BorderWeight())


def test_pictures_of_two_kinds_are_refused(tmp_path):
    label = np.eye(4, dtype=np.uint8)
    write_pair(tmp_path, "a", np.zeros((4, 4), np.uint8), label)
    write_pair(tmp_path, "b", np.zeros((4, 4, 3), np.uint8), label)
    with pytest.raises(InputError, match=r"b.png has 3 channel\(s\)"):
        load_folder(tmp_path, LabelRule(), BorderWeight())


def test_split_takes_a_share_of_every_group_and_follows_the_seed():
    names = [f"{group}_{index}" for group in "xy" for index in range(10)] + ["z_0"]
    split = split_pictures(pictures(*names), 0.2, group_of, seed=4)
    kept = [item.name for item in split.validation]
    assert sorted(group_of(name) for name in kept) == ["x", "x", "y", "y"]
    assert {item.name for item in split.training} == set(names) - set(kept)
    again = split_pictures(pictures(*names), 0.2, group_of, seed=4)
    assert [item.name for item in again.validation] == kept
    others = [split_pictures(pictures(*names), 0.2, group_of, seed=s) for s in range(5)]
    assert len({tuple(item.name for item in other.validation) for other in others}) > 1


def test_split_by_pattern_keeps_what_matches():
    split = split_by_pattern(pictures("19", "20", "24"), "2[0-4]")
    assert [item.name for item in split.validation] == ["20", "24"]


@pytest.mark.parametrize("pattern", ["nothing*", "*"])
def test_split_without_one_side_is_refused(pattern):
    with pytest.raises(OptionError, match="at least one"):
        split_by_pattern(pictures("1", "2"), pattern)


def test_one_picture_cannot_be_split():
    with pytest.raises(OptionError, match="takes 1 of 1"):
        split_pictures(pictures("1"), 0.15, group_of, seed=0)


def test_groups_are_drawn_equally_often_times_their_emphasis():
    shares = picture_shares(pictures("x_1", "x_2", "x_3", "y_1"), group_of, {"y": 3})
    np.testing.assert_allclose(shares, [1 / 12, 1 / 12, 1 / 12, 3 / 4])


def test_statistics_are_those_of_all_pixels_whatever_the_block():
    classes = np.zeros((61, 67), np.uint8)
    classes[:5] = 1
    classes[5] = IGNORED
    whole = measure([picture(RANDOM_IMAGE, classes)], ("a", "b"))
    blocks = measure([picture(RANDOM_IMAGE, classes)], ("a", "b"), block=13)
    np.testing.assert_allclose(whole.mean, RANDOM_IMAGE.mean(axis=(1, 2)) / 255, rtol=1e-5)
    np.testing.assert_allclose(whole.deviation, RANDOM_IMAGE.std(axis=(1, 2)) / 255, rtol=1e-4)
    np.testing.assert_allclose(blocks.mean, whole.mean, rtol=1e-5)
    assert whole.class_pixels.tolist() == blocks.class_pixels.tolist() == [55 * 67, 5 * 67]


def test_class_that_only_validation_has_is_refused():
    with pytest.raises(InputError, match="'b' has no pixels in the pictures for training"):
        measure(pictures("x"), ("a", "b"))
