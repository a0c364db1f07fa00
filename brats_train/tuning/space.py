"""The space of a search: which fields of a recipe are tried, and which values they can take.

It comes from a small TOML file, see `default.toml` beside this module. Its names and values are
checked against `Recipe` before anything is trained.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from brats_cache.common.errors import RecipeError, printable
from brats_cache.common.files import read_small_file
from brats_train.runtime.settings import flatten, with_field
from brats_train.training.recipe import Recipe

__all__ = ["STRENGTH", "Space", "load_space"]

STRENGTH = "augment.strength"  # a factor on these ranges, none of which may exceed its bound
_RANGES = {
    "rotate_degrees": 180.0,
    **dict.fromkeys(("scale", "brightness", "contrast", "saturation"), 1.0),
    **dict.fromkeys(("gamma", "bias_field", "blur"), 1.0),
}
_RANGE_KEYS = {"low", "high", "log"}
_DIGITS = 4  # of a number that a trial trains with, so that a recipe can be read


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        distributions: The values of each field, by its name in a recipe or `STRENGTH`.
    """

    distributions: Mapping[str, BaseDistribution]

    def recipe(self, base: Recipe, params: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial.

        Args:
            base: What holds for all trials.
            params: A value for each name of the space.

        Returns:
            A copy of `base` with these values, numbers of ranges rounded to four digits.
        """
        recipe = base
        if STRENGTH in params:
            stronger: dict[str, Any] = {
                name: min(limit, _rounded(params[STRENGTH] * getattr(base.augment, name)))
                for name, limit in _RANGES.items()
            }
            recipe = replace(recipe, augment=replace(base.augment, **stronger))
        for name, value in params.items():
            if name != STRENGTH:
                is_real = isinstance(self.distributions.get(name), FloatDistribution)
                recipe = with_field(recipe, name, _rounded(value) if is_real else value)
        return recipe

    def own_params(self, base: Recipe) -> dict[str, Any] | None:
        """The values that `base` itself has, None where one of them is not in the space."""
        params = {name: _current(base, name) for name in self.distributions}
        if all(_is_in(one, params[name]) for name, one in self.distributions.items()):
            return params
        return None

    def holds(self, name: str, value: Any) -> bool:
        """Whether a value of a field is one that can be drawn."""
        return name in self.distributions and _is_in(self.distributions[name], value)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that tell this space from another."""
        return {
            name: json.loads(distribution_to_json(one)) for name, one in self.distributions.items()
        }


def load_space(path: Path | None, base: Recipe, fixed: Collection[str] = ()) -> Space:
    """Reads a space.

    Args:
        path: A TOML file; None for the default space.
        base: The recipe that the trials change.
        fixed: Fields that were given on the command line, which are not searched.

    Raises:
        RecipeError: No such file, no TOML, an unknown field (the nearest name is given), a value
            that the recipe does not allow, or nothing to search; the message names the file.
    """
    where = "the default space" if path is None else printable(path)
    try:
        if path is None:
            content = files(__package__).joinpath("default.toml").read_bytes()
        else:
            content = read_small_file(path)
        entries = flatten(tomllib.loads(content.decode("utf-8-sig")), _is_range)
    except OSError as error:
        raise RecipeError(f"--space {where}: cannot be read ({error.strerror}).") from error
    except RecursionError as error:
        raise RecipeError(f"{where}: no TOML (values nested too deep).") from error
    except ValueError as error:
        raise RecipeError(f"{where}: no TOML ({error}).") from error
    try:
        distributions = {name: _distribution(base, name, one) for name, one in entries.items()}
    except ValueError as error:
        raise RecipeError(f"{where}: {error}.") from error
    searched = {name: one for name, one in distributions.items() if name not in fixed}
    if not searched:
        given = f" but what the command line fixes ({', '.join(entries)})" if entries else ""
        raise RecipeError(f"{where}: nothing to search{given}. Name a field, such as lr.")
    return Space(searched)


def _is_range(table: Mapping[str, Any]) -> bool:
    """Whether a TOML table is a range of values; any other holds fields of a part."""
    return bool(_RANGE_KEYS & table.keys())


def _distribution(base: Recipe, name: str, entry: Any) -> BaseDistribution:
    """The distribution that an entry of the file describes.

    Raises:
        ValueError: In words, without a full stop.
    """
    if isinstance(entry, list):
        if not entry:
            raise ValueError(f"{name} is an empty list; expected values to choose from")
        return CategoricalDistribution(
            list(dict.fromkeys(_allowed(base, name, value) for value in entry))
        )
    if not isinstance(entry, Mapping):
        _allowed(base, name, entry)  # a name that is wrong is told first
        raise ValueError(
            f"{name} is {entry!r}; expected a list of values, or a range such as "
            "{ low = 1e-5, high = 1e-2, log = true }"
        )
    if unknown := entry.keys() - _RANGE_KEYS:
        raise ValueError(f"{name} has {min(unknown)}; expected low, high and log alone")
    is_log = entry.get("log", False)
    ends = [entry.get("low"), entry.get("high")]
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        raise ValueError(f"{name} is a range without numbers low and high")
    if not isinstance(is_log, bool):
        raise ValueError(f"{name} has log = {is_log!r}; expected true or false")
    low, high = (_allowed(base, name, end) for end in ends)
    if not isinstance(low, int | float):
        raise ValueError(f"{name} is no number; expected a list of values")
    if not low < high:
        raise ValueError(f"{name} has low {low:g} and high {high:g}; expected low below high")
    if is_log and low <= 0:
        raise ValueError(f"{name} has low {low:g}; expected more than 0 with log = true")
    if isinstance(low, int):
        return IntDistribution(low, high, log=is_log)
    return FloatDistribution(low, high, log=is_log)


def _allowed(base: Recipe, name: str, value: Any) -> Any:
    """A value as the recipe holds it. Raises `ValueError` where there is no such field, or the
    value is not allowed."""
    if name == STRENGTH:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            raise ValueError(f"{name} is {value!r}; expected a factor of at least 0")
        return float(value)
    part, _, field = name.partition(".")
    if part == "augment" and difflib.get_close_matches(field, ["strength"]):
        raise ValueError(f"{name}: no such field; did you mean {STRENGTH}")
    if isinstance(value, list | Mapping):
        raise ValueError(f"{name} holds {value!r}; expected single values")
    return _current(with_field(base, name, value), name)


def _current(recipe: Recipe, name: str) -> Any:
    """The value of a field; the strength of a recipe's own augmentation is 1."""
    value: Any = recipe
    for part in name.split(".") if name != STRENGTH else ():
        value = getattr(value, part)
    return 1.0 if name == STRENGTH else value


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _is_in(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return distribution.low <= value <= distribution.high
