"""Image, labels and ledger in an object store: the same labels, whatever the store does."""

from pathlib import Path

import numpy as np
import pytest
import zarr

import tilesegment as ts
from tests.pictures import random_pixels, write_image
from tests.usecases.test_segment import MakeModel
from tilesegment.config import ClusterOptions, RunOptions
from tilesegment.storage.buckets import put
from tilesegment.storage.remote import RemotePath, zarr_store

OPTIONS = RunOptions(tile=32, precision="float32")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """Four by three tiles of 32 px, each a chunk of its own."""
    pixels = random_pixels((3, 120, 90), "uint8")
    return write_image(tmp_path / "i.zarr", pixels, chunks=(3, 32, 32), levels=2)


@pytest.fixture
def image(local: Path, bucket: RemotePath) -> RemotePath:
    """The same in the object store."""
    return upload(local, bucket / "i.zarr")


def upload(source: Path, target: RemotePath) -> RemotePath:
    for file in source.rglob("*"):
        if file.is_file():
            put(target / file.relative_to(source).as_posix(), file.read_bytes())
    return target


def levels(labels: Path | RemotePath) -> list[np.ndarray]:
    """The pixels of all levels, as any reader finds them."""
    group = zarr.open_group(zarr_store(labels), mode="r")
    datasets = dict(group.attrs)["ome"]["multiscales"][0]["datasets"]
    return [group[item["path"]][...] for item in datasets]


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_labels_in_a_bucket_are_those_on_a_disk(
    local: Path, image: RemotePath, make_model: MakeModel, s3_worker: str
) -> None:
    model, cluster = make_model(), ClusterOptions(s3_worker)
    ts.segment(local, model, options=OPTIONS, cluster=cluster)
    planned = ts.plan(str(image), model, OPTIONS)
    summary = ts.segment(str(image), model, options=OPTIONS, cluster=cluster, verify=2)
    assert (summary.status, summary.computed, summary.verified) == ("done", 12, 2)
    assert len(planned.grid) == 12
    assert summary.labels == str(image / "labels" / "model")
    labels = image / "labels" / "model"
    assert equal(levels(labels), levels(local / "labels" / "model"))
    assert ts.open_image(str(image)).label_names() == ["model"]
    assert not [item for item in labels.objects() if "/.tilesegment/tiles" in str(item.path)]
    again = ts.segment(str(image), model, options=OPTIONS, cluster=cluster)
    assert again.status == "already complete"
    assert ts.verify(str(image), "model", windows=2, deep=True, cluster=cluster).passed
