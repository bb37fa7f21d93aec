import pickle
from pathlib import Path

import pytest
import torch

from tilesegment.errors import InputError, OptionError
from tilesegment.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

SETTINGS = {"tile": 32, "optimiser": "sgd"}


@pytest.fixture
def saved(tmp_path):
    weights = {"weight": torch.arange(3.0)}
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(Checkpoint(7, weights, weights, {}, [{"step": 7}], SETTINGS), path)
    return path


def test_checkpoint_comes_back(saved):
    checkpoint = load_checkpoint(saved, SETTINGS)
    assert (checkpoint.step, checkpoint.history) == (7, [{"step": 7}])
    torch.testing.assert_close(checkpoint.model["weight"], torch.arange(3.0))


def test_other_settings_are_named(saved):
    with pytest.raises(OptionError, match=r"other settings \(tile 32 -> 64\)"):
        load_checkpoint(saved, {**SETTINGS, "tile": 64})


@pytest.mark.parametrize("length", [0, 10, 500])
def test_truncated_checkpoint_is_refused(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(saved, SETTINGS)


def test_absent_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="to resume from"):
        load_checkpoint(tmp_path / "checkpoint.pt", SETTINGS)


class Payload:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_checkpoint_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"step": Payload()}, "zip.pt")
    Path("plain.pt").write_bytes(pickle.dumps({"step": Payload()}, protocol=2))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(InputError, match="is damaged"):
            load_checkpoint(Path(name), SETTINGS)
    assert not Path("ran").exists()
