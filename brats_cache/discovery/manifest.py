"""Reading a manifest: a CSV table that names the files of every case, instead of discovery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brats_cache.common.errors import BratsError
from brats_cache.discovery.cases import Findings
from brats_cache.discovery.namings import MODALITIES

__all__ = ["read_manifest"]


def read_manifest(path: Path, modalities: Sequence[str] = MODALITIES) -> Findings:
    """Reads the cases of a manifest.

    Args:
        path: CSV file with a column `case` and one for each of `modalities`, and optionally
            `patient,session,seg,split,grade,scheme`; its paths are relative to its folder.
        modalities: Names of `MODALITIES`, in the order the images should have.

    Returns:
        The cases, and a fault for each line that cannot be used.

    Raises:
        BratsError: The modalities are unknown or repeated.
    """
    raise BratsError(f"{path}: manifests of {', '.join(modalities)} cannot be read yet.")
