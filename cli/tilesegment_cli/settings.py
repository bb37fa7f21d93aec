"""Where the command line finds its settings, and how they become defaults of its options."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tilesegment.config import ClusterOptions
from tilesegment.errors import OptionError
from tilesegment.settings import Settings, find_settings, profile, read_settings

_TYPED = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def load_settings(context: click.Context, file: str | None) -> None:
    """Make the settings the defaults of all commands below this group.

    Args:
        context: of the group.
        file: given by the user; None looks in the working directory, then in the user's folder.

    Raises:
        OptionError: if the settings cannot be used.
    """
    if file is not None:
        settings = read_settings(Path(file))
    else:
        settings = find_settings(Path(), Path(click.get_app_dir("tilesegment")))
    context.obj = settings
    context.default_map = {
        name: _defaults(context, settings, name, table) for name, table in settings.commands.items()
    }


def _defaults(
    context: click.Context, settings: Settings, name: str, table: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of one command's options, by the names that click has for them."""
    group = context.command
    assert isinstance(group, click.Group)  # noqa: S101 - for the type checker
    command = group.commands.get(name)
    if command is None:
        known = ", ".join(sorted(group.commands))
        raise OptionError(
            f"{settings.file}: there is no command {name!r}; [NAME] is one of {known}, or clusters"
        )
    names = {
        spelling.removeprefix("--"): parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for spelling in parameter.opts
        if spelling.startswith("--")
    }
    unknown = [key for key in table if key.replace("_", "-") not in names]
    if unknown:
        raise OptionError(
            f"{settings.file}: [{name}] has no option {unknown[0]!r}; it may have "
            f"{', '.join(sorted(names))}"
        )
    return {str(names[key.replace("_", "-")]): value for key, value in table.items()}


def with_profile(options: ClusterOptions) -> ClusterOptions:
    """The cluster that the user named, with what was typed beside it.

    Raises:
        OptionError: if there is no such cluster.
    """
    context = click.get_current_context()
    named = profile(options.kind, context.find_object(Settings) or Settings())
    if named is None:
        return options
    typed = {
        item.name: getattr(options, item.name)
        for item in fields(options)
        if item.name != "kind" and context.get_parameter_source(item.name) in _TYPED
    }
    return replace(named, **typed)


def with_source(error: click.BadParameter) -> click.BadParameter:
    """The error; about a value that came from the settings it says so."""
    context, parameter = error.ctx, error.param
    if context is None or parameter is None:
        return error
    settings = context.find_object(Settings)
    source = context.get_parameter_source(str(parameter.name))
    if settings is None or source != ParameterSource.DEFAULT_MAP:
        return error
    return click.BadParameter(f"{error.message} (in {settings.file})", context, parameter)
