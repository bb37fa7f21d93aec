from dataclasses import replace

import numpy as np
import pytest
import torch

from tilesegment.errors import OptionError
from tilesegment.model.file import Normalisation
from tilesegment.model.unet import UNet
from tilesegment.training.assess import Predictor, assess
from tilesegment.training.augment import NO_AUGMENTATION, Augmentation
from tilesegment.training.dataset import LabelRule, Split, load_folder
from tilesegment.training.loop import Lesson, Recipe, learn
from tilesegment.training.loss import weighted_cross_entropy
from tilesegment.training.weight_map import BorderWeight

CPU = torch.device("cpu")
QUICK = Recipe(steps=4, tile=32, assess_every=2, seed=3)


@pytest.fixture
def lesson(discs):
    return make_lesson(load_folder(discs, LabelRule(), BorderWeight()).pictures)


def make_lesson(pictures):
    training = pictures[:4]
    shares = np.full(len(training), 1 / len(training))
    split = Split(training, pictures[4:] or pictures)
    balanced = np.ones(2, np.float32)
    return Lesson(split, shares, balanced, Normalisation((0.4,), (0.2,)), 1.0, lambda name: "all")


def network(seed=0, **options):
    torch.manual_seed(seed)
    return UNet(1, 2, **{"base_channels": 4, "depth": 1, "dropout": 0.3, **options})


def weights(model):
    return torch.cat([tensor.flatten().float() for tensor in model.state_dict().values()])


# "In total the network has 23 convolutional layers." (section 2)
def test_gradients_reach_all_23_convolutions():
    model = network(base_channels=4, depth=4, dropout=0.0)
    size = model.geometry.input_size(16)
    tile = slice(model.geometry.crop, -model.geometry.crop)
    logits = model(torch.randn(1, 1, size, size))[..., tile, tile]
    classes = torch.randint(0, 2, (1, 16, 16))
    weighted_cross_entropy(logits, classes, torch.ones(1, 16, 16), torch.ones(2)).backward()
    kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    assert len(layers) == 23
    assert all(layer.weight.grad.abs().sum() > 0 for layer in layers)


def test_one_picture_is_learnt_to_below_one_percent(lesson, tmp_path):
    (picture,) = lesson.split.training[:1]
    alone = make_lesson((picture,))
    model = network(base_channels=8, depth=2, dropout=0.0, batch_norm=True)
    recipe = Recipe(
        steps=120, tile=48, assess_every=120, optimiser="adamw", learning_rate=0.01,
        schedule="cosine",
    )  # fmt: skip
    history = learn(model, alone, recipe, NO_AUGMENTATION, tmp_path, CPU)
    assert history[-1]["pixel_error"] < 0.01
    shown = Predictor(model, alone.normalisation, 64, CPU)
    assert assess(shown, [picture], lambda name: "all").pixel_error < 0.01


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_resumed_run_is_the_uninterrupted_one_to_the_bit(lesson, tmp_path, optimiser):
    recipe = replace(QUICK, optimiser=optimiser, schedule="cosine", batch=2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    first = network(batch_norm=True)
    history = learn(first, lesson, recipe, Augmentation(), whole, CPU)

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(network(batch_norm=True), lesson, recipe, Augmentation(), parts, CPU, report=stop)
    torch.manual_seed(99)
    second = network(seed=7, batch_norm=True)
    resumed = learn(second, lesson, recipe, Augmentation(), parts, CPU, resume=True)
    assert resumed == history
    assert torch.equal(weights(first), weights(second))
    last = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (whole, parts)]
    for name, tensor in last[0]["model"].items():
        assert torch.equal(tensor, last[1]["model"][name]), name


def test_another_seed_is_another_run(lesson, tmp_path):
    one = learn(network(), lesson, QUICK, Augmentation(), tmp_path, CPU)
    other = learn(network(), lesson, replace(QUICK, seed=4), Augmentation(), tmp_path, CPU)
    assert one[-1]["training_loss"] != other[-1]["training_loss"]


def test_training_leaves_the_global_generator_alone(lesson, tmp_path):
    model = network()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    learn(model, lesson, QUICK, Augmentation(), tmp_path, CPU)
    assert torch.equal(torch.rand(3), expected)


def test_run_stops_when_patience_ends_and_keeps_the_best(lesson, tmp_path):
    kept = []
    recipe = replace(QUICK, steps=50, assess_every=1, patience=3, learning_rate=1e-12)
    history = learn(
        network(), lesson, recipe, Augmentation(), tmp_path, CPU,
        on_best=lambda model, row: kept.append(row),
    )  # fmt: skip
    assert len(history) < 50
    scores = [row["score"] for row in history]
    assert len(scores) - 1 - scores.index(max(scores)) == 3
    assert kept[-1]["score"] == max(scores)


def test_loss_that_is_not_finite_stops_and_leaves_the_last_good_checkpoint(lesson, tmp_path):
    model = network()

    def poison(progress):
        if progress.step == 3:
            with torch.no_grad():
                model.head.weight.fill_(float("nan"))

    with pytest.raises(OptionError, match=r"became nan at step 3 .*checkpoint.pt.*learning-rate"):
        learn(model, lesson, QUICK, Augmentation(), tmp_path, CPU, report=poison)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint["model"].values())


def test_network_ends_with_its_best_weights(lesson, tmp_path):
    best = []
    model = network()
    learn(
        model, lesson, replace(QUICK, learning_rate=0.05), Augmentation(), tmp_path, CPU,
        on_best=lambda network, row: best.append(weights(network).clone()),
    )  # fmt: skip
    assert torch.equal(weights(model), best[-1])
    assert not model.training


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_batch_normalisation_keeps_its_statistics_after_its_share_of_the_steps(
    lesson, tmp_path, share
):
    def statistics():
        return [buffer.clone() for name, buffer in model.named_buffers() if "running" in name]

    seen = []
    model = network(batch_norm=True)
    before = statistics()
    learn(
        model, lesson, replace(QUICK, batch_statistics=share), Augmentation(), tmp_path, CPU,
        report=lambda progress: seen.append(statistics()),
    )  # fmt: skip
    changed = [
        not all(map(torch.equal, one, two)) for one, two in zip([before, *seen], seen, strict=False)
    ]
    assert changed == [step < share * 4 for step in range(4)]


# "we use a high momentum (0.99)" (section 3), "reduce the batch to a single image"
def test_default_recipe_is_the_papers():
    recipe = Recipe()
    assert (recipe.optimiser, recipe.momentum, recipe.batch) == ("sgd", 0.99, 1)
    assert recipe.rate_at(0) == recipe.rate_at(9999) == recipe.peak_rate


def test_cosine_schedule_rises_and_falls_to_zero():
    recipe = Recipe(steps=200, schedule="cosine", learning_rate=2.0)
    rates = [recipe.rate_at(step) for step in range(200)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[10] == 2.0
    assert rates[105] == pytest.approx(1.0)
    assert 0 < rates[-1] < 0.001
