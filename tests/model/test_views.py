"""Every view shows all pixels, and can be undone."""

import pytest
import torch

from tilesegment.model.views import VIEWS, View


def test_the_first_view_is_the_image_itself() -> None:
    image = torch.arange(6).reshape(1, 1, 2, 3)
    assert VIEWS[0].apply(image) is image


@pytest.mark.parametrize("view", VIEWS)
def test_undo_gives_back_the_image(view: View) -> None:
    image = torch.arange(30).reshape(1, 2, 3, 5)
    assert torch.equal(view.undo(view.apply(image)), image)


def test_all_views_differ() -> None:
    image = torch.arange(4).reshape(1, 1, 2, 2)
    seen = {tuple(view.apply(image).flatten().tolist()) for view in VIEWS}
    assert len(seen) == len(VIEWS) == 8
