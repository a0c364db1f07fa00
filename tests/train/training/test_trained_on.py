"""What an evaluation takes from the run that trained the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brats_cache.format.reader import Cache
from brats_train.training.trained_on import trained_on
from tests.train.runs import make_run


@pytest.mark.parametrize(
    ("target", "regions"),
    [("wt", ("wt",)), ("regions", ("wt", "tc", "et")), ("auto", ("wt", "tc", "et"))],
)
def test_every_target_of_a_recipe_has_regions(
    tmp_path: Path, cache: Cache, target: str, regions: tuple[str, ...]
) -> None:
    """Older versions left "auto" in config.json of a cross-validation."""
    path = make_run(tmp_path / "run", cache) / "config.json"
    config = json.loads(path.read_text())
    config["recipe"]["target"] = target
    path.write_text(json.dumps(config))
    assert trained_on(tmp_path / "run").regions == regions
