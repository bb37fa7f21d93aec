"""Files that appear whole or not at all."""

from pathlib import Path

import pytest

from tilesegment.errors import OutputError
from tilesegment.storage.exporting.destination import check_free, published


def test_a_file_appears_when_it_is_whole_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "o.tif"
    with published(out) as path:
        path.write_text("whole")
        path.with_name("left beside").touch()
        assert not out.exists()
    assert out.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_is_stopped_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    out = tmp_path / "o.tif"
    out.write_text("old")

    def stop() -> None:
        with published(out) as path:
            path.write_text("half")
            raise error

    with pytest.raises(error):
        stop()
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_link_to_nowhere_counts_as_there(tmp_path: Path) -> None:
    (tmp_path / "o.tif").symlink_to(tmp_path / "gone")
    with pytest.raises(OutputError, match="exists already"):
        check_free(tmp_path / "o.tif", overwrite=False)
    check_free(tmp_path / "o.tif", overwrite=True)
