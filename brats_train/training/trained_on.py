"""What a model was trained on, as far as evaluating it needs that: a run or an exported model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brats_cache.common.errors import CheckpointError, RunNotFoundError, printable
from brats_train.data.selection import ROWS, Fold
from brats_train.models.exported_folder import read_description
from brats_train.models.hub import hub_name
from brats_train.models.sources import exported_folder_of, is_run_dir
from brats_train.training.recipe import TARGETS, recipe_from_dict
from brats_train.training.run_dir import RUNS, RunDir

__all__ = ["TrainedOn", "results_home", "trained_on"]


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """The data of a training.

    Attributes:
        rows: Which rows the recipe took of each case, see `selection.rows_by_rule`.
        regions: The regions of the model; all, where config.json leaves them to the data, as older
            versions did for a cross-validation.
        fold: The fold that validated, see `selection.case_splits`.
        caches: Fingerprint of each cache, and where it lay; None where that is not told.
        facts: What else is known for a reader: recipe, numbers of rows, versions.
        labels: Label by case, of a run with --classify; they do not travel with an exported model.
    """

    rows: str
    regions: tuple[str, ...]
    fold: Fold
    caches: tuple[tuple[str, Path | None], ...]
    facts: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)

    def pack(self) -> dict[str, Any]:
        """Plain values for the description of an exported model: no path of this machine."""
        return {
            **self.facts,
            "rows": self.rows,
            "fold": self.fold,
            "caches": [fingerprint for fingerprint, _ in self.caches],
        }


def trained_on(source: str | Path) -> TrainedOn:
    """Reads what the model of a run directory or of an exported folder was trained on.

    Raises:
        RunNotFoundError: It is neither of the two.
        BratsError: What it says cannot be understood.
    """
    if folder := exported_folder_of(source):
        return _of_exported(folder)
    if not is_run_dir(source):
        raise RunNotFoundError(
            f"{printable(source)}: a model without its run, which says what is to be scored. Name "
            "the run, or a folder of brats export --format hub."
        )
    config = RunDir.existing(Path(source)).read_config()
    recipe = recipe_from_dict(config["recipe"])
    facts = {
        "recipe": Path(config.get("recipe_name", "paper")).name,
        "encoder_weights_from": config.get("encoder_weights_from"),
        "num_rows": {
            split: config[key]
            for split, key in (("train", "num_train_rows"), ("val", "num_val_rows"))
            if key in config
        },
        "versions": config.get("versions"),
    }
    return TrainedOn(
        rows=recipe.rows,
        regions=TARGETS["regions"] if recipe.target == "auto" else recipe.regions,
        fold=config["fold"],
        caches=tuple((one["fingerprint"], Path(one["path"])) for one in config["caches"]),
        facts={name: value for name, value in facts.items() if value},
        labels=config.get("labels") or {},
    )


def results_home(source: str | Path) -> Path:
    """The folder in which an evaluation of a model writes eval/SPLIT.

    It is the run or the exported folder itself; of a model on the hub, whose copy in the cache is
    not ours to write into, a folder named after it in `runs`.
    """
    name = hub_name(source)
    return RUNS / f"{name.owner}--{name.name}" if name else Path(source)


def _of_exported(folder: Path) -> TrainedOn:
    description = read_description(folder)
    held = dict(description.training)
    rows, fold = held.pop("rows", "all"), held.pop("fold", None)
    fingerprints = held.pop("caches", [])
    if rows not in ROWS:
        raise CheckpointError(
            f"{printable(folder)}: does not say what it was trained on in a way that this program "
            f"knows (rows {printable(rows)})."
        )
    return TrainedOn(
        rows=rows,
        regions=description.spec.regions,
        fold=fold,
        caches=tuple((fingerprint, None) for fingerprint in fingerprints),
        facts=held,
    )
