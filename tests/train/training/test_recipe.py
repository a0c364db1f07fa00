"""Recipes: what can be said, in which words, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brats_cache.common.errors import BratsError, RecipeError
from brats_train.training.recipe import (
    RECIPES,
    Recipe,
    apply_settings,
    load_recipe,
    recipe_from_dict,
    recipe_to_dict,
)


def test_the_default_is_the_paper() -> None:
    paper = load_recipe("paper")
    assert (paper.rows, paper.target, paper.model.encoder) == ("middle", "wt", "resnet34")
    assert (paper.encoder_weights, paper.epochs, paper.batch_size) == ("imagenet", 200, 64)
    assert (paper.lr, paper.loss.name) == (1e-4, "bce+iou")
    assert (paper.augment.rotate_degrees, paper.augment.brightness) == (5.0, 0.6)
    assert load_recipe("strong").rows == "all"
    for name, threshold in (("paper", 0.5), ("strong", 0.4)):
        rules = load_recipe(name).postprocessing.rules
        assert [rules[region].threshold for region in ("wt", "tc", "et")] == [threshold] * 3


def test_settings_change_any_field_and_nothing_else() -> None:
    changed = apply_settings(Recipe(), ["lr=3e-4", "augment.hflip=0", "rows=all", "loss.name=dice"])
    assert (changed.lr, changed.augment.hflip, changed.rows) == (3e-4, 0.0, "all")
    assert changed.loss.name == "dice"
    same = apply_settings(
        changed, ["lr=1e-4", "augment.hflip=0.5", "rows=middle", "loss.name=bce+iou"]
    )
    assert same == Recipe()
    assert apply_settings(Recipe(), ["augment.cross_modality=true"]).augment.cross_modality is True


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_its_dictionary(name: str) -> None:
    assert recipe_from_dict(recipe_to_dict(RECIPES[name])) == RECIPES[name]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("epoch=3", "did you mean epochs"),
        ("augment.hflipp=0", "did you mean hflip"),
        ("epochs", "expected FIELD=VALUE"),
        ("epochs=three", "expected a valid integer"),
        ("epochs=2.5", "expected a valid integer"),
        ("epochs=0", "greater than or equal to 1"),
        ("seed=-1", "greater than or equal to 0"),
        (f"seed={10**30}", "less than 18446744073709551616"),
        ("cache_weights=1e22", "less than or equal to 10000"),
        ("lr=fast", "expected a valid number"),
        ("rows=every", "'middle', 'all' or 'tumor'"),
        ("loss=dice", "fields of its own"),
        ("lr.x=1", "has no fields"),
        ("augment.hflip=2", "less than or equal to 1"),
        ("loss.name=cube", "expected 'bce\\+iou', .* or 'tversky'"),
        ("augment.cross_modality=maybe", "expected a valid boolean"),
    ],
)
def test_a_wrong_setting_is_refused_in_its_own_words(setting: str, words: str) -> None:
    with pytest.raises(BratsError, match=words) as caught:
        apply_settings(Recipe(), [setting])
    assert setting in str(caught.value)


def test_a_file_changes_the_paper(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('\ufeffepochs = 7\nlr = 1\n[augment]\nvflip = 0.0\n[loss]\nname = "dice"\n')
    recipe = load_recipe(str(path))
    assert (recipe.epochs, recipe.lr, recipe.augment.vflip) == (7, 1.0, 0.0)
    assert (recipe.loss.name, recipe.batch_size) == ("dice", 64)


def test_files_that_are_no_recipe_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for text, words in {"epochs = ": "no TOML", "epoch = 3": "epochs"}.items():
        path.write_text(text)
        with pytest.raises(BratsError, match=words) as caught:
            load_recipe(str(path))
        assert str(path) in str(caught.value)
    with pytest.raises(BratsError, match="paper or strong"):
        load_recipe("weak")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr=" + "[" * 10_000, r"no TOML \(values nested too deep"),
        ("epochs=" + "8" * 5000, "no TOML"),
        ("epochs=1e400", "epochs is inf"),
        ("lr=nan", "lr is nan"),
        ("lr=\udcff", "no TOML"),
        ("a" + ".a" * 50_000 + "=1", r"cannot be read \(larger than 16,384 bytes\)"),
        ('"\\u001b[2J"=1', r"\\x1b"),
    ],
)
def test_a_file_that_no_recipe_can_be_is_one_message(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "strange.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RecipeError, match=rf"strange\.toml: {words}"):
        load_recipe(str(path))


def test_only_regular_files_are_recipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", tmp_path, Path("/dev/zero")):
        with pytest.raises(RecipeError, match="expected paper or strong, or a TOML file"):
            load_recipe(str(path))
