"""TorchScript and exported programs (.pt2): loading them runs their author's code.

So they are read only where the user names the file's hash; nothing is loaded before that.
"""

import io
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tilesegment.errors import ModelError
from tilesegment.model.file import content_hash
from tilesegment.model.foreign.network import AXES, ForeignNetwork, Opened, Run
from tilesegment.model.foreign.torch_run import torch_run

Kind = Literal["TorchScript", "an exported program"]


@dataclass(frozen=True)
class TorchFileLoader:
    """Makes a network of the bytes of a TorchScript file or an exported program."""

    kind: Kind
    output: str | None
    """Which output, where it gives several: a key, or a position."""

    def load(self, content: bytes, device: str) -> Run:
        module = _load_script(content, device) if self.kind == "TorchScript" else None
        if module is None:
            module = _load_program(content).module().to(device)
        return torch_run(module, device, self.output)


def open_torch_file(
    path: Path, trust: str | None, output: str | None, input_axes: str = AXES
) -> Opened:
    """A TorchScript file or an exported program, if its hash is trusted.

    Raises:
        ModelError: if the hash was not given or is another, or the file is neither.
    """
    content = path.read_bytes()
    kind = _kind(content, path)
    _check_trust(content, path, kind, trust)
    loader = TorchFileLoader(kind, output)
    if kind == "TorchScript":
        return Opened(content, ForeignNetwork(loader, input_axes=input_axes))
    channels, size = _example_sizes(_load_program(content), input_axes)
    return Opened(content, ForeignNetwork(loader, channels, size, input_axes))


def _kind(content: bytes, path: Path) -> Kind:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{path} is neither TorchScript nor an exported program; a file of weights is given "
            "with the network's code: --model module:factory --weights FILE"
        ) from error
    if any("/code/" in name for name in names):
        return "TorchScript"
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        return "an exported program"
    raise ModelError(
        f"{path} holds weights without their network; give its code as well: "
        f"--model module:factory --weights {path}"
    )


def _check_trust(content: bytes, path: Path, kind: Kind, trust: str | None) -> None:
    found = content_hash(content)
    if trust is None:
        raise ModelError(
            f"{path} is {kind}, which runs its author's code when it is loaded; if you trust "
            f"where it came from, add --trust-model {found}"
        )
    if trust != found:
        raise ModelError(
            f"{path} has the hash {found}, --trust-model names {trust}: it is another file, or "
            "was changed; nothing of it was loaded"
        )


def _load_script(content: bytes, device: str) -> Any:
    with warnings.catch_warnings():
        # torch 2.13 calls TorchScript deprecated; files in it are what they are.
        warnings.simplefilter("ignore")
        try:
            module = torch.jit.load(io.BytesIO(content), map_location=device)  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"torch cannot load the TorchScript: {_first_line(error)}") from error
    return module.eval()


def _load_program(content: bytes) -> Any:
    try:
        return torch.export.load(io.BytesIO(content))
    except (RuntimeError, ValueError, AssertionError, KeyError) as error:
        raise ModelError(f"torch cannot load the program: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _example_sizes(program: Any, axes: str) -> tuple[int | None, int | None]:
    """Channels and fixed size of an exported program's input; None where they are free."""
    inputs = program.graph_signature.user_inputs
    (shape,) = (node.meta["val"].shape for node in program.graph.nodes if node.name == inputs[0])
    sizes = dict(zip(axes, shape, strict=True))
    channels, height, width = (
        size if isinstance(size, int) else None
        for size in (sizes.get("c", 1), *map(sizes.get, "yx"))
    )
    if height != width:
        raise ModelError(
            f"the exported program takes inputs of {height} x {width} pixels; tiles are square: "
            "export it with dynamic sizes, or as many rows as columns"
        )
    return channels, height
