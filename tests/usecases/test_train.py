import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tilesegment.errors import OptionError, OutputError
from tilesegment.model.file import load_model, read_description
from tilesegment.training.dataset import LabelRule
from tilesegment.training.loop import Recipe
from tilesegment.usecases.train import NetworkChoice, Sampling, Validation, train
from tilesegment_cli.train import train as command

SMALL = NetworkChoice(base_channels=2, depth=1)
QUICK = Recipe(steps=2, tile=16, assess_every=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squares")
    random = np.random.default_rng(0)
    for name in ("a_1", "a_2", "b_1", "b_2"):
        label = np.zeros((30, 40), np.uint8)
        label[8:20, 10:25] = 1
        image = (50 + 150 * label + random.integers(0, 20, label.shape)).astype(np.uint8)
        for kind, pixels in (("images", image), ("labels", label)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"{name}.png")
    return folder


def test_trained_model_can_be_loaded_and_says_how_it_was_trained(dataset, tmp_path):
    result = train(
        dataset, tmp_path / "m.safetensors", network=SMALL, recipe=QUICK,
        labels=LabelRule(names=("ground", "square")), pixel_size_um=0.25,
    )  # fmt: skip
    description = read_description(result.model)
    assert [item.name for item in description.classes] == ["ground", "square"]
    assert description.pixel_size_um == 0.25
    assert description.training["recipe"]["steps"] == 2
    assert description.training["kept"] == result.best
    assert 0 < description.normalisation.mean[0] < 1
    model = load_model(result.model)
    size = model.geometry.input_size(16)
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, size, size)).shape[1] == 2
    assert {path.name for path in result.folder.iterdir()} >= {
        "checkpoint.pt", "log.csv", "curve.png", "preview.png",
    }  # fmt: skip


def test_same_seed_writes_the_same_file(dataset, tmp_path):
    one, two = (
        train(dataset, tmp_path / name / "m.safetensors", network=SMALL, recipe=QUICK)
        for name in ("one", "two")
    )
    assert one.model.read_bytes() == two.model.read_bytes()
    other = train(dataset, tmp_path / "m.safetensors", network=SMALL, recipe=replace(QUICK, seed=1))
    assert other.model.read_bytes() != one.model.read_bytes()


def test_training_can_start_from_another_model(dataset, tmp_path):
    first = train(dataset, tmp_path / "a.safetensors", network=SMALL, recipe=QUICK)
    still = replace(QUICK, learning_rate=1e-30)
    second = train(
        dataset, tmp_path / "b.safetensors", network=SMALL, recipe=still, start=first.model
    )
    one, two = load_model(first.model).state_dict(), load_model(second.model).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    origin = read_description(second.model).training["start"]
    assert origin["recipe"]["learning_rate"] is None
    with pytest.raises(OptionError, match="of another kind; it has base_channels 2"):
        train(
            dataset, tmp_path / "c.safetensors", recipe=QUICK, start=first.model,
            network=replace(SMALL, base_channels=3),
        )  # fmt: skip


def test_validation_can_be_another_data_set(dataset, tmp_path):
    result = train(
        dataset, tmp_path / "m.safetensors", network=SMALL, recipe=QUICK,
        validation=Validation(str(dataset)), sampling=Sampling(emphasis={"a": 2}),
    )  # fmt: skip
    assert len(read_description(result.model).training["validation_pictures"]) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"output": "m.pt"}, OptionError, "NAME.safetensors"),
        ({"recipe": replace(QUICK, tile=15)}, OptionError, "15 .* multiple of 2, .* 14 or 16"),
        ({"device": "tpu5"}, OptionError, "'tpu5' is no device"),
        ({"validation": Validation("z*")}, OptionError, "takes 0 of 4"),
        ({"sampling": Sampling(emphasis={"he": 3})}, OptionError, "no group 'he' .* are a, b"),
    ],
)
def test_options_that_cannot_work_are_refused(dataset, tmp_path, options, error, message):
    output = tmp_path / options.pop("output", "m.safetensors")
    with pytest.raises(error, match=message):
        train(dataset, output, **{"network": SMALL, "recipe": QUICK, **options})
    assert not output.exists()


def test_existing_model_is_not_replaced_unasked(dataset, tmp_path):
    output = tmp_path / "m.safetensors"
    output.write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        train(dataset, output, network=SMALL, recipe=QUICK)
    assert output.read_text() == "precious"
    train(dataset, output, network=SMALL, recipe=QUICK, overwrite=True)


ARGUMENTS = ["--base-channels", "2", "--depth", "1", "--tile", "16", "--steps", "2"]


def test_command_prints_one_json_object_and_resumes(dataset, tmp_path):
    output = tmp_path / "m.safetensors"
    arguments = [str(dataset), "--output", str(output), *ARGUMENTS, "--json"]
    first = CliRunner().invoke(command, arguments, catch_exceptions=False)
    content = json.loads(first.stdout)
    assert content["model"] == str(output)
    assert content["classes"] == ["background", "class 1"]
    assert content["steps"] == 2
    assert 0 <= content["best"]["pixel_error"] <= 1
    again = CliRunner().invoke(command, [*arguments, "--resume"], catch_exceptions=False)
    assert json.loads(again.stdout) == content


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--ignore", "grey"], "neither a number nor #rrggbb"),
        (["--emphasis", "he"], "not GROUP=FACTOR"),
        (["--optimiser", "magic"], "not one of"),
    ],
)
def test_command_refuses_what_it_cannot_understand(dataset, tmp_path, option, message):
    output = str(tmp_path / "m.safetensors")
    result = CliRunner().invoke(command, [str(dataset), "--output", output, *option])
    assert result.exit_code == 2
    assert message in result.output


def test_help_shows_examples_without_loading_torch():
    code = (
        "import sys; sys.argv = ['train', '--help']\n"
        "from tilesegment_cli.train import train\n"
        "try: train()\n"
        "except SystemExit: assert 'torch' not in sys.modules and 'dask' not in sys.modules\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tilesegment train cells --output cells.safetensors" in shown.stdout
