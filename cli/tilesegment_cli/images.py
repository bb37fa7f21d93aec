"""Which images a command means: paths, patterns, and lists in files."""

from collections.abc import Iterable, Sequence
from glob import glob, has_magic
from pathlib import Path

import click

from tilesegment.errors import InputError


def is_pattern(word: str) -> bool:
    """Whether a word stands for several images: it has a wildcard, and no path is called so."""
    return has_magic(word) and "://" not in word and not Path(word).exists()


def find_images(words: Sequence[str], lines: Iterable[str] | None) -> list[str]:
    """Every image once, in the order of words and lines; those of a pattern by name.

    A plate or a collection stands for the images in it.

    Args:
        words: paths and patterns.
        lines: of a list: a path or pattern each; empty ones and those that begin with # are none.

    Raises:
        InputError: a pattern fits no path, or there is no image at all.
    """
    listed = [line.strip() for line in lines or ()]
    wanted = [*words, *(line for line in listed if line and not line.startswith("#"))]
    from tilesegment.storage.image import images_of

    paths = dict.fromkeys(path for word in wanted for path in _expand(word))
    found = dict.fromkeys(image for path in paths for image in images_of(path))
    if not found:
        raise InputError("the list names no image")
    return list(found)


def _expand(word: str) -> list[str]:
    if not is_pattern(word):
        return [word]
    paths = sorted(glob(word, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute ones
    if not paths:
        raise InputError(f"no image fits {word}; look at the pattern, and the folder it starts in")
    return paths


def refuse_no_image(context: click.Context) -> None:
    """Tell as click does that an argument is missing."""
    raise click.UsageError("Missing argument 'IMAGE'; or give a list: --from FILE", context)
