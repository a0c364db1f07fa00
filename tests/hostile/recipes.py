"""Recipes: TOML files of --recipe, and settings of --set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from brats_train.training.recipe import (
    RECIPES,
    apply_settings,
    load_recipe,
    recipe_from_dict,
    recipe_to_dict,
)
from tests.hostile.mutations import CELLS, Files, choose, spoil_text

_RECIPE = b"""\
rows = "all"
epochs = 10
lr = 3e-4
schedule = "cosine"
model = { architecture = "FPN", encoder = "resnet18" }
clip_norm = 1
tta = true

[loss]
name = "bce+dice"

[augment]
hflip = 0.5
rotate_degrees = 20.0
"""
_LINES = (
    b'["lr"]', b"lr.lr = 1", b"[loss.name]", b"[[augment]]", b"lr = 1", b"lr = nan", b"lr = -inf",
    b"lr = 1e400", b"epochs = " + b"9" * 5000, b"epochs = 1_0", b"epochs = 0x7fffffffffffffffffff",
    b"epochs = 1.5", b"epochs = true", b"epochs = 1979-05-27T07:32:00Z", b"epochs = 07:32:00",
    b"lr = []", b"lr = {}", b"seed = -1", b"x = " + b"[" * 100_000, b"x = " + b"{a=" * 2000,
    b"a" + b".a" * 50_000 + b" = 1", b"[" + b"a." * 50_000 + b"a]", b"a" + b".a" * 7000 + b" = 1",
    b'rows = """\n"""', b"rows = '\\'",
    b'rows = "\\uD800"', b'rows = "\\u001b[2J"', b'"\\u001b[2J" = 1', b'"" = 1', b"rows = 1",
    b'model = "Unet"', b"augment = 1", b'encoder = "resnet18"', b"half_resolution = 1e-320",
    b"batch_size = 100000000000000000000", b"context = 1000000", b"loss = { name = 'bce', x = 1 }",
)  # fmt: skip


def make(rng: np.random.Generator) -> Files:
    """A recipe, or settings a line each."""
    if rng.random() < 0.3:
        names = [*recipe_to_dict(RECIPES["paper"]), "augment.hflip", "loss.name", "model.encoder"]
        lines = [f"{choose(rng, names)}={choose(rng, CELLS)}" for _ in range(int(rng.integers(3)))]
        return {"settings": "\0".join([*lines, str(choose(rng, CELLS))]).encode()}
    lines = _RECIPE.splitlines(keepends=True)
    for _ in range(int(rng.integers(0, 3))):
        place = int(rng.integers(len(lines) + 1))
        lines[place:place] = [choose(rng, _LINES) + b"\n"]
        if rng.random() < 0.5:
            del lines[int(rng.integers(len(lines)))]
    content = b"".join(lines)
    return {"recipe.toml": spoil_text(content, rng) if rng.random() < 0.6 else content}


def read(folder: Path) -> None:
    """Loads the recipe, which is the same when it comes back from config.json."""
    settings = folder / "settings"
    if settings.exists():
        recipe = apply_settings(RECIPES["paper"], settings.read_bytes().decode().split("\0"))
    else:
        recipe = load_recipe(str(folder / "recipe.toml"))
    assert recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe)))) == recipe
