"""The command lines that scripts, manifests and pages name, and whether such commands exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml
from dask_cuda.cli import worker as dask_cuda_worker
from distributed.cli.dask_scheduler import main as dask_scheduler
from distributed.cli.dask_worker import main as dask_worker

from tilesegment_cli.main import tilesegment

DASK = click.Group(
    "dask",
    {
        "scheduler": dask_scheduler,
        "worker": dask_worker,
        "cuda": click.Group("cuda", {"worker": dask_cuda_worker}),
    },
)
PROGRAMS = {"tilesegment": tilesegment, "dask": DASK}
_COMMAND = re.compile(r"(?:^|[\s;|&(\"'/])(tilesegment|dask)(?=\s)\s+(?=[a-z-])(?P<rest>.*)$")
_FENCE = re.compile(r"^```(?:console|bash|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def named_in(path: Path) -> list[list[str]]:
    """Every command line of tilesegment and dask in a file, as words."""
    text = path.read_text()
    if path.suffix in (".yaml", ".yml"):
        return [words for document in yaml.safe_load_all(text) for words in _in_yaml(document)]
    if path.suffix == ".md":
        return [words for block in _FENCE.findall(text) for words in _in_shell(block)]
    return list(_in_shell(text))


def _in_yaml(value: Any) -> Iterator[list[str]]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _in_yaml(item)
    elif isinstance(value, list):
        words = [word for word in value if isinstance(word, str)]
        if words == value and len(words) > 1 and words[0] in PROGRAMS:
            yield words
        for item in value:
            yield from _in_yaml(item)
    elif isinstance(value, str):
        yield from _in_shell(value)


def _in_shell(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("#"):
            continue
        if line.lstrip().startswith(("CMD [", "ENTRYPOINT [")):
            words = re.findall(r'"([^"]*)"', line)
            if words[0] in PROGRAMS:
                yield words
            continue
        found = _COMMAND.search(line)
        if found:
            yield [found[1], *_words(found["rest"])]


def _words(rest: str) -> list[str]:
    """Up to the end of the command: a comment, a pipe, another command."""
    words: list[str] = []
    lexer = shlex.shlex(rest, posix=True, punctuation_chars=";|&)>")
    lexer.whitespace_split = True
    for word in lexer:
        if word and word[0] in ";|&)>":
            break
        words.append(word)
    return words


def refuse_unknown(words: list[str]) -> None:
    """Parse a command line as its program does, without running it.

    Raises:
        click.UsageError: if a command or an option does not exist.
    """
    command: click.Command = PROGRAMS[words[0]]
    context = click.Context(command, info_name=words[0])
    rest = words[1:]
    while isinstance(command, click.Group):
        _, rest, _ = command.make_parser(context).parse_args(rest)
        if not rest:
            return
        name, *rest = rest
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"{' '.join(words)}: there is no command {name!r}")
        command, context = found, click.Context(found, context, name)
    command.make_parser(context).parse_args(rest)
