"""``tilesegment.toml``: clusters by name, and what the options of commands are by default."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tilesegment.config import KINDS, ClusterOptions, WorkerRange, parse_workers
from tilesegment.errors import OptionError

NAME = "tilesegment.toml"
_Table = TypeVar("_Table")


@dataclass(frozen=True)
class Settings:
    """What a settings file says."""

    file: Path | None = None
    """None: there is none."""
    clusters: Mapping[str, ClusterOptions] = field(default_factory=dict)
    """By the name that `--cluster` gives."""
    commands: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Values of options, by command and option, as they are written."""


def find_settings(*folders: Path) -> Settings:
    """Those of the first folder that has a settings file; nothing where none has.

    Raises:
        OptionError: if the file cannot be used.
    """
    for folder in folders:
        if (folder / NAME).is_file():
            return read_settings(folder / NAME)
    return Settings()


def read_settings(file: Path) -> Settings:
    """What a settings file says.

    Raises:
        OptionError: if it cannot be read, or says what nobody understands.
    """
    try:
        tables = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise OptionError(f"{file} cannot be read as settings: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise OptionError(
                f"{file}: {name} is no table; write [run] or [clusters.NAME] above it"
            )
    profiles = tables.pop("clusters", {})
    clusters = {name: _profile(file, name, table) for name, table in profiles.items()}
    return Settings(file, clusters, tables)


def _profile(file: Path, name: str, table: Any) -> ClusterOptions:
    where = f"{file}: [clusters.{name}]"
    if not isinstance(table, dict):
        raise OptionError(f"{where} is no table of options")
    options = _read(ClusterOptions, table, where)
    if "kind" in table and name in KINDS and options.kind != name:
        raise OptionError(f"{where} cannot be of the kind {options.kind}; choose another name")
    if "kind" not in table and name not in KINDS:
        raise OptionError(f"{where} needs a kind: {', '.join(KINDS)}, or tls://host:port")
    return options if "kind" in table else replace(options, kind=name)


def _read(kind: type[_Table], table: Mapping[str, Any], where: str) -> _Table:
    """A dataclass from a table with its fields; - in a key is _."""
    hints = get_type_hints(kind)
    names = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in names:
            raise OptionError(f"{where} has no {key!r}; it may have {', '.join(names)}")
        values[name] = _value(hints[name], value, where, key)
    return kind(**values)


def _value(hint: Any, value: Any, where: str, key: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise OptionError(f"{where}: {key} is no table of options")
        return _read(hint, value, f"{where[:-1]}.{key}]")
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if WorkerRange in kinds and isinstance(value, str):
        try:
            return parse_workers(value)
        except OptionError as error:
            raise OptionError(f"{where}: {error}") from error
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
    elif get_origin(hint) is tuple and isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return tuple(value)
    elif type(value) in kinds:
        return value
    elif float in kinds and type(value) is int:
        return float(value)
    raise OptionError(f"{where}: {key} cannot be {value!r}; write {_example(hint)}")


def _example(hint: Any) -> str:
    """How a value of a type is written."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if WorkerRange in kinds:
        return 'a number, or a range as "2:16"'
    if get_origin(hint) is Literal:
        return " or ".join(f'"{word}"' for word in get_args(hint))
    if get_origin(hint) is tuple:
        return 'a list of texts, as ["one", "two"]'
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text in quotes",
    }
    return " or ".join(words[each] for each in kinds if each in words)


def profile(name: str, settings: Settings) -> ClusterOptions | None:
    """The cluster of this name; None where the word needs no profile.

    Raises:
        OptionError: if nobody knows the word.
    """
    if name in settings.clusters:
        return settings.clusters[name]
    if name in KINDS or "://" in name or settings.file is None:
        return None
    has = ", ".join(settings.clusters) or "no clusters"
    raise OptionError(
        f"--cluster {name} is not known: {settings.file} has {has}; otherwise use "
        f"{', '.join(KINDS)} or an address as tls://host:port"
    )
