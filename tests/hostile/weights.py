"""Encoder weights from a file: .pth and .safetensors."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from brats_train.models.pretrained import load_encoder_weights
from tests.hostile.mutations import Files, choose, spoil_bytes, spoil_json
from tests.hostile.torch_files import spoil_archive, spoil_tensors


def _network() -> nn.Module:
    encoder = nn.Sequential(nn.Conv2d(4, 3, 3, bias=False), nn.BatchNorm2d(3))
    return nn.ModuleDict({"encoder": encoder})


def _state() -> dict[str, Tensor]:
    """Weights of RGB for it, as files of ImageNet weights have them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = _network().get_submodule("encoder").state_dict()
        return {**state, "0.weight": torch.randn(3, 3, 3, 3), "fc.weight": torch.ones(2, 3)}


def make(rng: np.random.Generator) -> Files:
    """A file of weights."""
    state: Any = _state()
    if rng.random() < 0.6:
        state = spoil_tensors(state, rng)
    if rng.random() < 0.5:
        return {"weights.safetensors": _safetensors(state, rng)}
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=rng.random() < 0.8)
    content = file.getvalue()
    return {"weights.pth": spoil_archive(content, rng) if rng.random() < 0.6 else content}


def _safetensors(state: Any, rng: np.random.Generator) -> bytes:
    """A file whose header says other things of its tensors, or is none."""
    try:
        content = save(state)
    except Exception:  # what its writer refuses
        content = save(_state())
    (size,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    way = rng.random()
    if way < 0.3:
        return content
    if way < 0.7:
        text = spoil_json(header, rng)
        size = (
            len(text) if rng.random() < 0.9 else int(choose(rng, (0, 1, 2**31, 2**63, 2**64 - 1)))
        )
        return struct.pack("<Q", size) + text + data
    return spoil_bytes(content, rng)


def read(folder: Path) -> None:
    """Fills an encoder."""
    (path,) = folder.iterdir()
    load_encoder_weights(_network(), "resnet18", str(path))
