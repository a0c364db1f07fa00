"""The command line as a fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from brats_cache.build import job
from tests.cache.scans import Commands, InThisProcess


@pytest.fixture
def brats(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Commands:
    """Runs `brats WORDS` in an empty folder, without worker processes."""
    monkeypatch.setattr(job, "Workers", InThisProcess)
    monkeypatch.chdir(tmp_path)
    return Commands(capsys)
