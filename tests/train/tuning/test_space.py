"""The space of a search: what it may say, what is refused, and which recipes come of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.common.errors import RecipeError
from brats_train.training.recipe import RECIPES, Recipe, apply_settings, recipe_from_dict
from brats_train.tuning.space import STRENGTH, load_space
from tests.train.tuning.studies import BASE, SPACE, make_space

STRONG = RECIPES["strong"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_default_space_holds_the_named_recipes(name: str) -> None:
    """Then the first trial is the recipe itself."""
    space = load_space(None, RECIPES[name])
    params = space.own_params(RECIPES[name])
    assert params is not None
    assert space.recipe(RECIPES[name], params) == RECIPES[name]
    named = {"optimizer", "lr", "batch_size", "loss.name", "weight_decay", STRENGTH}
    assert named | {"model.architecture", "model.encoder"} == set(space.distributions)


def test_a_recipe_outside_the_space_has_no_params_in_it(tmp_path: Path) -> None:
    assert make_space(tmp_path).own_params(BASE) is not None
    base = apply_settings(BASE, ["batch_size=128"])
    assert make_space(tmp_path, base=base).own_params(base) is None


def test_a_trial_changes_what_is_searched_and_nothing_else(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    changed = space.recipe(STRONG, {"optimizer": "sgd", "lr": 0.000123456, "batch_size": 7})
    assert (changed.optimizer, changed.lr, changed.batch_size) == ("sgd", 0.0001235, 7)
    assert space.recipe(changed, {"optimizer": "adamw", "lr": 1e-3, "batch_size": 16}) == STRONG


@given(st.floats(0, 100))
def test_strength_scales_every_range_up_to_its_bound_and_no_probability(strength: float) -> None:
    space = load_space(None, STRONG)
    augment = space.recipe(STRONG, {STRENGTH: strength}).augment
    base = STRONG.augment
    for name in ("scale", "brightness", "contrast", "saturation", "gamma", "bias_field", "blur"):
        wanted = min(1.0, strength * getattr(base, name))
        assert getattr(augment, name) == pytest.approx(wanted, rel=1e-3, abs=1e-12)
    assert augment.rotate_degrees == pytest.approx(min(180.0, 20 * strength), rel=1e-3)
    kept = ("hflip", "vflip", "probability", "modality_dropout", "window", "hue")
    assert all(getattr(augment, name) == getattr(base, name) for name in kept)


def test_a_range_may_not_exceed_its_own_field_named_beside_the_strength(tmp_path: Path) -> None:
    text = "augment.strength = {low = 0, high = 1}\naugment.gamma = [0.1]"
    recipe = make_space(tmp_path, text).recipe(STRONG, {STRENGTH: 0.0, "augment.gamma": 0.1})
    assert (recipe.augment.gamma, recipe.augment.blur) == (0.1, 0.0)


def test_fixed_fields_are_not_searched(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(SPACE)
    assert set(load_space(path, BASE, {"lr", "seed"}).distributions) == {"optimizer", "batch_size"}
    with pytest.raises(RecipeError, match=r"nothing to search but what the command line fixes"):
        load_space(path, BASE, {"lr", "optimizer", "batch_size"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimiser = ['sgd']", "optimiser: no such field; did you mean optimizer"),
        ("loss.nam = ['dice']", "loss.nam: no such field; did you mean name"),
        ("augment.strenght = [1]", "did you mean augment.strength"),
        ("augment.strength = [-1]", "at least 0"),
        ("optimizer = ['lion']", "expected 'adamw', 'adam' or 'sgd'"),
        ("optimizer = { low = 1, high = 2 }", "expected 'adamw', 'adam' or 'sgd'"),
        ("lr = 0.1", "expected a list of values, or a range"),
        ("learning_rat = 0.1", "no such field"),
        ("lr = []", "empty list"),
        ("lr = [[1]]", "expected single values"),
        ("lr = { low = 1e-3 }", "without numbers low and high"),
        ("lr = { low = 1e-3, high = '1' }", "without numbers low and high"),
        ("lr = { low = 1e-3, high = 1e-4 }", "expected low below high"),
        ("lr = { low = 0, high = 1, log = true }", "more than 0 with log"),
        ("lr = { low = 0, high = 1, log = 1 }", "expected true or false"),
        ("lr = { low = 0, high = 1, step = 1 }", "lr has step"),
        ("lr = { low = nan, high = 1 }", "expected a finite number"),
        ("batch_size = { low = 0, high = 4 }", "greater than or equal to 1"),
        ("batch_size = { low = 1.5, high = 4 }", "expected a valid integer"),
        ("model.encoder = { low = 1, high = 2 }", "expected a valid string"),
        ("loss = ['dice']", "fields of its own"),
        ("", "nothing to search"),
        ("lr = ", "no TOML"),
        ("lr = " + "[" * 100_000, "no TOML"),
    ],
)
def test_a_space_that_no_recipe_allows_is_one_message(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        make_space(tmp_path, text)
    assert "space.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--space .*nowhere\.toml: cannot be read"):
        load_space(tmp_path / "nowhere.toml", BASE)


def test_values_are_as_the_recipe_holds_them(tmp_path: Path) -> None:
    """Integers in a list of rates are rates, so that the recipe's own is found among them."""
    space = make_space(tmp_path, "lr = [1, 1e-4]\nbatch_size = [64.0]\ncontext = [0, 1]")
    assert space.own_params(BASE) == {"lr": 1e-4, "batch_size": 64, "context": 0}
    assert space.recipe(BASE, {"lr": 1.0, "batch_size": 64, "context": 1}) == dataclasses.replace(
        BASE, lr=1.0, context=1
    )


def test_a_recipe_of_a_trial_can_be_written_and_read() -> None:
    import tomllib

    import tomli_w

    from brats_train.training.recipe import recipe_to_dict

    space = load_space(None, Recipe())
    recipe = space.recipe(Recipe(), {"lr": 0.03, STRENGTH: 1.7, "model.encoder": "resnet18"})
    assert recipe_from_dict(tomllib.loads(tomli_w.dumps(recipe_to_dict(recipe)))) == recipe
