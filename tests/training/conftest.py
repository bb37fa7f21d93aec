"""Small data sets of bright discs on a dark, noisy ground."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny networks are slower on many threads, and much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw_discs(seed, size=48, discs=5, radius=6):
    """A grey picture (y, x) uint8 and its numbered discs (y, x) uint16."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    instances = np.zeros((size, size), np.uint16)
    for number in range(1, discs + 1):
        y, x = random.integers(0, size, 2)
        instances[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = number
    grey = 60 + 120 * (instances > 0) + random.normal(0, 10, (size, size))
    return grey.clip(0, 255).astype(np.uint8), instances


def write_pair(folder, name, image, label, labels="instances"):
    for kind, pixels in (("images", image), (labels, label)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / f"{name}.png")


@pytest.fixture(scope="session")
def discs(tmp_path_factory) -> Path:
    """Six pictures of two groups, with instance labels."""
    folder = tmp_path_factory.mktemp("discs")
    for seed in range(6):
        group = "even" if seed % 2 == 0 else "odd"
        write_pair(folder, f"{group}_{seed}", *draw_discs(seed))
    return folder
