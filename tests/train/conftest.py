"""A small phantom and its cache, made once for the tests of training; a compiler unused before."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
import torch._dynamo
import torch._functorch.config
from matplotlib.figure import Figure

from brats_cache.format.reader import Cache, open_cache
from brats_cache.synthetic.write_phantom import write_phantom
from brats_train.training.rendering import DPI, FORMATS, render
from tests.commands import run_brats


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight cases with masks and one without, 64 x 64 x 24 voxels."""
    folder = tmp_path_factory.mktemp("phantom") / "scans"
    write_phantom(folder, num_cases=8, num_test_cases=1, seed=3, shape=(64, 64, 24), workers=1)
    return folder


@pytest.fixture(scope="session")
def cache_path(phantom_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its cache of 64 x 64 slices, a quarter of the patients validating."""
    path = tmp_path_factory.mktemp("cache") / "phantom.h5"
    run_brats(
        *("build-cache", phantom_dir, "--out", path, "--size", 64, "--folds", 3),
        *("--val-fraction", 0.25, "--workers", 1),
    )
    return path


@pytest.fixture(scope="session")
def cache(cache_path: Path) -> Cache:
    return open_cache(cache_path)


@pytest.fixture(scope="module", autouse=True)
def _no_scoring_processes() -> Iterator[None]:
    """Few cases are scored here; processes for them take longer to start than to score."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brats_train.evaluation.scoring_pool.MIN_CASES_FOR_PROCESSES", 10**6)
        yield


@pytest.fixture(autouse=True)
def _determinism_ends_with_a_test() -> Iterator[None]:
    """--deterministic is a switch of the process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports whose figures are blank, for tests that look at no picture."""
    blank = render(Figure(figsize=(1, 1)), FORMATS)

    def render_blank(figure: Figure, formats: Collection[str], dpi: int = DPI) -> dict[str, bytes]:
        return {kind: blank[kind] for kind in formats}

    for name in ("build", "pictures"):
        monkeypatch.setattr(f"brats_train.report.{name}.render", render_blank)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Nothing compiled before, and settings as they were afterwards."""
    logger = logging.getLogger("torch._dynamo.convert_frame")
    filters = list(logger.filters)
    torch._dynamo.reset()
    with (
        torch._dynamo.config.patch(suppress_errors=False),
        torch._functorch.config.patch(force_non_lazy_backward_lowering=False),
    ):
        yield
    logger.filters[:] = filters
    torch._dynamo.reset()
