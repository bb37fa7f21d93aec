"""bioimage.io descriptions, and the model that others made."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.foreign import sha256, small_unet, write_bioimageio, write_torchscript
from tilesegment.config import ForeignOptions
from tilesegment.errors import ModelError, OptionError
from tilesegment.geometry import NetworkGeometry
from tilesegment.model.opening import open_model
from tilesegment.model.preprocessing import Standardise


@pytest.fixture(autouse=True)
def known_geometry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring is tested elsewhere, and slow."""
    monkeypatch.setattr(
        "tilesegment.model.foreign.describing.find_geometry",
        lambda *_: NetworkGeometry(border=8, alignment=2, loss=0, residue=0),
    )


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    description = yaml.safe_load((folder / "rdf.yaml").read_text())
    edit(description)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description))
    return folder


def test_a_description_says_what_a_file_cannot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_bioimageio(tmp_path / "nuclei", small_unet(), 64)
    with caplog.at_level(logging.WARNING):
        model = open_model(folder)
    assert model.name == "nuclei"
    assert model.description.whole_image_steps == (Standardise(per_channel=True, epsilon=1e-6),)
    assert [item.name for item in model.description.classes] == ["background", "nucleus"]
    assert model.description.threshold == 0
    assert "declares a halo of 2 pixels; its border, measured, is 8" in caplog.text
    assert open_model(folder / "rdf.yaml").identity == model.identity


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another test output": (
        lambda d: d["outputs"][0].update(postprocessing=[]), "does not give its own test output",
    ),
    "weights of another hash": (
        lambda d: d["weights"]["onnx"].update(sha256="0" * 64), "has the hash .* description says",
    ),
    "weights that are elsewhere": (
        lambda d: d["weights"]["onnx"].update(source="w.onnx"), "names the weights w.onnx, which",
    ),
    "unknown operation": (
        lambda d: d["inputs"][0]["preprocessing"].append({"id": "cellpose_flow", "kwargs": {}}),
        "asks for the preprocessing cellpose_flow",
    ),
    "volumes": (
        lambda d: d["inputs"][0]["axes"].insert(2, {"type": "space", "id": "z", "size": 16}),
        "has the axes b, c, z, y, x",
    ),
    "two inputs": (lambda d: d["inputs"].append(d["inputs"][0]), "describes 2 inputs"),
    "no weights that can be run": (
        lambda d: d.update(weights={"keras_hdf5": {}}), "has weights as keras_hdf5; ONNX",
    ),
    "old format": (lambda d: d.update(format_version="0.3.6"), "0.4 and 0.5 are read"),
    "independent channels": (
        lambda d: d["outputs"][0]["axes"][1].update(channel_names=["inside", "edge"]),
        "are independent probabilities, not classes; choose one with --model-output",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_run_as_described_is_refused(fault: str, tmp_path: Path) -> None:
    edit, message = FAULTS[fault]
    folder = change(write_bioimageio(tmp_path / "m", small_unet(), 64), edit)
    with pytest.raises(ModelError, match=message) as caught:
        open_model(folder)
    assert "\n" not in str(caught.value)


def test_another_output_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_bioimageio(tmp_path / "m", small_unet(), 64)
    with pytest.raises(OptionError, match="has the outputs probability, not 'edge'"):
        open_model(folder, ForeignOptions(model_output="edge"))


def test_format_4_is_read(tmp_path: Path) -> None:
    folder = write_bioimageio(tmp_path / "m", small_unet(), 64)

    def to_format_4(description: dict[str, Any]) -> None:
        description.update(
            format_version="0.4.10",
            test_inputs=["in.npy"],
            test_outputs=["out.npy"],
            inputs=[
                {
                    "name": "raw", "axes": "bcyx", "shape": [1, 1, 64, 64],
                    "preprocessing": [
                        {
                            "name": "zero_mean_unit_variance",
                            "kwargs": {"axes": "xy", "mode": "per_sample"},
                        }
                    ],
                }
            ],
            outputs=[
                {
                    "name": "probability", "axes": "bcyx", "shape": [1, 1, 64, 64],
                    "halo": [0, 0, 4, 4], "postprocessing": [{"name": "sigmoid"}],
                }
            ],
        )  # fmt: skip

    model = open_model(change(folder, to_format_4))
    assert model.description.whole_image_steps == (Standardise(per_channel=True, epsilon=1e-6),)
    assert model.description.threshold == 0


def test_torchscript_is_taken_where_its_hash_is_trusted(tmp_path: Path) -> None:
    network = small_unet()
    folder = write_bioimageio(tmp_path / "m", network, 64)
    write_torchscript(network, folder / "weights.pt", torch.zeros(1, 1, 64, 64))
    weights = {"torchscript": {"source": "weights.pt"}}
    change(folder, lambda description: description["weights"].update(weights))
    trust = f"sha256:{sha256(folder / 'weights.pt')}"
    assert open_model(folder, ForeignOptions(trust=trust)).identity["model"] == trust
    change(folder, lambda description: description.update(weights=weights))
    with pytest.raises(ModelError, match=f"add --trust-model {trust}"):
        open_model(folder)


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_the_third_party_model_gives_its_stored_test_output(kind: str, shared_data: Path) -> None:
    """Compared on opening; ``test output`` is what its authors stored."""
    folder = shared_data / "models" / "unet2d_nuclei_broad"
    trust = f"sha256:{sha256(folder / 'weights.pt')}" if kind == "torchscript" else None
    model = open_model(folder, ForeignOptions(trust=trust))
    assert [item.name for item in model.description.classes] == ["background", "probability"]
    assert model.description.fixed_input == (512 if kind == "onnx" else None)
