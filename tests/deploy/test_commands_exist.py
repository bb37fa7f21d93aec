"""Every script, manifest and page for deployment names only what exists."""

from pathlib import Path

import click
import pytest

from tests.deploy.command_lines import named_in, refuse_unknown

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path
    for folder in ("deploy", "docs/deploy")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.suffix != ".toml"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_options_exist(path: Path) -> None:
    for words in named_in(path):
        refuse_unknown(words)


def test_there_is_something_to_check() -> None:
    counts = {str(path.relative_to(ROOT)): len(named_in(path)) for path in FILES}
    for name in ("deploy/kubernetes/base/job.yaml", "deploy/kubernetes/tls/cluster.yaml"):
        assert counts[name] > 0, name
    assert counts["deploy/kubernetes/tls/cluster.yaml"] == 2


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("a.sh", "# tilesegment rum x\nsrun tilesegment run x --tile 3 \\\n  --json | cat\n", 1),
        ("a.md", "dask wörker\n```console\nnode0$ dask worker tls://a:1 --nthreads 8\n```\n", 1),
        ("Dockerfile", 'RUN x && dask scheduler --host a\nCMD ["tilesegment", "--help"]\n', 2),
        ("a.yaml", "a:\n - args: [dask, cuda, worker]\n - args: [ls]\n", 1),
    ],
)
def test_command_lines_are_found(name: str, text: str, count: int, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert len(named_in(tmp_path / name)) == count


@pytest.mark.parametrize(
    "line",
    [
        "tilesegment rum i.zarr",
        "tilesegment run i.zarr --clutser gpu",
        "dask-worker tcp://a:1",
        "dask worker tcp://a:1 --nworkerz 2",
        "dask cuda scheduler",
    ],
)
def test_what_does_not_exist_is_refused(line: str) -> None:
    with pytest.raises((click.UsageError, KeyError)):
        refuse_unknown(line.split())
