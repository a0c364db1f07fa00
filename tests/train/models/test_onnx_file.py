"""The graph of an ONNX file computes what its networks compute."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from brats_cache.common.errors import CheckpointError
from brats_cache.imaging.preprocess import Preparation
from brats_train.inference.ensemble import average, make_ensemble
from brats_train.models.checkpoint import SegmenterSpec
from brats_train.models.description import Description
from brats_train.models.loaded_model import LoadedModel
from brats_train.models.network import ModelConfig, build_model
from brats_train.models.onnx_file import _OnnxNetwork, make_onnx, parse_onnx
from tests.commands import SMALL_ENCODER

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


SPEC = SegmenterSpec(
    model=ModelConfig(in_channels=2, classes=1, encoder=SMALL_ENCODER, num_labels=3),
    regions=("wt",),
    preparation=Preparation(modalities=("t1", "t2"), size=32),
    label_scheme="brats2017",
    weights_from="none",
    labels=("a", "b", "c"),
)


@pytest.mark.parametrize(
    "run",
    [
        Mock(side_effect=RuntimeError("Got invalid dimensions")),
        Mock(return_value=[np.zeros((5, 1, 32, 32))]),
        Mock(return_value=[np.zeros((5, 3, 32, 32)), np.zeros((5, 3))]),
        Mock(return_value=[np.zeros((5, 1, 32, 32)), [1, 2]]),
    ],
)
def test_a_graph_that_is_another_than_described_is_one_message(run: Mock) -> None:
    network = _OnnxNetwork(Mock(run=run), SPEC, Path("model.onnx"))
    with pytest.raises(CheckpointError, match=r"model\.onnx: its graph is not what"):
        network(torch.zeros(5, 2, 32, 32))


@pytest.mark.slow
def test_labels_of_cases_are_averaged_as_masks_are() -> None:
    path, cpu = Path("model.onnx"), torch.device("cpu")
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        network = build_model(SPEC.model).eval()
        models.append(LoadedModel(spec=SPEC, network=network, path=path, fingerprint=f"{seed:016}"))
    exported = parse_onnx(make_onnx(models, Description.of(models, {})), path)
    assert exported.spec.labels == SPEC.labels
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
