"""Runs made without training, and the command line called in this process: what tests of scoring
and prediction share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from brats_cache.format.reader import Cache
from brats_train.cli.main import main
from brats_train.models.checkpoint import SegmenterSpec, pack, save
from brats_train.models.network import ModelConfig, build_model
from brats_train.models.postprocessing import Postprocessing, RegionRule
from brats_train.training.recipe import apply_settings, load_recipe, recipe_to_dict
from tests.commands import SMALL_ENCODER


def make_run(
    path: Path,
    cache: Cache,
    *,
    seed: int = 0,
    target: str = "wt",
    rows: str = "all",
    context: int = 0,
    tta: bool = False,
    threshold: float = 0.5,
    min_component_voxels: int = 0,
    accepts_missing: bool = False,
    encoder: str = SMALL_ENCODER,
    fold: int | None = None,
) -> Path:
    """A run directory with an untrained model in best.pt, one rule for all its regions."""
    recipe = apply_settings(
        load_recipe("paper"), [f"target={target}", f"rows={rows}", f"model.encoder={encoder}"]
    )
    torch.manual_seed(seed)
    config = ModelConfig(
        in_channels=cache.shape[1] * (2 * context + 1),
        classes=len(recipe.regions),
        encoder=recipe.model.encoder,
    )
    model = build_model(config)
    rule = RegionRule(threshold=threshold, min_component_voxels=min_component_voxels)
    spec = SegmenterSpec(
        model=config,
        regions=recipe.regions,
        preparation=cache.preparation,
        label_scheme="brats2017",
        weights_from="none",
        context=context,
        accepts_missing=accepts_missing,
        postprocessing=Postprocessing(tta=tta, rules=dict.fromkeys(recipe.regions, rule)),
    )
    path.mkdir(parents=True, exist_ok=True)
    with open(path / "best.pt", "wb") as file:
        save(pack(spec, model.state_dict()), file)
    caches = [{"path": str(cache.path), "fingerprint": cache.fingerprint}]
    config_json = {"recipe": recipe_to_dict(recipe), "caches": caches, "fold": fold}
    (path / "config.json").write_text(json.dumps(config_json))
    return path


def fold_run(path: Path, cache: Cache) -> Path:
    """A cross-validated run of three folds, untrained."""
    for fold in range(3):
        make_run(path / f"fold{fold}", cache, seed=fold, threshold=0.4 + fold / 20)
    config = json.loads((path / "fold0" / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "fold": "all"}))
    return path


def call(*words: object, code: int = 0) -> None:
    """Runs `brats WORDS` in this process and checks its exit code."""
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code == code


def predict(run: Path | str, scans: Path, out: Path, *words: object, code: int = 0) -> None:
    """Runs `brats predict` on `scans` in this process and checks its exit code."""
    call("predict", scans, "--run", run, "--out", out, "--device", "cpu", *words, code=code)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of the files in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def ids(cache: Cache, split: str) -> list[str]:
    """The cases of a split, in order of their ids."""
    chosen = cache.cases["split"] == split.encode()
    return sorted(name.decode() for name in cache.cases["id"][chosen])


def index_of(cache: Cache, case: str) -> int:
    """The number of a case in its cache."""
    return cache.case_ids.index(case)


def find(folder: Path, name: str) -> Path:
    """The one file of that name under `folder`."""
    (path,) = folder.rglob(name)
    return path
