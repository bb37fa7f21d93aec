"""What was measured once."""

from pathlib import Path

import pytest

from tilesegment.cache import Measurement


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tilesegment"


def test_a_measurement_is_found_again_by_what_decides_it() -> None:
    Measurement("speed", {"a": 1, "b": 2}).remember({"seconds": 3.5})
    assert Measurement("speed", {"b": 2, "a": 1}).remembered() == {"seconds": 3.5}
    assert Measurement("speed", {"a": 1, "b": 3}).remembered() is None
    assert Measurement("other", {"a": 1, "b": 2}).remembered() is None


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_damaged_file_is_as_good_as_none(cache: Path, content: str) -> None:
    measurement = Measurement("speed", 1)
    measurement.remember({"seconds": 1})
    (kept,) = (cache / "speed").iterdir()
    kept.write_text(content)
    assert measurement.remembered() is None


def test_where_nothing_can_be_kept_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    Measurement("speed", 1).remember({"seconds": 1})
    assert Measurement("speed", 1).remembered() is None
