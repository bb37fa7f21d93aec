"""The model file."""

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tilesegment as ts
from tilesegment.errors import ModelError
from tilesegment.model.file import Normalisation, load_model, model_hash, read_description


def saved(path: Path) -> Path:
    torch.manual_seed(0)
    classes = ["background", ts.LabelClass("tumour", 7, (200, 30, 30))]
    return ts.save_model(
        ts.UNet(3, 2, base_channels=2, depth=1),
        path / "m.safetensors",
        classes=classes,
        normalisation=Normalisation((0.5,), (0.25,)),
        pixel_size_um=0.5,
        training={"steps": 12},
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path)
    description = read_description(path)
    assert description.pixel_size_um == 0.5
    assert description.normalisation == Normalisation((0.5,), (0.25,))
    assert [item.value for item in description.classes] == [0, 7]
    assert description.training == {"steps": 12}
    torch.manual_seed(0)
    expected = ts.UNet(3, 2, base_channels=2, depth=1).state_dict()
    found = load_model(path).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert not load_model(path).training


def test_the_hash_is_of_the_file(tmp_path: Path) -> None:
    first = model_hash(saved(tmp_path))
    assert first.startswith("sha256:")
    (tmp_path / "m.safetensors").open("ab").write(b"x")
    assert model_hash(tmp_path / "m.safetensors") != first


def test_classes_must_fit_the_outputs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="got 3 classes for a network with 1 output"):
        ts.save_model(ts.UNet(1, 1, 2, 1), tmp_path / "m.safetensors", classes=["a", "b", "c"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "statistics", "message"),
    [
        ([0, 0], Normalisation(), "give each its own"),
        ([0, 70_000], Normalisation(), "from 0 to 65535"),
        ([0, 1], Normalisation(mean=(0.1, 0.2)), "got 2 means for 3 channels"),
        ([0, 1], Normalisation(deviation=(0.0,)), "deviations must be positive"),
    ],
)
def test_what_cannot_work_is_not_saved(
    values: list[int], statistics: Normalisation, message: str, tmp_path: Path
) -> None:
    classes = [ts.LabelClass(f"class {value}", value, (9, 9, 9)) for value in values]
    network = ts.UNet(3, 2, base_channels=2, depth=1)
    with pytest.raises(ModelError, match=message):
        ts.save_model(network, tmp_path / "m", classes=classes, normalisation=statistics)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"upsampling": "bilinear"}, {"padding": "full"}, {"depth": 0}])
def test_an_unknown_argument_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        ts.UNet(3, 2, **change)


@pytest.mark.parametrize("kept", [0, 5, 40, -300, -1])
def test_a_truncated_file_is_refused(kept: int, tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"truncated|not a safetensors"):
        read_description(path)


@pytest.mark.parametrize(
    "header",
    ["[1]", '{"a": 7}', '{"a": {"data_offsets": 1}}', '{"a": {"data_offsets": [0, "x"]}}',
     '{"__metadata__": 7}', "[" * 100_000],
)  # fmt: skip
def test_a_header_of_any_json_is_an_error(header: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("/tmp/tilesegment-evil"),)  # noqa: S108


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_model(path)
    assert not Path("/tmp/tilesegment-evil").exists()  # noqa: S108


def test_weights_without_description_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match="without tilesegment's description"):
        read_description(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"architecture": "transformer"}, "transformer"),
        ({"classes": None}, "damaged description"),
        (
            {"arguments": {"in_channels": 3, "classes": 2, "base_channels": 5, "depth": 1}},
            "do not fit",
        ),
        ({"arguments": {"in_channels": 3, "classes": 2, "depth": 10**9}}, "larger than the file"),
        (
            {"arguments": {"in_channels": 3, "classes": 2, "base_channels": 10**7, "depth": 1}},
            "larger than the file",
        ),
        ({"arguments": {"in_channels": 10**9, "classes": 2, "depth": 1}}, "larger than the file"),
        ({"arguments": [3, 2]}, "damaged description"),
        ({"normalisation": 7}, "damaged description"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    content = saved(tmp_path).read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    description = json.loads(header["__metadata__"]["tilesegment"]) | change
    header["__metadata__"]["tilesegment"] = json.dumps(description)
    text = json.dumps(header).encode()
    path = tmp_path / "changed.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(ModelError, match=message):
        load_model(path)
