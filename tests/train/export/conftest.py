"""An untrained run with context and flips, exported in both formats once."""

from __future__ import annotations

from pathlib import Path

import pytest

from brats_cache.format.reader import Cache
from tests.train.runs import call, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Cache) -> Path:
    folder = tmp_path_factory.mktemp("run") / "r"
    return make_run(folder, cache, target="regions", context=1, tta=True, threshold=0.47)


@pytest.fixture(scope="module")
def hub_dir(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Path:
    out = tmp_path_factory.mktemp("hub") / "model"
    call("export", "--run", run, "--format", "hub", "--out", out)
    return out
