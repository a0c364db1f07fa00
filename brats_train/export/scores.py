"""Finds the evaluations of the exported model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brats_train.evaluation.results import Results, read_results
from brats_train.models.description import Description

__all__ = ["scores_of"]


def scores_of(home: Path, description: Description) -> tuple[list[Results], list[str]]:
    """Reads the evaluations of a run.

    Args:
        home: The run, or the exported folder.
        description: Of the model that is exported.

    Returns:
        The evaluations of this model, and the splits that another model was scored on.

    Raises:
        BratsError: The files of an evaluation cannot be understood.
    """
    expected = [(member.fold, member.fingerprint) for member in description.members]
    found: list[Results] = []
    of_others: list[str] = []
    for split in ("val", "test"):
        results = read_results(home / "eval" / split)
        if results is None:
            continue
        scored: Sequence[tuple[int | None, str]] = [
            (model.fold, checkpoint["fingerprint"])
            for model in results.models
            for checkpoint in model.checkpoints
        ]
        if sorted(scored, key=repr) == sorted(expected, key=repr):
            found.append(results)
        else:
            of_others.append(split)
    return found, of_others
