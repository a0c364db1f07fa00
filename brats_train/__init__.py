"""Training on a cache that `brats_cache` made: models, evaluation, prediction, figures.

The public names below are imported when they are first used, so that `import brats_train` needs no
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brats_train.data.dataset import BratsSlices
    from brats_train.inference.segmenter import Segmentation, Segmenter, load_model

__all__ = ["BratsSlices", "Segmentation", "Segmenter", "load_model"]

_MODULES = {
    "BratsSlices": "brats_train.data.dataset",
    "Segmentation": "brats_train.inference.segmenter",
    "Segmenter": "brats_train.inference.segmenter",
    "load_model": "brats_train.inference.segmenter",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
