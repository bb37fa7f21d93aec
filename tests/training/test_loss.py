import numpy as np
import pytest
import torch

from tilesegment.training.loss import IGNORED, weighted_cross_entropy


def test_energy_is_the_weighted_negative_log_softmax():
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 5, 7, generator=random)
    classes = torch.randint(0, 3, (2, 5, 7), generator=random)
    border = torch.rand(2, 5, 7, generator=random)
    per_class = torch.tensor([0.5, 2.0, 3.0])
    expected = []
    for n, y, x in np.ndindex(2, 5, 7):
        scores = logits[n, :, y, x].double().numpy()
        winner = int(classes[n, y, x])
        p = np.exp(scores[winner]) / np.exp(scores).sum()
        expected.append(-(float(per_class[winner]) + float(border[n, y, x])) * np.log(p))
    energy = weighted_cross_entropy(logits, classes, border, per_class)
    assert float(energy) == pytest.approx(np.mean(expected), rel=1e-5)


def test_unannotated_pixels_teach_nothing():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    classes = torch.zeros(1, 4, 4, dtype=torch.int64)
    classes[0, :2] = IGNORED
    weighted_cross_entropy(logits, classes, torch.ones(1, 4, 4), torch.ones(2)).backward()
    assert not logits.grad[0, :, :2].any()
    assert logits.grad[0, :, 2:].all()


def test_tile_without_annotation_gives_zero_and_no_gradient():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    classes = torch.full((1, 4, 4), IGNORED)
    loss = weighted_cross_entropy(logits, classes, torch.ones(1, 4, 4), torch.ones(2))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()
