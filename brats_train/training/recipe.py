"""What decides a training run: the fields of a recipe, the named recipes, and `--set`.

A recipe is one frozen dataclass; a named recipe is a set of changes to the paper's; a TOML file is
another. `--set FIELD=VALUE` changes any field, `--set PART.FIELD=VALUE` one of a part.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from brats_cache.common.errors import RecipeError, printable, wrong_usage
from brats_cache.common.files import read_small_file
from brats_train.data.augmentation import AugmentConfig
from brats_train.data.selection import RowRule
from brats_train.models.postprocessing import Postprocessing, RegionRule
from brats_train.runtime.settings import SETTINGS, with_field
from brats_train.training.losses import LossConfig

__all__ = [
    "RECIPES",
    "Recipe",
    "apply_settings",
    "load_recipe",
    "recipe_from_dict",
    "recipe_to_dict",
]

# Reading TOML takes time and memory with the square of the length of a key, which may fill a file.
MAX_RECIPE_BYTES = 16 << 10
MOVED = {"encoder": "model.encoder"}  # fields by their names in older runs and recipes
TARGETS = {"wt": ("wt",), "regions": ("wt", "tc", "et")}
NotNegative = Annotated[float, Field(ge=0)]
CacheWeight = Annotated[float, Field(gt=0, le=10_000)]


def _split_text(value: object) -> object:
    """The words of a list as the command line has it."""
    return value.split(",") if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class NetworkConfig:
    """Which network of segmentation_models_pytorch (smp).

    Attributes:
        architecture: "Unet", "UnetPlusPlus", "MAnet", "FPN", "Segformer" or another of smp's.
        encoder: An encoder of smp, such as "resnet34", or "tu-" and a name of timm's.
    """

    architecture: str = "Unet"
    encoder: str = "resnet34"


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Recipe:
    """How to train. The defaults are the paper's.

    Attributes:
        rows: Which slices of each case: "middle" (z = Z // 2), "all", or "tumor".
        sampling: "uniform": every epoch holds every selected slice. "tumor": all slices with
            tumour, and of the others `background` for each of them, anew each time; several times
            an epoch where they are few.
        background: See `sampling`.
        cache_weights: How often the slices of each cache are taken, one number a cache; 4 takes
            those of a small cache four times as often. Empty takes all alike.
        patient_share: Share of the training patients that is trained on; a larger share holds all
            of a smaller one.
        context: Neighbours of a slice on each side whose channels are stacked with its own (2.5-D).
        half_resolution: Share of the steps, the first ones, that are taken at half the pixels along
            each axis; several of them take the time of one.
        target: "wt": one channel, the whole tumour; "regions": WT, TC and ET; "auto": regions where
            the labels of all cases tell them.
        model: See `NetworkConfig`.
        encoder_weights: "imagenet", "none" or a file.
        epochs: At most so many.
        batch_size: Samples of a step over all ranks.
        optimizer: "adamw", "adam", or "sgd" with Nesterov's momentum of 0.9.
        lr: Learning rate.
        weight_decay: Weight decay, decoupled from the gradient in AdamW alone.
        decay_norms: Whether it acts on biases and the weights of normalisations as well.
        schedule: "constant", "cosine" down to zero, or "onecycle" up and down, over all steps.
        warmup_epochs: The rate grows from zero to `lr` over so many epochs first.
        clip_norm: Largest norm of the gradients; 0 leaves them.
        ema: Decay of an exponential moving average of the weights, which is then the model that is
            validated and kept; 0 for none. The first steps decay faster, see `ema`.
        best_by: What the best checkpoint is best in, on the validation slices: "iou_loss" or "loss"
            (least), or "iou" (greatest); or "last", the end of the schedule, for which nothing is
            chosen on the validation slices.
        tta: Whether `eval` and `predict` average over flips unless told otherwise.
        threshold: Probability from which a voxel belongs to a region, where none is chosen.
        min_component_share: Components of the whole tumour that are smaller than this share of the
            largest are dropped.
        choose: At the end, choose threshold, flips, smallest component and smallest region, for
            each region by itself; they go into the best checkpoint. They are chosen on the
            validation cases of a split, or with all folds on the other folds; not with one fold
            alone, which judges the model.
        patience: Epochs without a better one before stopping; 0 never stops.
        amp: "auto" takes bf16 where the hardware has it, else fp16 on CUDA, else float32.
        sync_batchnorm: Batch statistics over all ranks; PyTorch has it on CUDA alone.
        loss: See `LossConfig`.
        augment: See `AugmentConfig`.
        label_weight: With --classify, the weight of the labels' cross-entropy in the loss.
        label_balance: Whether rare labels weigh more, so that all have equal weight in total.
        seed: Decides first weights, order and augmentation.
    """

    rows: RowRule = "middle"
    sampling: Literal["uniform", "tumor"] = "uniform"
    background: NotNegative = 0.5
    cache_weights: Annotated[tuple[CacheWeight, ...], BeforeValidator(_split_text)] = ()
    patient_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    context: Annotated[int, Field(ge=0, le=8)] = 0
    half_resolution: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target: Literal["wt", "regions", "auto"] = "wt"
    model: NetworkConfig = field(default_factory=NetworkConfig)
    encoder_weights: str = "imagenet"
    epochs: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=1)] = 64
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: NotNegative = 1e-4
    weight_decay: NotNegative = 1e-2
    decay_norms: bool = True
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    warmup_epochs: NotNegative = 0.0
    clip_norm: NotNegative = 0.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    best_by: Literal["iou_loss", "loss", "iou", "last"] = "iou_loss"
    tta: bool = False
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    min_component_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    choose: bool = False
    patience: Annotated[int, Field(ge=0)] = 50
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    sync_batchnorm: bool = False
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    label_weight: NotNegative = 0.05
    label_balance: bool = True
    seed: Annotated[int, Field(ge=0, lt=1 << 64)] = 0  # torch takes no other

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions the model predicts, one channel each; "auto" must be resolved before."""
        return TARGETS[self.target]

    @property
    def postprocessing(self) -> Postprocessing:
        """What follows the network where nothing else was chosen."""
        rules = dict.fromkeys(TARGETS["regions"], RegionRule(threshold=self.threshold))
        rules["wt"] = replace(rules["wt"], min_component_share=self.min_component_share)
        return Postprocessing(tta=self.tta, rules=rules)


RECIPES: dict[str, Recipe] = {
    "paper": Recipe(),
    "strong": Recipe(
        rows="all",
        sampling="tumor",
        target="auto",
        half_resolution=0.7,
        epochs=100,
        batch_size=16,
        lr=1e-3,
        decay_norms=False,
        schedule="cosine",
        warmup_epochs=1,
        clip_norm=1.0,
        ema=0.98,
        best_by="last",
        tta=True,
        threshold=0.4,
        min_component_share=0.3,
        choose=True,
        patience=0,
        loss=LossConfig(name="bce+dice", overlap="batch"),
        augment=AugmentConfig(
            rotate_degrees=20.0,
            scale=0.25,
            gamma=0.3,
            bias_field=0.2,
            blur=0.7,
            window=0.7,
        ),
    ),
}


def load_recipe(name_or_file: str) -> Recipe:
    """Loads a recipe.

    Args:
        name_or_file: A name of `RECIPES`, or a TOML file of fields to change in the paper's.

    Raises:
        RecipeError: No such recipe, no TOML, or a field or value that is not allowed.
    """
    if name_or_file in RECIPES:
        return RECIPES[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        names = " or ".join(RECIPES)
        raise RecipeError(
            f"--recipe {printable(name_or_file)}: expected {names}, or a TOML file that exists."
        )
    name = printable(path)
    try:
        text = read_small_file(path, MAX_RECIPE_BYTES).decode("utf-8-sig")
        return recipe_from_dict(tomllib.loads(text))
    except RecipeError as error:
        raise RecipeError(f"{name}: {error}") from error
    except OSError as error:
        raise RecipeError(f"{name}: cannot be read ({error.strerror}).") from error
    except RecursionError as error:
        raise RecipeError(f"{name}: no TOML (values nested too deep).") from error
    except ValueError as error:  # also a number of thousands of digits
        raise RecipeError(f"{name}: no TOML ({printable(error)}).") from error


def apply_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Changes fields of a recipe.

    Args:
        recipe: The recipe, which stays as it is.
        settings: "FIELD=VALUE" or "PART.FIELD=VALUE", applied in order.

    Returns:
        A changed copy.

    Raises:
        RecipeError: An unknown field, with the nearest name, or a value that is not allowed.

    >>> apply_settings(RECIPES["paper"], ["lr=3e-4", "augment.hflip=0"]).lr
    0.0003
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise wrong_usage(RecipeError(f"--set {printable(setting)}: expected FIELD=VALUE."))
        try:
            recipe = with_field(recipe, MOVED.get(path.strip(), path.strip()), text.strip())
        except ValueError as error:
            raise wrong_usage(
                RecipeError(f"--set {printable(setting)}: {printable(error)}.")
            ) from error
    return recipe


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Returns a recipe as plain values, for config.json and checkpoints."""
    return asdict(recipe)


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """Makes a recipe from plain values.

    Args:
        values: Fields that differ from the paper's recipe; mappings for its parts.

    Raises:
        RecipeError: An unknown field or a value that is not allowed.
    """
    recipe = Recipe()
    for name, value in values.items():
        pairs = value.items() if isinstance(value, Mapping) else [(None, value)]
        for part, inner in pairs:
            try:
                path = MOVED.get(name, name) if part is None else f"{name}.{part}"
                recipe = with_field(recipe, path, inner)
            except ValueError as error:
                raise RecipeError(f"{printable(error)}.") from error
    return recipe
