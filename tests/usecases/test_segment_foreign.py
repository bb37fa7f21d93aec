"""Runs with networks that tilesegment did not write, zarr to zarr."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from safetensors.torch import save_file

import tilesegment as ts
from tests.foreign import small_unet, write_bioimageio, write_onnx
from tests.pictures import random_pixels, whole_pass, write_image
from tilesegment.config import ClusterOptions, ForeignOptions, RunOptions
from tilesegment.errors import OptionError, OutputConflictError
from tilesegment.model.opening import Model, open_model
from tilesegment.model.predictor import Predictor
from tilesegment.usecases.statistics import with_statistics
from tilesegment.usecases.workers import Progress

LOGITS = ForeignOptions(threshold=0)


@pytest.fixture(autouse=True)
def known_geometry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring is tested elsewhere, and slow."""
    monkeypatch.setattr(
        "tilesegment.model.foreign.describing.find_geometry", lambda *_: small_unet().geometry
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(
        tmp_path / "i.zarr", random_pixels((110, 90), "uint16"), "yx", chunks=(40, 30)
    )


def labels(image: Path, name: str) -> np.ndarray:
    return zarr.open_array(image / "labels" / name / "0", mode="r")[...]


def whole(model: Model, image: Path) -> np.ndarray:
    """One pass over the whole image."""
    plane = zarr.open_array(image / "0", mode="r")[...][None]
    predictor = Predictor(model.content, model.description, plane.dtype, "float32", "cpu")
    return whole_pass(predictor, plane, "labels")


def test_statistics_of_the_whole_image_are_stored_and_reused(
    image: Path, two_workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No tile is normalised by itself; a resumed run does not read the image again."""
    monkeypatch.setattr("tilesegment.execution.engine._SUMMARISED_BLOCK", 37)
    folder = write_bioimageio(tmp_path / "cells", small_unet(), 64)
    phases: list[str] = []

    def stop_at_5(progress: Progress) -> None:
        phases.append(progress.phase)
        if progress.phase == "tiles" and progress.done == 5:
            raise KeyboardInterrupt

    options, cluster = RunOptions(tile=32), ClusterOptions(two_workers)
    assert ts.plan(image, folder, options).network.statistics
    with pytest.raises(KeyboardInterrupt):
        ts.segment(image, folder, options=options, cluster=cluster, report=stop_at_5)
    assert phases.count("statistics") == 3 * 3
    again: list[str] = []
    summary = ts.segment(
        image, folder, options=options, cluster=cluster,
        report=lambda progress: again.append(progress.phase),
    )  # fmt: skip
    assert (summary.skipped, "statistics" in again) == (5, False)
    stored = zarr.open_group(image / "labels" / "cells").attrs["tilesegment"]["fingerprint"]
    pixels = zarr.open_array(image / "0", mode="r")[...].astype(float)
    assert stored["statistics"] == [
        {"centre": [pixels.mean()], "spread": [pytest.approx(pixels.std() + 1e-6)]}
    ]
    model = with_statistics(open_model(folder), stored["statistics"])
    np.testing.assert_array_equal(labels(image, "cells"), whole(model, image))
    assert ts.segment(image, folder, cluster=cluster).status == "already complete"


def test_a_fixed_input_decides_the_tile(image: Path, one_worker: str, tmp_path: Path) -> None:
    network = small_unet(1, 3)
    path = write_onnx(network, tmp_path / "m.onnx", size=64, channels=1, fixed=True)
    tile = 64 - 2 * network.geometry.halo
    assert ts.plan(image, path).tile == tile
    with pytest.raises(OptionError, match=f"so the tile is {tile}, not 32; leave out --tile"):
        ts.plan(image, path, RunOptions(tile=32))
    cluster = ClusterOptions(one_worker)
    ts.segment(image, path, cluster=cluster)
    free = write_onnx(network, tmp_path / "f.onnx", size=64, channels=1, fixed=False)
    np.testing.assert_array_equal(labels(image, "m"), whole(open_model(free), image))


def test_a_factory_runs_on_the_workers(image: Path, two_workers: str, tmp_path: Path) -> None:
    save_file(small_unet().state_dict(), tmp_path / "w.safetensors")
    foreign = ForeignOptions(
        weights=str(tmp_path / "w.safetensors"), threshold=0, normalise="min-max"
    )
    name = "tests.foreign:small_unet"
    cluster = ClusterOptions(two_workers)
    ts.segment(image, name, options=RunOptions(tile=32), cluster=cluster, foreign=foreign)
    attributes = zarr.open_group(image / "labels" / "small_unet").attrs["tilesegment"]
    model = with_statistics(open_model(name, foreign), attributes["fingerprint"]["statistics"])
    np.testing.assert_array_equal(labels(image, "small_unet"), whole(model, image))


def test_another_meaning_of_the_output_is_another_run(
    image: Path, one_worker: str, tmp_path: Path
) -> None:
    path = write_onnx(small_unet(), tmp_path / "m.onnx", size=64, channels=1, fixed=False)
    cluster = ClusterOptions(one_worker)
    ts.segment(image, path, cluster=cluster, foreign=LOGITS)
    with pytest.raises(OutputConflictError, match="threshold: 0.* there, 0.5 now"):
        ts.segment(image, path, cluster=cluster, foreign=ForeignOptions(threshold=0.5))


def test_narrow_precision_is_refused(image: Path, one_worker: str, tmp_path: Path) -> None:
    path = write_onnx(small_unet(), tmp_path / "m.onnx", size=64, channels=1, fixed=False)
    options = RunOptions(precision="bfloat16")
    with pytest.raises(OptionError, match="--precision bfloat16 is for tilesegment's own"):
        ts.segment(image, path, options=options, cluster=ClusterOptions(one_worker), foreign=LOGITS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_the_third_party_model_on_a_picture_of_several_tiles(
    kind: str, two_workers: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files give the labels of one pass of the TorchScript over the whole picture."""
    from PIL import Image

    from tests.foreign import sha256

    monkeypatch.undo()
    with Image.open(shared_data / "retina.jpg") as picture:
        pixels = np.asarray(picture.convert("L"))[:700, :760]
    image = write_image(tmp_path / "i.zarr", pixels, "yx", chunks=(256, 256))
    folder = shared_data / "models" / "unet2d_nuclei_broad"
    trusted = ForeignOptions(trust=f"sha256:{sha256(folder / 'weights.pt')}")
    foreign = trusted if kind == "torchscript" else ForeignOptions()
    options = RunOptions(tile=256 if kind == "torchscript" else None)
    cluster = ClusterOptions(two_workers)
    ts.segment(image, folder, labels="l", options=options, cluster=cluster, foreign=foreign)
    stored = zarr.open_group(image / "labels" / "l").attrs["tilesegment"]["fingerprint"]
    model = with_statistics(open_model(folder, trusted), stored["statistics"])
    np.testing.assert_array_equal(labels(image, "l"), whole(model, image))
