"""The digest of a checkpoint's content: every tensor and every plain value, types and order too."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import torch
import xxhash
from torch import Tensor

__all__ = ["content_digest"]


def content_digest(content: Mapping[str, Any]) -> str:
    """Computes the xxh3_128 of nested mappings, lists and tuples of tensors and plain values.

    Each value is preceded by its type and its length, so that different contents never give the
    same bytes. Tensors count with dtype, shape and values, wherever they lie in memory.

    Args:
        content: Values of type dict, list, tuple, str, bytes, int, float, bool, None and Tensor.

    Returns:
        32 hex digits.

    Raises:
        TypeError: There is a value of another type.
        ValueError: A tensor claims more values than it has memory for.
    """
    digest = xxhash.xxh3_128()
    _add(digest, content)
    return str(digest.hexdigest())


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        _add_tensor(digest, value)
    elif isinstance(value, Mapping):
        digest.update(f"dict {len(value)}:".encode())
        for key, inner in value.items():
            _add(digest, key)
            _add(digest, inner)
    elif isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        digest.update(f"{kind} {len(value)}:".encode())
        for inner in value:
            _add(digest, inner)
    else:
        kind, data = _plain_bytes(value)
        digest.update(f"{kind} {len(data)}:".encode())
        digest.update(data)


def _plain_bytes(value: Any) -> tuple[str, bytes]:
    """The type of a plain value and its bytes."""
    if value is None:
        return "none", b""
    if isinstance(value, bool):  # before int, which it is as well
        return "bool", bytes([value])
    if isinstance(value, int):
        return "int", f"{value:x}".encode()  # hexadecimal: of any length, and fast
    if isinstance(value, float):
        return "float", struct.pack("<d", value)
    if isinstance(value, str):
        return "str", value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return "bytes", value
    raise TypeError(f"a value of type {type(value).__name__}")


def _add_tensor(digest: Any, tensor: Tensor) -> None:
    num_bytes = math.prod(tensor.shape) * tensor.element_size()
    if num_bytes > tensor.untyped_storage().nbytes():
        raise ValueError("a tensor has more values than memory")
    digest.update(f"tensor {tensor.dtype} {tuple(tensor.shape)} {num_bytes}:".encode())
    values = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(values.view(torch.uint8).numpy())
