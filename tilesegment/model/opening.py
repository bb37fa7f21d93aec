"""A model by the name that the user gave, whoever made it."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesegment.config import ForeignOptions
from tilesegment.errors import OptionError
from tilesegment.model import zoo
from tilesegment.model.file import Description, content_hash, read_description

if TYPE_CHECKING:
    from tilesegment.model.foreign.opening import Kind

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_KINDS: dict[str, "Kind"] = {
    ".onnx": "ONNX",
    ".yaml": "bioimage.io",
    ".yml": "bioimage.io",
    **dict.fromkeys((".pt", ".pth", ".pt2", ".ts", ".torchscript"), "TorchScript or .pt2"),
}


@dataclass(frozen=True)
class Model:
    """A model, opened: all that a run and its workers need of it."""

    name: str
    """For its labels, where the user names none."""
    content: bytes
    """Of its file of weights."""
    description: Description
    identity: Mapping[str, Any]
    """What must be equal for two models to give the same labels; JSON."""
    source: str
    """Absolute path, or "module:factory"."""
    foreign: ForeignOptions
    """What a foreign network could not say of itself."""


def open_model(
    model: str | Path,
    foreign: ForeignOptions = ForeignOptions(),  # noqa: B008 - frozen
    *,
    blended: bool = False,
) -> Model:
    """Open a model file, a bundled model, or a foreign network, which is run and measured.

    Loads torch for foreign networks only.

    Args:
        model: path of a model file or a foreign network, name of a bundled model, or
            "module:factory".
        foreign: what a foreign network cannot say of itself.
        blended: whether its windows are blended, so that it need not have a finite border.

    Raises:
        ModelError: if it cannot be used.
        OptionError: if an option does not apply to it.
    """
    kind = foreign_kind(model)
    if kind is not None:
        return _open_foreign(str(model), kind, foreign, blended)
    given = [name for name, value in asdict(foreign).items() if value is not None]
    if given:
        raise OptionError(
            f"{model} is a model of tilesegment, which says by itself what {given[0]} would; "
            "leave the option out"
        )
    path = zoo.find(model)
    content = path.read_bytes()
    return Model(
        name=path.name.removesuffix(".safetensors"),
        content=content,
        description=read_description(path),
        identity={"model": content_hash(content)},
        source=str(path.absolute()),
        foreign=foreign,
    )


def foreign_kind(model: str | Path) -> "Kind | None":
    """What kind of foreign network a name stands for; None for tilesegment's own."""
    path = Path(model)
    if path.is_dir() and str(model) not in zoo.names():
        return "bioimage.io"
    if _FACTORY.fullmatch(str(model)) and not path.exists():
        return "Python"
    return _KINDS.get(path.suffix)


def _open_foreign(model: str, kind: "Kind", options: ForeignOptions, blended: bool) -> Model:
    from tilesegment.model.foreign.opening import open_foreign

    content, description = open_foreign(model, kind, options, blended)
    return Model(
        name=_label_name(model, kind),
        content=content,
        description=description,
        identity={"model": content_hash(content), **description.identity},
        source=model if kind == "Python" else str(Path(model).absolute()),
        foreign=options,
    )


def _label_name(model: str, kind: "Kind") -> str:
    path = Path(model).resolve()
    if kind == "Python":
        return model.rpartition(":")[2]
    if kind == "bioimage.io":
        return path.name if path.is_dir() else path.parent.name
    return path.stem
