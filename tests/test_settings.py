"""The settings file: clusters by name, defaults of options, and one line where it is wrong."""

from pathlib import Path

import pytest

from tilesegment.config import ClusterOptions, SlurmOptions, WorkerRange
from tilesegment.errors import OptionError
from tilesegment.settings import Settings, find_settings, profile, read_settings


def written(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "tilesegment.toml"
    file.write_text(text)
    return file


def test_a_profile_has_the_fields_of_the_options(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [run]
        tile = 2048
        [clusters.site]
        kind = "slurm"
        workers = "2:16"
        feed = "tile"
        wait-seconds = 60
        [clusters.site.slurm]
        queue = "gpu"
        gpus = 4
        prologue = ["module load cuda"]
        """,
    )
    settings = read_settings(file)
    assert settings.commands == {"run": {"tile": 2048}}
    slurm = SlurmOptions(queue="gpu", gpus=4, prologue=("module load cuda",))
    expected = ClusterOptions(
        "slurm", WorkerRange(2, 16), wait_seconds=60.0, feed="tile", slurm=slurm
    )
    assert settings.clusters == {"site": expected}


def test_a_profile_says_what_a_word_means_here(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, '[clusters.slurm.slurm]\naccount = "lab"\n'))
    found = profile("slurm", settings)
    assert found is not None
    assert (found.kind, found.slurm.account) == ("slurm", "lab")
    assert profile("gpu", settings) is None
    assert profile("tls://10.0.0.5:8786", settings) is None


def test_the_first_folder_wins(tmp_path: Path) -> None:
    written(tmp_path / "second", "[clusters.b]\nkind = 'gpu'\n")
    folders = tmp_path / "first", tmp_path / "second"
    assert list(find_settings(*folders).clusters) == ["b"]
    written(tmp_path / "first", "[clusters.a]\nkind = 'gpu'\n")
    assert list(find_settings(*folders).clusters) == ["a"]
    assert find_settings(tmp_path / "nowhere") == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run", "cannot be read as settings: "),
        ("tile = 3", r"tile is no table; write \[run\] or \[clusters.NAME\] above it"),
        ("[clusters]\na = 3", r"\[clusters.a\] is no table"),
        ("[clusters.a]\nworkers = 3", r"\[clusters.a\] needs a kind: cpu, gpu, .* tls://host:port"),
        ("[clusters.gpu]\nkind = 'slurm'", "cannot be of the kind slurm; choose another name"),
        ("[clusters.a]\nkind = 'gpu'\nworker = 3", "has no 'worker'; it may have kind, workers,"),
        ("[clusters.a]\nkind = 3", "kind cannot be 3; write a text in quotes"),
        (
            "[clusters.a]\nkind = 'gpu'\nfeed = 'graph'",
            'feed cannot be .graph.; write "auto" or "overlap" or "tile"',
        ),
        ("[clusters.a]\nkind = 'gpu'\nworkers = true", 'a number, or a range as "2:16"'),
        ("[clusters.a]\nkind = 'gpu'\nworkers = 'many'", "many is no number of workers"),
        ("[clusters.a]\nkind = 'slurm'\nslurm = 3", "slurm is no table of options"),
        (
            "[clusters.a]\nkind = 'slurm'\n[clusters.a.slurm]\nquue = 'gpu'",
            r"\[clusters.a.slurm\] has no 'quue'; it may have queue, account",
        ),
        (
            "[clusters.a]\nkind = 'slurm'\n[clusters.a.slurm]\nprologue = 'module load cuda'",
            r"prologue cannot be 'module load cuda'; write a list of texts",
        ),
    ],
)
def test_what_nobody_understands_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    file = written(tmp_path, text)
    with pytest.raises(OptionError, match=message) as raised:
        read_settings(file)
    assert str(file) in str(raised.value)


def test_an_unknown_name_is_told_with_those_that_are_known(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, "[clusters.site]\nkind = 'gpu'\n"))
    with pytest.raises(OptionError, match="--cluster sight is not known: .*toml has site; otherw"):
        profile("sight", settings)
