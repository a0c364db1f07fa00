"""Reads config.json of a run, which may have been damaged or edited by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from brats_cache.common.errors import BratsError, RecipeError, printable
from brats_cache.common.files import read_small_file
from brats_train.evaluation.results import FileEntry
from brats_train.runtime.compile import CompileMode
from brats_train.runtime.settings import first_fault
from brats_train.training.recipe import recipe_from_dict, recipe_to_dict

__all__ = ["parse_config"]

_ADVICE = "Put back the file that the run wrote, or train again with --overwrite."
Name = Annotated[str, Field(min_length=1)]
Minutes = Annotated[float, Field(ge=0)]


class _RunConfig(BaseModel):
    """What commands read from the file; see `run_config.run_config` for its meaning.

    Files of older versions lack some fields, so that only those without which nothing can be done
    are required. Others may stand there.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    recipe: Annotated[dict[str, Any], Field(min_length=1)]
    caches: Annotated[list[FileEntry], Field(min_length=1)]
    fold: Any
    recipe_name: Name = "paper"
    init_from: Name | None = None
    deterministic: bool = False
    max_minutes: Minutes | None = None
    save_minutes: Minutes = 0.0
    resident: str = ""
    compile: CompileMode = False
    trackers: list[Literal["tensorboard", "mlflow"]] = []
    micro_batch: int | str = 0
    amp: str = ""
    classify: Name | None = None
    labels: dict[str, str] | None = None
    launcher: str | None = None
    versions: dict[str, str] | None = None
    encoder_weights_from: str | None = None
    num_train_rows: int = 0
    num_val_rows: int = 0

    @field_validator("fold")
    @classmethod
    def _is_fold(cls, value: object) -> object:
        is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if value is None or value == "all" or is_number:
            return value
        raise ValueError("expected the number of a fold from 0, all, or null")


def parse_config(path: Path) -> dict[str, Any]:
    """Reads and checks config.json of a run.

    Returns:
        Its content; fields that the recipe lacks have the values of the paper's.

    Raises:
        BratsError: The file cannot be read, is no JSON, or lacks what a run's settings are; the
            message names the first field at fault.
    """
    try:
        config = json.loads(read_small_file(path))
        _RunConfig.model_validate(config)
        recipe = recipe_to_dict(recipe_from_dict(config["recipe"]))
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        raise _broken(path, first_fault(error)) from None
    except RecipeError as error:
        raise _broken(path, f"recipe: {error}".rstrip(".")) from None
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"no JSON: {error}") from None
    return {**config, "recipe": recipe}


def _broken(path: Path, fault: str) -> BratsError:
    return BratsError(
        f"{printable(path)}: does not hold the settings of a run ({printable(fault)}). {_ADVICE}"
    )
