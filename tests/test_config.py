"""What the options say of each other."""

from tilesegment.config import ClusterOptions, SlurmOptions


def test_tiles_are_for_gpus_where_every_worker_has_one() -> None:
    assert ClusterOptions("gpu").on_gpus
    assert ClusterOptions("slurm", slurm=SlurmOptions(gpus=2)).on_gpus
    assert not ClusterOptions("slurm").on_gpus
    assert not ClusterOptions("gpu", mixed_devices=True).on_gpus
    assert not ClusterOptions("tls://head:8786", slurm=SlurmOptions(gpus=2)).on_gpus
