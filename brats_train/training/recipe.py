"""What decides a training run: the fields of a recipe, the named recipes, and `--set`.

A recipe is one frozen dataclass; a named recipe is a set of changes to the paper's; a TOML file is
another. `--set FIELD=VALUE` changes any field, `--set PART.FIELD=VALUE` one of a part.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from brats_cache.common.errors import BratsError
from brats_train.data.augmentation import AugmentConfig
from brats_train.data.selection import ROWS
from brats_train.training.losses import LossConfig

__all__ = ["RECIPES", "Recipe", "change", "load_recipe", "recipe_from_dict", "recipe_to_dict"]

TARGETS = {"wt": ("wt",), "regions": ("wt", "tc", "et")}
AMP = ("auto", "bf16", "fp16", "off")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. The defaults are the paper's.

    rows             which rows of each case: "middle" (z = Z // 2), "all", or "tumor"
    target           "wt": one channel, the whole tumour; "regions": WT, TC and ET
    encoder          an smp ResNet
    encoder_weights  "imagenet", "none" or a file
    epochs           at most
    batch_size       samples of a step over all ranks
    lr, weight_decay of AdamW
    schedule         "constant", "cosine" down to zero, or "onecycle" up and down, over all steps
    warmup_epochs    the rate grows from zero to `lr` over so many epochs first
    clip_norm        largest norm of the gradients; 0 leaves them
    ema              decay of an exponential moving average of the weights, which is then the model
                     that is judged and kept; 0 for none
    best_by          what the best checkpoint is best in, on the validation rows: "iou_loss" or
                     "loss" (least), or "iou" (greatest)
    choose           at the end, choose threshold, flips and the smallest component to keep by the
                     validation cases; they go into the best checkpoint
    patience         epochs without a better one before stopping; 0 never stops
    amp              "auto" takes bf16 where the hardware has it, else fp16 on CUDA, else nothing
    sync_batchnorm   batch statistics over all ranks; PyTorch has it on CUDA alone
    loss, augment    see LossConfig and AugmentConfig
    seed             decides first weights, order and augmentation
    """

    rows: str = "middle"
    target: str = "wt"
    encoder: str = "resnet34"
    encoder_weights: str = "imagenet"
    epochs: int = 200
    batch_size: int = 64
    lr: float = 1e-4
    weight_decay: float = 1e-2
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    clip_norm: float = 0.0
    ema: float = 0.0
    best_by: str = "iou_loss"
    choose: bool = False
    patience: int = 50
    amp: str = "auto"
    sync_batchnorm: bool = False
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in {
            "rows": ROWS,
            "target": tuple(TARGETS),
            "schedule": ("constant", "cosine", "onecycle"),
            "best_by": ("iou_loss", "loss", "iou"),
            "amp": AMP,
        }.items():
            if getattr(self, name) not in allowed:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(allowed)}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; expected 0 up to 1, 1 excluded")
        for name in ("lr", "weight_decay", "patience", "warmup_epochs", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 0")

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions the model predicts, one channel each."""
        return TARGETS[self.target]


RECIPES: dict[str, Recipe] = {
    "paper": Recipe(),
    "strong": Recipe(
        rows="all",
        epochs=60,
        batch_size=32,
        lr=3e-4,
        schedule="cosine",
        choose=True,
        patience=20,
        loss=LossConfig(name="bce+dice"),
    ),
}


def load_recipe(name_or_file: str) -> Recipe:
    """A named recipe, or the paper's with the changes a TOML file makes."""
    if name_or_file in RECIPES:
        return RECIPES[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        names = " or ".join(RECIPES)
        raise BratsError(f"--recipe {name_or_file}: expected {names}, or a TOML file that exists.")
    try:
        return recipe_from_dict(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BratsError(f"{path}: no TOML ({error}).") from error
    except BratsError as error:
        raise BratsError(f"{path}: {error}") from error


def change(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """`recipe` with `--set` settings such as "lr=3e-4" or "augment.hflip=0" applied in order."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise BratsError(f"--set {setting}: expected FIELD=VALUE.")
        try:
            recipe = _with(recipe, path.strip().split("."), text.strip(), path.strip())
        except ValueError as error:
            raise BratsError(f"--set {setting}: {error}.") from error
    return recipe


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Plain values, for config.json and checkpoints."""
    return asdict(recipe)


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """The paper's recipe with `values`, nested mappings for its parts. Raises `BratsError` naming
    an unknown or mistyped field."""
    recipe = Recipe()
    for name, value in values.items():
        pairs = value.items() if isinstance(value, Mapping) else [(None, value)]
        for part, inner in pairs:
            path = [name] if part is None else [name, part]
            try:
                recipe = _with(recipe, path, inner, ".".join(path))
            except ValueError as error:
                raise BratsError(f"{error}.") from error
    return recipe


def _with(owner: Any, path: list[str], value: Any, shown: str) -> Any:
    """`owner` with the field at `path` set; raises ValueError for what is unknown or mistyped."""
    names = [field.name for field in fields(owner)]
    if path[0] not in names:
        near = difflib.get_close_matches(path[0], names, n=1)
        hint = f"did you mean {near[0]}" if near else f"known are {', '.join(names)}"
        raise ValueError(f"{shown}: no such field; {hint}")
    current = getattr(owner, path[0])
    if is_dataclass(current):
        if len(path) == 1:
            inner = ", ".join(field.name for field in fields(current))
            raise ValueError(f"{shown} has fields of its own: {inner}")
        return replace(owner, **{path[0]: _with(current, path[1:], value, shown)})
    if len(path) > 1:
        raise ValueError(f"{shown}: {path[0]} has no fields")
    return replace(owner, **{path[0]: _convert(value, type(current), shown)})


def _convert(value: Any, kind: type, shown: str) -> Any:
    """`value`, a text from the command line or a plain value from a file, as a `kind`."""
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in words:
            return words[str(value).lower()]
    elif kind is str and isinstance(value, str):
        return value
    elif kind in (int, float) and not isinstance(value, bool):
        try:
            number = kind(value)
        except (TypeError, ValueError):
            pass
        else:
            if kind is float or number == float(value):
                return number
    raise ValueError(f"{shown} is {value!r}; expected {kind.__name__}")
