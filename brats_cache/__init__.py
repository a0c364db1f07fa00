"""Turns BraTS scans into one memory-mappable HDF5 cache. Knows nothing of training.

`build_cache` makes a cache and `open_cache` opens one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brats_cache.api import build_cache
    from brats_cache.format.reader import Cache, open_cache

__all__ = ["Cache", "__version__", "build_cache", "open_cache"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports the public functions when they are first used; the version needs no library."""
    if name == "build_cache":
        from brats_cache.api import build_cache

        return build_cache
    if name in ("Cache", "open_cache"):
        from brats_cache.format import reader

        return getattr(reader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
