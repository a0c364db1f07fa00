"""The notebook of the docs runs from its first cell to its last; its outputs are not committed."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.commands import PATIENCE

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"
# A size that takes seconds; one training step is enough to predict with.
TINY = """
NUM_CASES, SHAPE, SIZE = 2, "32x32x12", 32
TRAINING = ["--recipe", "strong", "--epochs", "1", "--encoder-weights", "none"]
TRAINING += ["--set", "model.encoder=tu-test_resnet", "--set", "sampling=uniform"]
"""


def test_it_holds_no_outputs() -> None:
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (settings,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    settings.source += TINY
    NotebookClient(
        notebook,
        timeout=PATIENCE,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    (mask,) = (tmp_path / "quickstart").glob("BraTS20_Validation_*.nii.gz")
    assert mask.stat().st_size > 0
