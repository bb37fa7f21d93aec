"""Normalisation by the whole image, block by block."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures import random_pixels
from tilesegment.model.preprocessing import (
    Clip,
    DivideByLargest,
    Scale,
    ScaleRange,
    Standardise,
    Step,
    measure_scales,
    measured,
    prepare,
)

STEPS: list[tuple[Step, ...]] = [
    (Standardise(),),
    (Standardise(per_channel=False),),
    (ScaleRange(0, 100),),
    (DivideByLargest(), ScaleRange(1, 99.8, per_channel=False), Clip(0, 1), Standardise()),
]


def blocks(pixels: npt.NDArray[Any], side: int) -> Callable[..., Iterator[Any]]:
    def collect(summarise: Callable[[npt.NDArray[Any]], Any]) -> Iterator[Any]:
        for y in range(0, pixels.shape[1], side):
            for x in range(0, pixels.shape[2], side):
                yield summarise(pixels[:, y : y + side, x : x + side])

    return collect


def by_hand(pixels: npt.NDArray[Any], steps: Sequence[Step]) -> npt.NDArray[np.float64]:
    """The definition, on the whole image at once and in float64."""
    values = pixels.astype(np.float64)
    for step in steps:
        if isinstance(step, (Standardise, ScaleRange)):
            axes = (1, 2) if step.per_channel else (0, 1, 2)
        if isinstance(step, Standardise):
            spread = values.std(axes, keepdims=True) + 1e-6
            values = (values - values.mean(axes, keepdims=True)) / spread
        elif isinstance(step, ScaleRange):
            low, high = np.percentile(values, [step.low, step.high], axes, keepdims=True)
            values = (values - low) / (high - low + 1e-6)
        elif isinstance(step, Clip):
            values = values.clip(step.low, step.high)
        elif pixels.dtype.kind == "u":
            values = values / np.iinfo(pixels.dtype).max
    return values


@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@settings(max_examples=6)
@given(side=st.integers(3, 60))
def test_any_blocks_give_the_numbers_of_the_whole_image(
    steps: tuple[Step, ...], dtype: str, side: int
) -> None:
    pixels = random_pixels((2, 41, 53), dtype)
    found = measured(steps, measure_scales(steps, blocks(pixels, side)))
    assert found == measured(steps, measure_scales(steps, blocks(pixels, 60)))
    np.testing.assert_allclose(prepare(pixels, found), by_hand(pixels, steps), atol=2e-5)


def test_what_was_not_measured_is_never_taken_from_a_tile() -> None:
    with pytest.raises(ValueError, match="not measured"):
        prepare(random_pixels((1, 8, 8), "uint8"), [Standardise()])


def test_scales_are_per_channel() -> None:
    pixels = random_pixels((2, 5, 7), "float32")
    found = prepare(pixels, [Scale((0.5, 0.25), (2.0,))])
    np.testing.assert_array_equal(found[0], (pixels[0] - np.float32(0.5)) / 2)
    np.testing.assert_array_equal(found[1], (pixels[1] - np.float32(0.25)) / 2)
