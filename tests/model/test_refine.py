"""Smoothing and the CRF against their definitions, and on any part of a picture."""

from math import exp

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tilesegment.model.refine import choose, infer, inner, refine, smooth
from tilesegment.refinement import CRF, Refinement, Smoothing

FLOATS = npt.NDArray[np.float64]


def picture(
    classes: int, shape: tuple[int, int], seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random probabilities and colours."""
    torch.manual_seed(seed)
    return torch.softmax(3 * torch.randn(classes, *shape), 0), torch.rand(2, *shape)


def test_smoothing_is_scipys_truncated_gaussian() -> None:
    values, _ = picture(3, (60, 50))
    ours = smooth(values, Smoothing(1.5)).numpy()
    theirs = [ndimage.gaussian_filter(item, 1.5, truncate=5 / 1.5) for item in values.numpy()]
    np.testing.assert_allclose(ours, np.stack(theirs)[:, 5:-5, 5:-5], atol=1e-6)


def mean_field(given_: FLOATS, colours: FLOATS, crf: CRF) -> FLOATS:
    """The definition, pixel by pixel; (classes, y, x) to the part that it is known for."""
    now, radius = given_.copy(), crf.radius
    height, width = given_.shape[-2:]
    for iteration in range(1, crf.iterations + 1):
        reached, after = iteration * radius, now.copy()
        for y in range(reached, height - reached):
            for x in range(reached, width - reached):
                alike, near = np.zeros(len(now)), np.zeros(len(now))
                sum_alike = sum_near = 0.0
                for dy in range(-radius, radius + 1):
                    for dx in range(-radius, radius + 1):
                        if (dy, dx) == (0, 0):
                            continue
                        other = now[:, y + dy, x + dx]
                        square = np.mean((colours[:, y, x] - colours[:, y + dy, x + dx]) ** 2)
                        weight = exp(-square / (2 * crf.contrast**2)) + 1e-6
                        close = exp(-(dy**2 + dx**2) / (2 * crf.deviation**2))
                        alike, near = alike + weight * other, near + close * other
                        sum_alike, sum_near = sum_alike + weight, sum_near + close
                message = crf.appearance * alike / sum_alike + crf.smoothness * near / sum_near
                weights = given_[:, y, x] * np.exp(message - message.max())
                after[:, y, x] = weights / weights.sum()
        now = after
    border = crf.border
    return now[:, border : height - border, border : width - border]


@pytest.mark.parametrize("classes", [2, 4])
def test_the_crf_is_its_definition(classes: int) -> None:
    probabilities, colours = picture(classes, (20, 17))
    crf = CRF(0.3, radius=2, iterations=3, appearance=2.5, smoothness=0.7, deviation=1.3)
    found = infer(probabilities, colours, crf).numpy()
    expected = mean_field(probabilities.double().numpy(), colours.double().numpy(), crf)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_labels_follow_an_edge_of_the_picture() -> None:
    """A vague boundary, two pixels beside an edge of colour, moves onto the edge."""
    x = np.arange(60)
    foreground = torch.from_numpy(1 / (1 + np.exp(-(x - 32) / 3.0))).float().expand(60, 60)
    colours = torch.from_numpy((x >= 30) * 0.8).float().expand(1, 60, 60)
    labels = infer(torch.stack([1 - foreground, foreground]), colours, CRF(0.05)).argmax(0)
    expected = (x >= 30)[15:-15]
    np.testing.assert_array_equal(labels.numpy(), np.broadcast_to(expected, labels.shape))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_part_of_a_picture_gets_the_same_bits(data: st.DataObject) -> None:
    """Also across the bands of rows that the CRF works in, with one thread and two."""
    refinement = Refinement(
        data.draw(st.sampled_from([None, Smoothing(0.4), Smoothing(1.1)])),
        data.draw(st.sampled_from([None, CRF(0.05), CRF(0.2, radius=2, iterations=3)])),
    )
    border = refinement.border
    shape = tuple(data.draw(st.integers(1, 110)) + 2 * border for _ in "yx")
    probabilities, colours = picture(data.draw(st.sampled_from([2, 3])), shape)
    whole = refine(probabilities, colours, refinement)
    y, x = (data.draw(st.integers(0, size - 2 * border - 1)) for size in shape)
    height, width = (
        data.draw(st.integers(1, size - 2 * border - start))
        for size, start in zip(shape, (y, x), strict=True)
    )
    cut = (..., slice(y, y + height + 2 * border), slice(x, x + width + 2 * border))
    threads = torch.get_num_threads()
    torch.set_num_threads(data.draw(st.integers(1, 2)))
    part = refine(probabilities[cut].contiguous(), colours[cut].contiguous(), refinement)
    torch.set_num_threads(threads)
    assert torch.equal(part, whole[:, y : y + height, x : x + width])


def test_the_border_is_no_larger_than_it_must_be() -> None:
    """Every pixel that the border holds can change the middle."""
    crf = CRF(0.3, radius=2, iterations=3)
    probabilities, colours = picture(2, (13, 13))
    middle = infer(probabilities, colours, crf)
    for corner in ((0, 0), (0, 12), (12, 6)):
        probabilities_, colours_ = probabilities.clone(), colours.clone()
        probabilities_[(slice(None), *corner)] = torch.tensor([1.0, 0.0])
        colours_[(slice(None), *corner)] = colours[:, 6, 6]
        other = infer(probabilities_, colours_, crf)
        assert not torch.equal(middle, other)


def test_thresholds_decide() -> None:
    """Columns: pixels; rows: background, a, b."""
    probabilities = torch.tensor(
        [
            [0.50, 0.40, 0.05, 0.30, 0.60],
            [0.45, 0.35, 0.45, 0.25, 0.30],
            [0.05, 0.25, 0.50, 0.45, 0.1],
        ]
    )[:, None]
    assert choose(probabilities, []).tolist() == [[0, 0, 2, 2, 0]]
    assert choose(probabilities, [(1, 0.3)]).tolist() == [[1, 1, 1, 2, 1]]
    assert choose(probabilities, [(1, 0.9)]).tolist() == [[0, 0, 2, 2, 0]]
    assert choose(probabilities, [(1, 0.3), (2, 0.5)]).tolist() == [[1, 1, 2, 0, 1]]
    everything = [(0, 0.9), (1, 0.9), (2, 0.9)]
    assert choose(probabilities, everything).tolist() == [[0, 0, 0, 0, 0]]


def test_inner_of_nothing_is_all() -> None:
    values = torch.rand(2, 3, 4)
    assert torch.equal(inner(values, 0), values)
