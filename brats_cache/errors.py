"""The errors that the functions of both packages raise, under the name that programs catch them by.

`brats_cache.common.errors` holds them together with what prints them.
"""

from __future__ import annotations

from brats_cache.common.errors import (
    BratsError,
    CacheCorruptError,
    CacheNotFoundError,
    CheckpointError,
    DataFaults,
    Fault,
    LabelSchemeError,
    RecipeError,
    RunNotFoundError,
)

__all__ = [
    "BratsError",
    "CacheCorruptError",
    "CacheNotFoundError",
    "CheckpointError",
    "DataFaults",
    "Fault",
    "LabelSchemeError",
    "RecipeError",
    "RunNotFoundError",
]
