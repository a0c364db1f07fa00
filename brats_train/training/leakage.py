"""Whether a model may have been trained on the cases that it is scored on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from brats_cache.common.errors import BratsError, printable
from brats_train.data.selection import Fold
from brats_train.models.hub import hub_name
from brats_train.models.sources import exported_folder_of, is_run_dir
from brats_train.training.trained_on import trained_on

__all__ = ["check_unseen"]


def check_unseen(run: Path, model: Path, split: str, warn: Callable[[str], None]) -> None:
    """Checks that a model has not seen the cases of a run that it is scored on.

    Args:
        run: The run, or exported folder, whose cases are scored.
        model: The run itself or another model: a run, an exported folder, or a file.
        split: Of the cases.
        warn: Takes a line of text where nothing tells whether it has.

    Raises:
        BratsError: It was trained with other folds, or is the average of all.
    """
    trained = trained_on(run)
    is_file = not (is_run_dir(model) or exported_folder_of(model))
    home = model.resolve().parent if is_file else model
    doubt = "It may have seen cases that are scored here."
    if is_file and not (home / "config.json").is_file():
        warn(f"{printable(model)}: lies in no run, which would tell its training data. {doubt}")
        return
    also = trained_on(home)
    if not also.caches:
        warn(f"{printable(home)}: does not say what it was trained on. {doubt}")
        return
    if _is_same(home, run):
        if is_file and trained.fold == "all" and split != "test":
            raise BratsError(
                f"{printable(model)}: averages the networks of all folds, which have seen every "
                "case between them. Leave --checkpoint out to score each by its own fold's network."
            )
        return
    if split != "test" and also.fold != trained.fold:
        raise BratsError(
            f"{printable(home)} was trained with {_fold_text(also.fold)}, and {printable(run)} "
            f"with {_fold_text(trained.fold)}, so each has seen cases that the other has not. "
            "Score them one by one, or the run of train --fold all as a whole."
        )
    fingerprints = [{fingerprint for fingerprint, _ in one.caches} for one in (trained, also)]
    if all(fingerprints) and fingerprints[0] != fingerprints[1]:
        warn(f"{printable(home)}: was not trained on the caches of {printable(run)}. {doubt}")


def _is_same(one: Path, other: Path) -> bool:
    names = hub_name(one), hub_name(other)
    return names[0] == names[1] if any(names) else one.resolve() == other.resolve()


def _fold_text(fold: Fold) -> str:
    return "the split of its cache" if fold is None else f"--fold {fold}"
