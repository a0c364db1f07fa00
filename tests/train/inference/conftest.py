"""An untrained run and two scans, for the tests of what `brats predict` writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from brats_cache.format.reader import Cache
from tests.train.runs import ids, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Cache) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "r", cache, target="regions")


@pytest.fixture
def scans(tmp_path: Path, phantom_dir: Path, cache: Cache) -> Path:
    """Two cases of the phantom, without their masks."""
    folder = tmp_path / "scans"
    for case in ids(cache, "train")[:2]:
        (source,) = (path.parent for path in phantom_dir.rglob(f"{case}_t1.nii"))
        shutil.copytree(source, folder / case)
        (folder / case / f"{case}_seg.nii").unlink()
    return folder
