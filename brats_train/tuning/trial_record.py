"""Checks that a trial in a study's storage is one that brats tune can have written."""

from __future__ import annotations

import math
from typing import Annotated

from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from brats_train.runtime.settings import first_fault
from brats_train.tuning.space import Space

__all__ = ["fault_of"]


class _Owner(BaseModel):
    worker: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # a file name
    seen: float


class _Attributes(BaseModel):
    """The attributes that `study` and `search` set; others may stand there."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    run: Annotated[str, Field(pattern=r"^trials/\d+$")] = "trials/0000"
    owner: _Owner | None = None
    retry_of: int | None = None
    best_epoch: int | None = None
    reason: str = ""


def fault_of(trial: FrozenTrial, space: Space) -> str:
    """What is wrong with a trial, "" for nothing.

    A storage comes from outside: a run's folder that it names becomes a path, a value a setting.
    """
    try:
        _Attributes.model_validate(trial.user_attrs)
    except ValidationError as error:
        return first_fault(error)
    if not isinstance(trial.system_attrs.get("fixed_params", {}), dict):
        return "fixed_params: expected values by name"
    for name, value in trial.params.items():
        if not space.holds(name, value):
            return f"{name} is {value!r}, which is not in the space"
    if trial.state == TrialState.COMPLETE:
        values = trial.values
        if trial.params.keys() != space.distributions.keys():
            return f"it has values for {', '.join(trial.params) or 'nothing'} alone"
        if len(values) != 1 or not isinstance(values[0], float) or not math.isfinite(values[0]):
            return f"its result is {values!r}, expected one number"
    for epoch, value in trial.intermediate_values.items():
        if type(epoch) is not int or not isinstance(value, float):
            return f"after epoch {epoch!r} its result is {value!r}, expected a number"
    return ""
