"""best.pt and last.pt: damaged, or with other content and the right digest."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brats_cache.imaging.preprocess import Preparation
from brats_train.inference.ensemble import load_ensemble
from brats_train.models import checkpoint
from brats_train.models.checkpoint import SegmenterSpec
from brats_train.models.network import ModelConfig, build_model
from brats_train.models.postprocessing import Postprocessing, RegionRule
from tests.hostile.mutations import Files, choose
from tests.hostile.torch_files import spoil_archive, spoil_tensors

# The smallest network that smp builds, in a tenth of a second.
MODEL = {"architecture": "Linknet", "encoder": "tu-test_efficientnet"}
SIZE = 32
_SPEC = SegmenterSpec(
    model=ModelConfig(in_channels=4, classes=1, **MODEL),
    regions=("wt",),
    preparation=Preparation(modalities=("t1", "t1ce", "t2", "flair"), size=SIZE),
    label_scheme="brats2017",
    weights_from="none (random initialisation)",
    postprocessing=Postprocessing(rules={"wt": RegionRule(min_component_share=0.3)}),
)


def make(rng: np.random.Generator) -> Files:
    """A checkpoint; mostly of damaged bytes, which are refused before a network is built."""
    if rng.random() < 0.8:
        return {"best.pt": spoil_archive(_whole(), rng)}
    content = _content()
    part = choose(rng, ("segmenter", "segmenter", "model", ""))
    if part:
        content = {**content, part: spoil_tensors(content[part], rng)}
    else:
        content = spoil_tensors(content, rng)
    return {"best.pt": sealed(content)}


def sealed(content: Any) -> bytes:
    """What is saved of a content, with its digest; without one where its values have none."""
    file = io.BytesIO()
    try:
        checkpoint.save(content, file)
    except (TypeError, ValueError, RuntimeError, NotImplementedError, OverflowError):
        # Readers must meet such values too, as torch alone would save them.
        file = io.BytesIO()
        torch.save(content, file)
    return file.getvalue()


@cache
def _content() -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return checkpoint.pack(_SPEC, build_model(_SPEC.model).state_dict(), epoch=1)


@cache
def _whole() -> bytes:
    return sealed(_content())


def read(folder: Path) -> None:
    """Loads the model and predicts two slices."""
    ensemble = load_ensemble([folder / "best.pt"], torch.device("cpu"))
    spec = ensemble.spec
    channels, size = len(spec.preparation.modalities), spec.preparation.size
    if size > 255 or size % 32:  # as no cache for such a network has them
        return
    images = np.zeros((2, channels, size, size), np.float16)
    probabilities = ensemble.probabilities(images, np.array([3, 4]))
    assert probabilities.shape == (2, len(spec.regions), size, size)
    assert spec.postprocessing.describe(spec.regions)
