"""The command line in this process: imports are paid for once."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tilesegment_cli.main import main


@pytest.fixture
def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """What the program's entry point does with the given words."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["tilesegment", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return subprocess.CompletedProcess(sys.argv, code, *capsys.readouterr())

    return run
