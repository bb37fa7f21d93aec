"""The layers of docs/architecture.md, and what importing may cost."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "dask", "distributed", "zarr"}


def lint(config: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    command = [program, "--config", config, "--no-cache"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_imports_point_downwards_only() -> None:
    result = lint(ROOT / "pyproject.toml")
    assert result.returncode == 0, result.stdout


def test_the_linter_sees_a_planted_fault(tmp_path: Path) -> None:
    """With two layers swapped the same imports must fail."""
    text = (ROOT / "pyproject.toml").read_text()
    swapped = text.replace(
        '"tilesegment.planning",\n    "tilesegment.blending |',
        '"tilesegment.blending",\n    "tilesegment.planning |',
    )
    assert swapped != text
    (tmp_path / "pyproject.toml").write_text(swapped)
    assert lint(tmp_path / "pyproject.toml").returncode != 0


@pytest.mark.parametrize("module", ["tilesegment", "tilesegment_cli.main"])
def test_importing_is_cheap(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert HEAVY.isdisjoint(result.stdout.split())
