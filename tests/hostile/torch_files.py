"""Ways to spoil what torch.save writes: its values, and the archive around them."""

from __future__ import annotations

import copy
import io
import zipfile
from typing import Any

import numpy as np
import torch

from tests.hostile.mutations import choose, spoil_bytes, spoil_value

_OPCODES = (
    b"cos\nsystem\n(S'true'\ntR", b"\x8c\x02os\x8c\x06system\x93", b"cbuiltins\neval\n",
    b"ctorch\nload\n", b"ctorch.nn.modules.container\nSequential\n", b"\x8b\xff\xff\xff\x7f",
    b"\x8a\xff" + b"\xff" * 255, b"(" * 10_000, b"]" * 10_000, b"\x85" * 10_000, b"h\xff", b"0",
    b"R", b"Q", b"b", b"s", b"u", b".", b"I99999999999999999999\n", b"X\xff\xff\xff\x7f",
    b"\x8d" + b"\xff" * 8,
    b"ccollections\nOrderedDict\n", b"\x80\xff", b"]q\x00h\x00a", b"}q\x00h\x00h\x00s",
)  # fmt: skip
_SHAPES = ((), (0,), (1,), (3,), (1, 3, 3, 3), (3, 3, 3, 3), (3, 4, 3, 3), (4, 3), (2**16,))


def spoil_tensors(content: Any, rng: np.random.Generator) -> Any:
    """A copy of nested dicts and lists in which values, or one tensor, are others."""
    if rng.random() < 0.5:
        return spoil_value(content, rng)
    changed = copy.deepcopy(content)
    places = list(_tensors(changed))
    if places:
        owner, key = choose(rng, places)
        owner[key] = _other_tensor(owner[key], rng)
    return changed


def spoil_archive(content: bytes, rng: np.random.Generator) -> bytes:
    """Other bytes; or an archive with right checksums whose pickle or records are others."""
    if rng.random() < 0.3 or not zipfile.is_zipfile(io.BytesIO(content)):
        return spoil_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in records if name.endswith("data.pkl"))
    names = [pickled] if rng.random() < 0.6 else list(records)
    name, way = choose(rng, names), rng.random()
    if name == pickled and way < 0.5:
        place = int(rng.integers(2, len(records[name])))
        end = place + int(rng.integers(0, 3))
        records[name] = records[name][:place] + choose(rng, _OPCODES) + records[name][end:]
    elif way < 0.75:
        records[name] = spoil_bytes(records[name], rng)
    elif way < 0.8:
        del records[name]
    elif way < 0.85:
        records[choose(rng, ("../../x", "/x", "archive/../../x", "x" * 60_000))] = records[name]
    elif way < 0.9:
        records[name] = bytes(int(choose(rng, (0, 1, 1 << 20, 3 << 30 if way < 0.852 else 9))))
    else:
        records = {name.replace("archive/", choose(rng, ("", "a/b/", "é/"))): content
                   for name, content in records.items()}  # fmt: skip
    packing = zipfile.ZIP_DEFLATED if rng.random() < 0.3 else zipfile.ZIP_STORED
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing, compresslevel=1) as archive:
        for name, record in records.items():
            archive.writestr(name, record)
    return file.getvalue()


def _tensors(value: Any) -> Any:
    """Owner and key of every tensor in nested dicts and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        if isinstance(inner, torch.Tensor):
            yield value, key
        elif isinstance(inner, dict | list):
            yield from _tensors(inner)


def _other_tensor(tensor: torch.Tensor, rng: np.random.Generator) -> Any:
    way = int(rng.integers(12))
    if way == 0:
        return tensor.reshape(-1)
    if way == 1:
        return torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor - 1
    if way == 2:
        kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8)
        return tensor.to(choose(rng, (*kinds, torch.complex64, torch.float8_e4m3fn)))
    if way == 3:
        return torch.zeros(1).expand(choose(rng, ((2**20, 2**20), (2**40,), tuple(tensor.shape))))
    if way == 4:
        return torch.empty(choose(rng, ((2**40,), tuple(tensor.shape))), device="meta")
    if way == 5:
        return tensor.to_sparse() if tensor.ndim else tensor
    if way == 6:
        return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8)
    if way == 7:
        return torch.nn.Parameter(tensor.float())
    if way == 8:
        return tensor.t() if tensor.ndim == 2 else tensor.unsqueeze(0)
    if way == 9:
        return torch.zeros(0)
    if way == 10:
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    return torch.zeros(choose(rng, _SHAPES))
