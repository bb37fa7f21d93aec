"""The state of a training run on disk: enough to continue as if it had never stopped.

Every random choice of step n is drawn from (seed, n), so that no generator needs to be kept.
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tilesegment.errors import InputError, OptionError


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` steps."""

    step: int
    model: Mapping[str, Any]
    """State of the network, as of its last step."""
    best_model: Mapping[str, Any]
    """State of the network at its best assessment."""
    optimiser: Mapping[str, Any]
    history: list[dict[str, float]]
    """The rows of the learning curve."""
    settings: Mapping[str, Any]
    """What must be the same to continue, as plain values."""


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write aside, then replace: a crash leaves the last good one."""
    temporary = path.with_name(path.name + ".partial")
    torch.save(dict(vars(checkpoint)), temporary)
    temporary.replace(path)


def load_checkpoint(path: Path, settings: Mapping[str, Any]) -> Checkpoint:
    """Read a checkpoint of a run with these settings; runs no code from the file.

    Raises:
        InputError: if it is absent or damaged.
        OptionError: if it belongs to a run with other settings.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint = Checkpoint(**content)
    except FileNotFoundError as error:
        raise InputError(f"there is no {path} to resume from; train without --resume") from error
    except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"the checkpoint {path} is damaged; remove it and train without --resume"
        ) from error
    _check_same(checkpoint.settings, settings, path)
    return checkpoint


def _check_same(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    differing = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if differing:
        changes = ", ".join(f"{key} {old.get(key)} -> {new.get(key)}" for key in differing)
        raise OptionError(
            f"{path} belongs to a run with other settings ({changes}); use the same, or train "
            "without --resume"
        )
