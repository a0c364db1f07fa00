"""The graph of an ONNX file computes what its networks compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from brats_cache.imaging.preprocess import Preparation
from brats_train.inference.ensemble import average, make_ensemble
from brats_train.models.checkpoint import SegmenterSpec
from brats_train.models.description import Description
from brats_train.models.loaded_model import LoadedModel
from brats_train.models.network import ModelConfig, build_model
from brats_train.models.onnx_file import make_onnx, parse_onnx

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.slow
def test_labels_of_cases_are_averaged_as_masks_are() -> None:
    spec = SegmenterSpec(
        model=ModelConfig(in_channels=2, classes=1, encoder="resnet18", num_labels=3),
        regions=("wt",),
        preparation=Preparation(modalities=("t1", "t2"), size=32),
        label_scheme="brats2017",
        weights_from="none",
        labels=("a", "b", "c"),
    )
    path, cpu = Path("model.onnx"), torch.device("cpu")
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        network = build_model(spec.model).eval()
        models.append(LoadedModel(spec=spec, network=network, path=path, fingerprint=f"{seed:016}"))
    exported = parse_onnx(make_onnx(models, Description.of(models, {})), path)
    assert exported.spec.labels == spec.labels
    images = np.random.default_rng(0).standard_normal((5, 2, 32, 32)).astype(np.float16)
    expected, found = (
        one.predict(images, np.arange(5))
        for one in (
            average([make_ensemble(model, cpu, "off") for model in models]),
            make_ensemble(exported, cpu, "off"),
        )
    )
    assert found.labels.shape == (5, 3)
    assert torch.allclose(found.labels, expected.labels, atol=1e-4)
    assert torch.allclose(found.masks, expected.masks, atol=1e-4)
