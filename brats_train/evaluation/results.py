"""Reading the results of an evaluation: the summary and the scores of every case."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from brats_cache.common.csv_names import read_name
from brats_cache.common.errors import BratsError, first_line, printable
from brats_cache.common.files import read_json, read_small_file
from brats_cache.discovery.patients import patient_of
from brats_train.data.selection import RowRule
from brats_train.evaluation.metrics import EmptyRule
from brats_train.models.postprocessing import Postprocessing
from brats_train.runtime.settings import first_fault

__all__ = ["CaseRow", "FileEntry", "Results", "ScoredModel", "read_results"]


Name = Annotated[str, Field(min_length=1)]


class FileEntry(BaseModel):
    """A file that config.json or summary.json names.

    Attributes:
        path: Where it lay.
        fingerprint: What it held.
    """

    model_config = ConfigDict(strict=True)
    path: Name
    fingerprint: Name


class _Mean(BaseModel):
    """A mean over cases and its interval, each None where it is undefined."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    mean: float | None
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _has_both_ends(self) -> _Mean:
        if (self.low is None) != (self.high is None):
            raise ValueError("expected low and high, or neither")
        return self


class _Score(BaseModel):
    """A score of cases and its interval, each None where it is undefined."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    value: float | None
    low: float | None
    high: float | None


class _Classification(BaseModel):
    """Scores of labels, see `classification.summarise_classes`."""

    model_config = ConfigDict(strict=True)
    classes: Annotated[list[str], Field(min_length=2)]
    num_cases: int
    accuracy: _Score
    balanced_accuracy: _Score
    auc: _Score
    confusion: list[list[int]]

    @model_validator(mode="after")
    def _is_square(self) -> _Classification:
        if [len(row) for row in self.confusion] != [len(self.classes)] * len(self.classes):
            raise ValueError("expected a row and a column of confusion for each class")
        return self


class _Expected(BaseModel):
    """The expected Dice beside the true one, see `expectation.summarise_expected`."""

    rank_correlation: _Score
    mean_absolute_error: _Score


class _Region(BaseModel):
    """The scores of a region, of which older versions had fewer."""

    dice: _Mean
    hd95: _Mean | None = None
    nsd: _Mean | None = None
    sensitivity: _Mean | None = None
    precision: _Mean | None = None
    lesion_dice: _Mean | None = None
    expected_dice: _Expected | None = None


class _Fold(BaseModel):
    model_config = ConfigDict(strict=True)
    fold: int | None = None
    checkpoints: list[FileEntry] = []


class _Summary(_Fold):
    """What commands read from summary.json; its other fields are for people."""

    split: str
    num_cases: Annotated[int, Field(ge=0)]
    num_patients: Annotated[int, Field(ge=0)] | None = None  # older versions did not count them
    patients: dict[str, str] = {}
    slice_rows: RowRule
    empty: EmptyRule
    slice_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    device: str = ""
    amp: str = ""
    regions: Annotated[dict[Literal["wt", "tc", "et"], _Region], Field(min_length=1)]
    caches: list[FileEntry]
    predictions: Name = "none"
    definitions: dict[str, str] = {}
    folds: list[_Fold] = []
    classification: _Classification | None = None


@dataclass(frozen=True, kw_only=True)
class CaseRow:
    """A row of cases.csv: the scores of one region of one case, NaN where there is none."""

    case: str
    region: str
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ScoredModel:
    """A model that was scored.

    Attributes:
        fold: The fold that it scored, None for an ordinary run.
        postprocessing: The rules that its masks were made by.
        checkpoints: Path and fingerprint of each checkpoint file.
    """

    fold: int | None
    postprocessing: Postprocessing
    checkpoints: Sequence[Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Results:
    """An evaluation.

    Attributes:
        folder: "RUN/eval/SPLIT".
        summary: What summary.json holds.
        rows: The rows of cases.csv.
        models: What was scored: one model, or of a cross-validation that of each fold; none where
            the masks were made elsewhere.
    """

    folder: Path
    summary: Mapping[str, Any]
    rows: Sequence[CaseRow]
    models: Sequence[ScoredModel]

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that were scored, in the order of the summary."""
        return tuple(self.summary["regions"])

    @property
    def cases(self) -> tuple[str, ...]:
        """Case ids, each once, in the order of cases.csv."""
        return tuple(dict.fromkeys(row.case for row in self.rows))

    def patient(self, case: str) -> str:
        """The patient of a case, as the cache names them; older versions did not write that."""
        return self.summary.get("patients", {}).get(case) or patient_of(case)

    def values(self, region: str, name: str) -> dict[str, float]:
        """The score `name` of `region` by case id, for the cases that have the region."""
        return {
            row.case: row.scores.get(name, math.nan) for row in self.rows if row.region == region
        }


def read_results(folder: Path) -> Results | None:
    """Reads the evaluation in a folder.

    Returns:
        The evaluation, None where there is none.

    Raises:
        BratsError: Its files cannot be understood.
    """
    summary_path, table_path = folder / "summary.json", folder / "cases.csv"
    if not summary_path.is_file() or not table_path.is_file():
        return None
    try:
        summary = read_json(summary_path)
        _Summary.model_validate(summary)
        table = io.StringIO(read_small_file(table_path).decode(), newline="")
        rows = [_row(line) for line in csv.DictReader(table)]
        results = Results(folder=folder, summary=summary, rows=rows, models=_models(summary))
        unknown = {row.region for row in rows} - set(results.regions)
    except (csv.Error, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = repr(error) if isinstance(error, KeyError) else first_line(error)
        if isinstance(error, ValidationError):
            what = f"summary.json: {first_fault(error)}"
        raise _unreadable(folder, what) from error
    if not rows or unknown:
        what = f"regions {sorted(unknown)} that its summary lacks" if unknown else "no cases"
        raise _unreadable(folder, what)
    return results


def _models(summary: Mapping[str, Any]) -> list[ScoredModel]:
    if "predictions" in summary:  # masks made elsewhere
        return []
    return [
        ScoredModel(
            fold=one.get("fold"),
            postprocessing=Postprocessing.unpack(one["postprocessing"])
            if "postprocessing" in one
            else Postprocessing.unpack_flat(one, tuple(summary["regions"])),
            checkpoints=one["checkpoints"],
        )
        for one in summary.get("folds", [summary])
    ]


def _row(line: Mapping[str, str]) -> CaseRow:
    names = [name for name in line if name not in ("case", "region")]
    scores = {name: float(line[name]) if line[name] else math.nan for name in names}
    if any(map(math.isinf, scores.values())):
        raise ValueError("an infinite score")
    return CaseRow(case=read_name(line["case"]), region=line["region"], scores=scores)


def _unreadable(folder: Path, found: str) -> BratsError:
    return BratsError(
        f"{printable(folder)}: summary.json and cases.csv are no evaluation of this program "
        f"({printable(found)}). Score the run again with brats eval."
    )
