"""Files that the import is tried on."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def slide() -> Path:
    """A real slide, which the project ships."""
    return ROOT / "examples/data/CMU-1-Small-Region.svs"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data that the project does not ship."""
    folder = ROOT / "../shared/data"
    if not folder.is_dir():
        pytest.skip("the shared data are not on this machine")
    return folder
