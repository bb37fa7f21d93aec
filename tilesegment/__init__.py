"""Segment images of any size, tile by tile, exactly as one forward pass would.

The public words are loaded when first used, so that ``import tilesegment`` costs neither
torch nor dask.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ClusterOptions": "tilesegment.config",
    "LabelClass": "tilesegment.model.file",
    "Normalisation": "tilesegment.model.file",
    "RunOptions": "tilesegment.config",
    "UNet": "tilesegment.model.unet",
    "import_image": "tilesegment.storage.importing",
    "load_model": "tilesegment.model.file",
    "open_image": "tilesegment.storage.image",
    "plan": "tilesegment.usecases.segment",
    "save_model": "tilesegment.model.file",
    "segment": "tilesegment.usecases.segment",
    "train": "tilesegment.usecases.train",
    "verify": "tilesegment.usecases.verify",
}

__all__ = [
    "ClusterOptions",
    "LabelClass",
    "Normalisation",
    "RunOptions",
    "UNet",
    "__version__",
    "import_image",
    "load_model",
    "open_image",
    "plan",
    "save_model",
    "segment",
    "train",
    "verify",
]

if TYPE_CHECKING:
    from tilesegment.config import ClusterOptions, RunOptions
    from tilesegment.model.file import (
        LabelClass,
        Normalisation,
        load_model,
        save_model,
    )
    from tilesegment.model.unet import UNet
    from tilesegment.storage.image import open_image
    from tilesegment.storage.importing import import_image
    from tilesegment.usecases.segment import plan, segment
    from tilesegment.usecases.train import train
    from tilesegment.usecases.verify import verify


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tilesegment' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
