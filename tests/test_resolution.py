"""Which level the network is shown."""

import pytest

from tilesegment.errors import OptionError
from tilesegment.geometry import Spacing
from tilesegment.resolution import choose_resolution

PYRAMID = [Spacing(0.25 * 2**level, 0.25 * 2**level) for level in range(4)]


@pytest.mark.parametrize(
    ("trained_at", "level"), [(0.25, 0), (0.5, 1), (0.46, 1), (0.55, 1), (0.91, 2), (2.2, 3)]
)
def test_a_level_within_ten_percent_is_taken_as_it_is(trained_at: float, level: int) -> None:
    resolution = choose_resolution(PYRAMID, trained_at, None, None)
    assert (resolution.level, resolution.step) == (level, None)
    assert f"trained at {trained_at:g} um" in resolution.reason
    assert not resolution.doubtful


@pytest.mark.parametrize(
    ("trained_at", "level", "step"),
    [(0.125, 0, 0.5), (0.35, 0, 1.4), (0.45, 0, 1.8), (0.6, 1, 1.2), (1.5, 2, 1.5), (16.0, 3, 8.0)],
)
def test_otherwise_the_next_finer_level_is_resampled(
    trained_at: float, level: int, step: float
) -> None:
    """Pixels can be merged, but what a coarser level has lost cannot be brought back."""
    resolution = choose_resolution(PYRAMID, trained_at, None, None)
    assert resolution.level == level
    assert resolution.step == pytest.approx((step, step))


def test_axes_of_different_size_are_resampled_each_by_its_own() -> None:
    resolution = choose_resolution([Spacing(0.5, 0.25), Spacing(1.0, 0.5)], 0.5, None, None)
    assert (resolution.level, resolution.step) == (0, Spacing(1.0, 2.0))


def test_pixel_size_stands_for_the_models() -> None:
    assert choose_resolution(PYRAMID, 0.25, None, 1.0).level == 2
    assert choose_resolution(PYRAMID, None, None, 0.5).level == 1


def test_level_is_taken_as_it_is_and_a_misfit_is_told() -> None:
    resolution = choose_resolution(PYRAMID, 0.25, 2, None)
    assert (resolution.level, resolution.step, resolution.doubtful) == (2, None, True)
    assert "its pixels are 1 um, but the model was trained at 0.25 um" in resolution.reason
    assert not choose_resolution(PYRAMID, 1.0, 2, None).doubtful
    assert not choose_resolution([], 1.0, 2, None).doubtful


def test_without_pixel_sizes_level_0_is_taken_and_told() -> None:
    of_image = choose_resolution([], 0.25, None, None)
    assert (of_image.level, of_image.step, of_image.doubtful) == (0, None, True)
    assert "the image states no pixel size, so scales cannot be compared" in of_image.reason
    of_model = choose_resolution(PYRAMID, None, None, None)
    assert (of_model.level, of_model.step) == (0, None)
    assert "the model states no pixel size, so scales cannot be compared" in of_model.reason


@pytest.mark.parametrize(
    ("sizes", "trained_at", "level", "wanted", "message"),
    [
        (PYRAMID, 0.25, 1, 0.5, "--level and --pixel-size exclude each other"),
        (PYRAMID, 0.25, None, -1.0, "--pixel-size -1 is not positive"),
        (PYRAMID, 0.25, None, float("nan"), "--pixel-size nan is not positive"),
        ([], 0.25, None, 0.5, "the image states no pixel size; choose a level with --level"),
        (PYRAMID, 17.0, None, None, "level 3 of the image has 2 um per pixel: .* 8 times at most"),
        ([Spacing(1e7, 1e7)], 0.25, None, None, r"trained at 0.25 um, but .* has 1e\+07 um"),
    ],
)
def test_what_cannot_be_met_is_refused(
    sizes: list[Spacing], trained_at: float, level: int | None, wanted: float | None, message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        choose_resolution(sizes, trained_at, level, wanted)
    assert "\n" not in str(caught.value)
