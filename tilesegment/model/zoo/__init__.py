"""The bundled models, by name."""

from importlib.resources import as_file, files
from pathlib import Path

from tilesegment.errors import ModelError

DEFAULT = "nuclei"


def names() -> list[str]:
    """Names of the bundled models, sorted."""
    return sorted(
        item.name.removesuffix(".safetensors")
        for item in files(__name__).iterdir()
        if item.name.endswith(".safetensors")
    )


def find(model: str | Path) -> Path:
    """The file of a model, given as a path or by the name of a bundled one.

    Raises:
        ModelError: if it is neither.
    """
    if Path(model).is_file():
        return Path(model)
    if str(model) in names():
        with as_file(files(__name__) / f"{model}.safetensors") as path:
            return path
    raise ModelError(
        f"there is no model {model}: neither a file nor a bundled model ({', '.join(names())})"
    )
