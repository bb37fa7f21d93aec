"""Segment images of any size, tile by tile, exactly as one forward pass would.

The public words are loaded when first used, so that ``import tilesegment`` costs neither
torch nor dask.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Augmentation": "tilesegment.training.augment",
    "BorderWeight": "tilesegment.training.weight_map",
    "Cleaning": "tilesegment.cleaning",
    "ClusterOptions": "tilesegment.config",
    "EvaluateOptions": "tilesegment.usecases.evaluate",
    "ForeignOptions": "tilesegment.config",
    "LabelClass": "tilesegment.model.file",
    "LabelRule": "tilesegment.training.dataset",
    "NetworkChoice": "tilesegment.usecases.train",
    "Normalisation": "tilesegment.model.file",
    "ObjectFiles": "tilesegment.usecases.objects",
    "Partition": "tilesegment.partition",
    "PolygonOptions": "tilesegment.storage.exporting",
    "Recipe": "tilesegment.training.loop",
    "RunOptions": "tilesegment.config",
    "Sampling": "tilesegment.usecases.train",
    "Segmentation": "tilesegment.usecases.label_sources",
    "SlurmOptions": "tilesegment.config",
    "KubernetesOptions": "tilesegment.config",
    "Split": "tilesegment.splitting",
    "UNet": "tilesegment.model.unet",
    "Validation": "tilesegment.usecases.train",
    "WorkerRange": "tilesegment.config",
    "calibrate": "tilesegment.usecases.calibrate",
    "check": "tilesegment.usecases.check",
    "clean": "tilesegment.usecases.clean",
    "evaluate": "tilesegment.usecases.evaluate",
    "export_labels": "tilesegment.storage.exporting",
    "import_image": "tilesegment.storage.importing",
    "load_model": "tilesegment.model.file",
    "objects": "tilesegment.usecases.objects",
    "open_image": "tilesegment.storage.image",
    "plan": "tilesegment.usecases.plan",
    "repair": "tilesegment.usecases.repair",
    "save_model": "tilesegment.model.file",
    "segment": "tilesegment.usecases.segment",
    "segment_many": "tilesegment.usecases.batch",
    "train": "tilesegment.usecases.train",
    "verify": "tilesegment.usecases.verify",
    "write_report": "tilesegment.usecases.report",
}

__all__ = [
    "Augmentation",
    "BorderWeight",
    "Cleaning",
    "ClusterOptions",
    "EvaluateOptions",
    "ForeignOptions",
    "KubernetesOptions",
    "LabelClass",
    "LabelRule",
    "NetworkChoice",
    "Normalisation",
    "ObjectFiles",
    "Partition",
    "PolygonOptions",
    "Recipe",
    "RunOptions",
    "Sampling",
    "Segmentation",
    "SlurmOptions",
    "Split",
    "UNet",
    "Validation",
    "WorkerRange",
    "__version__",
    "calibrate",
    "check",
    "clean",
    "evaluate",
    "export_labels",
    "import_image",
    "load_model",
    "objects",
    "open_image",
    "plan",
    "repair",
    "save_model",
    "segment",
    "segment_many",
    "train",
    "verify",
    "write_report",
]

if TYPE_CHECKING:
    from tilesegment.cleaning import Cleaning
    from tilesegment.config import (
        ClusterOptions,
        ForeignOptions,
        RunOptions,
        SlurmOptions,
        WorkerRange,
    )
    from tilesegment.model.file import LabelClass, Normalisation, load_model, save_model
    from tilesegment.model.unet import UNet
    from tilesegment.partition import Partition
    from tilesegment.splitting import Split
    from tilesegment.storage.exporting import PolygonOptions, export_labels
    from tilesegment.storage.image import open_image
    from tilesegment.storage.importing import import_image
    from tilesegment.training.augment import Augmentation
    from tilesegment.training.dataset import LabelRule
    from tilesegment.training.loop import Recipe
    from tilesegment.training.weight_map import BorderWeight
    from tilesegment.usecases.batch import segment_many
    from tilesegment.usecases.calibrate import calibrate
    from tilesegment.usecases.check import check
    from tilesegment.usecases.clean import clean
    from tilesegment.usecases.evaluate import EvaluateOptions, evaluate
    from tilesegment.usecases.label_sources import Segmentation
    from tilesegment.usecases.objects import ObjectFiles, objects
    from tilesegment.usecases.plan import plan
    from tilesegment.usecases.repair import repair
    from tilesegment.usecases.report import write_report
    from tilesegment.usecases.segment import segment
    from tilesegment.usecases.train import NetworkChoice, Sampling, Validation, train
    from tilesegment.usecases.verify import verify


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tilesegment' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
