"""One of several things by name, or a refusal that lists the names."""

from collections.abc import Sequence

from tilesegment.errors import OptionError


def choose(names: Sequence[str], wanted: str | None, where: str) -> str:
    """The name that was asked for; the only one if none was.

    Raises:
        OptionError: if there are several and none was asked for, or another was.
    """
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return str(wanted)
    asked = "" if wanted is None else f", not {wanted!r}"
    raise OptionError(
        f"{where} has the outputs {', '.join(names)}{asked}; choose one with --model-output"
    )
