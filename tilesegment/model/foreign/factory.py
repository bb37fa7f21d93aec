"""A network of one's own: the Python function that makes it, and a file of weights."""

import importlib
import io
import pickle
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tilesegment.errors import ModelError
from tilesegment.model.file import content_hash
from tilesegment.model.foreign.network import ForeignNetwork, Opened, Run
from tilesegment.model.foreign.torch_run import torch_run


@dataclass(frozen=True)
class FactoryLoader:
    """Calls ``module:factory`` and gives the network its weights."""

    module: str
    factory: str
    folder: str = field(repr=False)
    """Where the command was given; modules are looked for there too."""
    output: str | None
    """Which output, where it gives several: a key, or a position."""
    code: str
    """Hash of the module's file, so that other code is another network."""

    def load(self, content: bytes, device: str) -> Run:
        network = self._make()
        weights = read_weights(content)
        try:
            network.load_state_dict(weights)
        except (RuntimeError, TypeError) as error:
            problem = " ".join(str(error).split())[:200]
            raise ModelError(
                f"the weights do not fit the network of {self.module}:{self.factory} ({problem})"
            ) from error
        return torch_run(network.eval().to(device), device, self.output)

    def _make(self) -> torch.nn.Module:
        make = getattr(_import(self.module, self.folder), self.factory, None)
        if make is None:
            raise ModelError(f"the module {self.module} has no {self.factory}")
        network = make()
        if not isinstance(network, torch.nn.Module):
            raise ModelError(
                f"{self.module}:{self.factory}() gives a {type(network).__name__}; it must give "
                "a torch.nn.Module"
            )
        return network


def _import(module: str, folder: str) -> ModuleType:
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModelError(
            f"cannot import {module} ({error}); start the command in the folder of the module, or "
            "install it, on the workers too"
        ) from error


def open_factory(name: str, weights: str | None, output: str | None) -> Opened:
    """The network of a ``module:factory``.

    Raises:
        ModelError: if there are no weights.
    """
    module, _, factory = name.partition(":")
    if weights is None:
        raise ModelError(
            f"{name} makes a network without trained weights; add --weights FILE (safetensors, or "
            "a state dict saved by torch)"
        )
    folder = str(Path.cwd())
    file = _import(module, folder).__file__
    code = content_hash(Path(file).read_bytes()) if file else ""
    loader = FactoryLoader(module, factory, folder, output, code)
    return Opened(_read(Path(weights)), ForeignNetwork(loader))


def _read(weights: Path) -> bytes:
    if not weights.is_file():
        raise ModelError(f"there is no file of weights {weights}")
    return weights.read_bytes()


def read_weights(content: bytes) -> Mapping[str, Any]:
    """The tensors in a safetensors file, or in a torch file that holds nothing but tensors.

    Raises:
        ModelError: if the file is neither; code in a pickle is never run.
    """
    # A safetensors file begins with the length of its JSON header: its first byte may be \x80 too.
    if content[8:9] != b"{" and (content[:2] == b"PK" or content[:1] == b"\x80"):
        return _read_pickle(content)
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights: Mapping[str, Any] = load(content)
        return weights
    except SafetensorError as error:
        raise ModelError(
            f"the weights are neither safetensors nor a torch file ({error}); export them again"
        ) from error


def _read_pickle(content: bytes) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings():
            # torch warns of pickles that it did not write; whether they are safe is decided here.
            warnings.simplefilter("ignore")
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(
            "the weights hold more than tensors, or are damaged, and were not loaded: a pickle "
            "can run code; save the state dict alone, best as safetensors"
        ) from error
    # Training programs save more than the network: Lightning puts it under this key.
    weights = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(weights, Mapping):
        raise ModelError(
            f"the weights are a {type(weights).__name__}; save the network's state dict"
        )
    return weights
