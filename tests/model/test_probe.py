"""Border, alignment and locality of networks of which they are known."""

import pytest

from tests.model.networks import CHANNELS, ZOO, Known, build
from tilesegment.errors import ModelError
from tilesegment.model.probe import measure

LOCAL = [name for name, known in ZOO.items() if not known.reason]
NOT_LOCAL = [name for name, known in ZOO.items() if known.reason]


@pytest.mark.parametrize("name", LOCAL)
def test_border_and_alignment_are_exact(name: str) -> None:
    known, measured = ZOO[name], measure(build(name), CHANNELS)
    found = Known(known.build, measured.border.largest, measured.legal_step, measured.loss.y, "")
    assert (measured.local, measured.reasons, measured.proved) == (True, (), True)
    assert found == known
    assert measured.difference < 1e-5


@pytest.mark.parametrize("name", NOT_LOCAL)
def test_what_breaks_locality_is_named(name: str) -> None:
    measured = measure(build(name), CHANNELS)
    assert not measured.local
    assert measured.border is None
    assert any(ZOO[name].reason in reason for reason in measured.reasons)
    with pytest.raises(ModelError, match="no finite border"):
        _ = measured.geometry
