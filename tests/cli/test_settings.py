"""Settings on the command line: what is typed, then the environment, the file, the default."""

import os
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tilesegment.config import ClusterOptions
from tilesegment.errors import OptionError
from tilesegment_cli.main import main, tilesegment

TEXT = """
[run]
tile = 64
cluster = "desk"
pixel-size = 2

[clusters.desk]
kind = "cpu"
workers = 3
memory_limit = "2GB"
"""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, object]]:
    """What `tilesegment run` is called with, for words and variables, in a folder with settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "tilesegment.toml").write_text(TEXT)

    def run(*words: str, **variables: str) -> dict[str, object]:
        called: dict[str, object] = {}
        monkeypatch.setattr(
            "tilesegment.usecases.segment.segment",
            lambda image, model, **arguments: called.update(arguments) or 1 / 0,
        )
        arguments = {"auto_envvar_prefix": "TILESEGMENT", "catch_exceptions": True}
        result = CliRunner().invoke(tilesegment, words, env=variables, **arguments)
        if isinstance(result.exception, OptionError):
            raise result.exception
        return called

    return run


def test_typed_before_environment_before_file_before_default(
    seen: Callable[..., dict[str, object]],
) -> None:
    tile = {"TILESEGMENT_RUN_TILE": "128"}
    assert seen("run", "i.zarr", "--tile", "32", **tile)["options"].tile == 32
    assert seen("run", "i.zarr", **tile)["options"].tile == 128
    options = seen("run", "i.zarr")["options"]
    assert (options.tile, options.pixel_size_um, options.precision) == (64, 2.0, "auto")


def test_a_profile_is_taken_with_what_is_typed_beside_it(
    seen: Callable[..., dict[str, object]],
) -> None:
    assert seen("run", "i.zarr")["cluster"] == ClusterOptions("cpu", 3, "2GB")
    typed = seen("run", "i.zarr", "--workers", "1", TILESEGMENT_RUN_MEMORY_LIMIT="1GB")["cluster"]
    assert typed == ClusterOptions("cpu", 1, "1GB")
    assert seen("run", "i.zarr", "--cluster", "gpu")["cluster"] == ClusterOptions("gpu")
    with pytest.raises(OptionError, match="--cluster dusk is not known: tilesegment.toml has desk"):
        seen("run", "i.zarr", "--cluster", "dusk")


def test_another_file_is_given_by_option_and_by_variable(
    seen: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[run]\ntile = 16\n")
    assert seen("--config", str(other), "run", "i.zarr")["options"].tile == 16
    assert seen("run", "i.zarr", TILESEGMENT_CONFIG=str(other))["options"].tile == 16
    with pytest.raises(OptionError, match="absent.toml cannot be read as settings"):
        seen("--config", "absent.toml", "run", "i.zarr")


def test_without_a_file_there_is_the_users_folder(
    seen: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    (tmp_path / "tilesegment.toml").unlink()
    folder = Path(click.get_app_dir("tilesegment"))
    assert folder.is_relative_to(tmp_path)
    folder.mkdir(parents=True)
    (folder / "tilesegment.toml").write_text("[run]\ntile = 48\n")
    assert seen("run", "i.zarr")["options"].tile == 48


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rum]\ntile = 3", "there is no command 'rum'; [NAME] is one of calibrate, check, clean,"),
        ("[run]\ntyle = 3", "[run] has no option 'tyle'; it may have allow-partial,"),
        ("[run]\nlevel = -1", "-1 is not in the range x>=0. (in tilesegment.toml)"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_file(
    text: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tilesegment", "run", "i.zarr"])
    monkeypatch.setitem(os.environ, "XDG_CONFIG_HOME", str(tmp_path))
    Path("tilesegment.toml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert message in told.err
    assert "tilesegment.toml" in told.err
    assert told.out == ""
