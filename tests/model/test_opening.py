"""A model by its name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.foreign import small_unet, write_graph
from tilesegment.config import ForeignOptions
from tilesegment.errors import ModelError, OptionError
from tilesegment.geometry import NetworkGeometry
from tilesegment.model.opening import foreign_kind, open_model


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nuclei", None),
        ("a/b.safetensors", None),
        ("a/b.onnx", "ONNX"),
        ("a/b.pt2", "TorchScript or .pt2"),
        ("a/rdf.yaml", "bioimage.io"),
        ("package.module:make", "Python"),
    ],
)
def test_the_name_tells_the_kind(name: str, kind: str | None) -> None:
    assert foreign_kind(name) == kind


def test_options_that_do_not_apply_are_refused(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="says by itself what threshold would"):
        open_model(make_model(), ForeignOptions(threshold=0.5))
    path = tmp_path / "m.onnx"
    with pytest.raises(OptionError, match="--trust-model is for files that run code"):
        open_model(path, ForeignOptions(trust="sha256:1"))
    with pytest.raises(OptionError, match="--weights is for networks given as module:factory"):
        open_model(path, ForeignOptions(weights="w"))


def test_one_channel_without_a_meaning_is_refused(tmp_path: Path) -> None:
    from onnx import helper

    path = write_graph(tmp_path / "m.onnx", [helper.make_node("Relu", ["image"], ["logits"])])
    with pytest.raises(ModelError, match="add --threshold 0 if it gives logits, 0.5 if prob"):
        open_model(path)


def test_one_of_several_outputs_is_chosen_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx import helper

    monkeypatch.setattr(
        "tilesegment.model.foreign.describing.find_geometry",
        lambda *_: NetworkGeometry(border=0, alignment=1, loss=0, residue=0),
    )
    nodes = [helper.make_node("Relu", ["image"], [name]) for name in ("cells", "edges")]
    path = write_graph(tmp_path / "m.onnx", nodes, outputs=("cells", "edges"))
    with pytest.raises(OptionError, match="has the outputs cells, edges; choose one with --model"):
        open_model(path, ForeignOptions(threshold=0))
    chosen = [
        open_model(path, ForeignOptions(threshold=0, model_output=name))
        for name in ("cells", "edges")
    ]
    assert chosen[0].identity != chosen[1].identity


def test_a_factory_gets_its_weights(tmp_path: Path) -> None:
    save_file(small_unet(seed=3).state_dict(), tmp_path / "w.safetensors")
    torch.save(small_unet(seed=3).state_dict(), tmp_path / "w.pt")
    models = [
        open_model(
            "tests.foreign:small_unet",
            ForeignOptions(weights=str(tmp_path / name), threshold=0),
        )
        for name in ("w.safetensors", "w.pt")
    ]
    image = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        expected = small_unet(seed=3)(image)
    for model in models:
        found = model.description.network.load(model.content, "cpu")(image)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert models[0].name == "small_unet"
    with pytest.raises(ModelError, match="without trained weights; add --weights"):
        open_model("tests.foreign:small_unet")
    with pytest.raises(ModelError, match="cannot import nowhere"):
        open_model("nowhere:make", ForeignOptions(weights=str(tmp_path / "w.pt")))
