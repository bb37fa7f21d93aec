"""A foreign network of any kind: opened, tried out, measured."""

from pathlib import Path
from typing import Literal

from tilesegment.config import ForeignOptions
from tilesegment.errors import ModelError, OptionError
from tilesegment.model.foreign.bioimageio import find_description, open_bioimageio
from tilesegment.model.foreign.describing import Facts, describe
from tilesegment.model.foreign.factory import open_factory
from tilesegment.model.foreign.measuring import try_out
from tilesegment.model.foreign.network import ForeignDescription, Opened, Run
from tilesegment.model.foreign.onnx import open_onnx
from tilesegment.model.foreign.torch_file import open_torch_file

Kind = Literal["bioimage.io", "ONNX", "TorchScript or .pt2", "Python"]

_TAKES_WEIGHTS: tuple[Kind, ...] = ("Python",)
_TAKES_TRUST: tuple[Kind, ...] = ("bioimage.io", "TorchScript or .pt2")


def open_foreign(
    model: str, kind: Kind, options: ForeignOptions, blended: bool = False
) -> tuple[bytes, ForeignDescription]:
    """Open a foreign network, run it on noise and measure its border.

    Args:
        model: path of a file or folder, or "module:factory".
        kind: what it is.
        options: what it cannot say of itself.
        blended: whether it need not have a finite border.

    Returns:
        What workers need to load it, and what is known of it.

    Raises:
        ModelError: if it cannot be run by tiles, or not without trust.
        OptionError: if an option does not apply to this kind of network, or names no output.
    """
    opened, facts = _open(model, kind, options)
    return opened.content, describe(opened, facts, options, model, blended)


def open_runnable(model: str, kind: Kind, options: ForeignOptions) -> tuple[Opened, Run, int]:
    """A foreign network that has run once, with the number of its input's channels.

    Raises:
        ModelError, OptionError: as `open_foreign`, but for its border.
    """
    opened, _ = _open(model, kind, options)
    run = opened.load()
    return opened, run, try_out(opened, run)[0]


def _open(model: str, kind: Kind, options: ForeignOptions) -> tuple[Opened, Facts]:
    if options.weights is not None and kind not in _TAKES_WEIGHTS:
        raise OptionError(f"--weights is for networks given as module:factory, not for {kind}")
    if options.trust is not None and kind not in _TAKES_TRUST:
        raise OptionError(f"--trust-model is for files that run code when loaded, not for {kind}")
    if kind == "Python":
        return open_factory(model, options.weights, options.model_output), Facts()
    path = Path(model)
    # A pipe would be read for ever.
    if not (path.is_file() or path.is_dir()):
        raise ModelError(f"there is no model {path}")
    if kind == "bioimage.io":
        return open_bioimageio(find_description(path) if path.is_dir() else path, options)
    if kind == "ONNX":
        return open_onnx(path, options.model_output), Facts()
    return open_torch_file(path, options.trust, options.model_output), Facts()
