"""The search, to be read from top to bottom: trial after trial until the study has enough.

A trial is `brats train` in a process of its own. Its validation curve is followed for pruning, and
its value is the validation IoU of the epoch whose weights its best.pt holds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from optuna.trial import FrozenTrial, Trial, TrialState

from brats_cache.common.errors import BratsError, printable
from brats_cache.common.files import open_regular_file, write_atomically
from brats_cache.common.progress import duration
from brats_cache.format.cache_set import open_caches
from brats_train.data.selection import select_rows
from brats_train.models.sources import absolute
from brats_train.runtime.signals import InterruptHandler
from brats_train.training.curves import best_epoch
from brats_train.training.recipe import Recipe, recipe_to_dict
from brats_train.training.state import TrainJob
from brats_train.tuning.estimate import seconds_left
from brats_train.tuning.page import make_page
from brats_train.tuning.progress import Screen
from brats_train.tuning.space import Space
from brats_train.tuning.storage import storage_faults
from brats_train.tuning.study import (
    BEST_EPOCH,
    REASON,
    Study,
    Worker,
    best_of,
    finished_trials,
)
from brats_train.tuning.trial import LOG, TrialEnd, run_trial

__all__ = ["PAGE", "RECIPE", "Outcome", "TuneJob", "check_data", "objective", "settings_of", "tune"]

RECIPE, PAGE = "recipe.toml", "report.html"
WAIT_SECONDS = 1.0  # between looks at the last trials of other processes
SECONDS_BETWEEN_PAGES = 60.0
MAX_FAILURES = 3  # of the first trials, after which the search ends
_MARK = "# The best trial of a brats tune study"


@dataclass(frozen=True, kw_only=True)
class TuneJob:
    """What `brats tune` was asked to do.

    Attributes:
        folder: Of the study.
        storage: A database; None for a journal in the folder.
        space: What is searched.
        train: What every trial trains, except the fields that are searched.
        train_words: Options of `brats train` for every trial.
        num_trials: Finished trials that the study should have in the end.
        out: Where the best recipe goes.
    """

    folder: Path
    storage: str | None
    space: Space
    train: TrainJob
    train_words: Sequence[str]
    num_trials: int
    out: Path


@dataclass(frozen=True)
class Outcome:
    """How a search ended.

    Attributes:
        num_finished: Finished trials of the study.
        num_elsewhere: Trials that other machines still run.
        best: The best trial.
        is_interrupted: There is more to do.
    """

    num_finished: int
    num_elsewhere: int
    best: FrozenTrial | None
    is_interrupted: bool


def tune(job: TuneJob, log: Callable[[str], None]) -> Outcome:
    """Runs trials, beside other processes that do the same, until the study has enough.

    The best recipe and the study's page are written anew as it goes.

    Args:
        job: What to search.
        log: Takes lines of text for a person.

    Raises:
        BratsError: The data, the study or its storage cannot be used, `out` is a file that no
            study made, or the first trials have all failed.
    """
    settings = settings_of(job)
    _check_out(job.out)
    name = "--storage" if job.storage else printable(job.folder)
    with storage_faults(name), InterruptHandler() as interrupts:
        study = Study(job.folder, job.storage, job.space, job.train.recipe, settings)
        with Screen.open(log) as screen, study.worker() as worker:
            _Search(job, study, worker, screen, interrupts).run()
        return Outcome(
            num_finished=len(finished_trials(study.trials())),
            num_elsewhere=len(study.running()),
            best=best_of(study.trials()),
            is_interrupted=interrupts.requested,
        )


def settings_of(job: TuneJob) -> dict[str, Any]:
    """What must be equal in all processes of a study, as plain values.

    Raises:
        BratsError: A cache cannot be read, or it has nothing to validate on.
    """
    train = job.train
    return {
        "recipe": recipe_to_dict(train.recipe),
        "space": job.space.to_dict(),
        "caches": check_data(train),
        "fold": train.fold,
        "classify": train.classify,
        "init_from": absolute(train.init_from) if train.init_from else None,
        "max_minutes": train.max_minutes,
    }


def check_data(train: TrainJob) -> list[str]:
    """Checks that trials can be compared; returns the fingerprints of the caches.

    Raises:
        BratsError: See `settings_of`.
    """
    if train.fold == "all":
        raise BratsError(
            "--fold all: a trial has one validation curve. Tune on one fold, such as --fold 0, "
            "then train all folds with the best recipe."
        )
    caches = open_caches(train.cache_paths, same_modalities=False, by_fold=train.fold is not None)
    if not len(select_rows(caches, "val", train.recipe.rows, train.fold)):
        raise BratsError(
            f"{caches[0].path}: no validation slices (rows={train.recipe.rows}), by which trials "
            "are compared. Build the cache with --val-fraction or --folds, or choose a --fold."
        )
    return [cache.fingerprint for cache in caches]


def objective(rows: Sequence[Mapping[str, float]], recipe: Recipe) -> tuple[int, float]:
    """The epoch whose weights best.pt holds, from 1, and its validation IoU.

    Args:
        rows: Of metrics.csv, at least one.
        recipe: Of the trial.
    """
    epoch = best_epoch(rows, recipe.best_by)
    row = next(row for row in rows if row["epoch"] == epoch)
    return int(row["epoch"]), row["val_iou"]


class _Search:
    """The loop of one process."""

    def __init__(
        self,
        job: TuneJob,
        study: Study,
        worker: Worker,
        screen: Screen,
        interrupts: InterruptHandler,
    ) -> None:
        self.job, self.study, self.worker = job, study, worker
        self.screen, self.interrupts = screen, interrupts
        self.num_failed = 0
        self.page_written = 0.0

    def run(self) -> None:
        """Runs trials until there are enough, or an interrupt."""
        searched = ", ".join(self.job.space.distributions)
        self.screen.line(f"Study: {self.job.folder}, searches {searched}. {self._state()}")
        while not self.interrupts.requested:
            trial = self.worker.claim(self.job.num_trials)
            if trial is not None:
                self._run_trial(trial)
            elif self.study.running_here():
                # Should such a process be killed, its trial is taken over.
                self.screen.status(f"The last trials run in other processes. {self._state()}")
                time.sleep(WAIT_SECONDS)
            else:
                break
        self._publish(is_last=True)

    def _run_trial(self, trial: Trial) -> None:
        recipe = self.job.space.recipe(self.job.train.recipe, trial.params)
        run = self.study.run_of(trial)
        run.path.mkdir(parents=True, exist_ok=True)
        write_atomically(run.path / RECIPE, tomli_w.dumps(recipe_to_dict(recipe)).encode())
        verb = "goes on in" if run.config.exists() else "in"
        values = ", ".join(f"{name} {_shown(value)}" for name, value in trial.params.items())
        self.screen.line(f"Trial {trial.number} {verb} {run.path}: {values}")
        started = time.monotonic()

        def is_to_prune(row: Mapping[str, float]) -> bool:
            epoch = int(row["epoch"])
            trial.report(row["val_iou"], epoch)
            share, elapsed = epoch / recipe.epochs, time.monotonic() - started
            self.screen.status(
                f"Trial {trial.number}: epoch {epoch} of {recipe.epochs}, val iou "
                f"{row['val_iou']:.4f}. {self._state(elapsed, share)}"
            )
            return epoch < recipe.epochs and trial.should_prune()

        def is_interrupted() -> bool:
            self.worker.sign(trial)
            return self.interrupts.requested

        words = ["train", "--recipe", str(run.path / RECIPE), "--run-dir", str(run.path)]
        end = run_trial(
            [*words, "--resume", *self.job.train_words],
            run,
            inherited=self.worker.descriptor,
            is_to_prune=is_to_prune,
            is_interrupted=is_interrupted,
        )
        self._finish(trial, recipe, end)

    def _finish(self, trial: Trial, recipe: Recipe, end: TrialEnd) -> None:
        """Writes down how a trial ended, and says so."""
        run, study = self.study.run_of(trial), self.study.optuna
        if end.kind == "interrupted":
            with self.study.turn():
                (held,) = (one for one in self.study.trials() if one.number == trial.number)
                self.study.queue_again(held)
            return
        if end.rows:
            epoch, value = objective(end.rows, recipe)
            trial.set_user_attr(BEST_EPOCH, epoch)
            if not math.isfinite(value):
                end = TrialEnd("failed", end.rows, "there are no validation slices of its rows")
        if end.kind == "failed":
            trial.set_user_attr(REASON, end.reason)
            study.tell(trial, state=TrialState.FAIL)
            text = f"failed: {end.reason}"
        elif end.kind == "pruned":
            study.tell(trial, state=TrialState.PRUNED)
            text = f"pruned after epoch {len(end.rows)}, val iou {end.rows[-1]['val_iou']:.4f}."
            run.best.unlink(missing_ok=True)
        else:
            study.tell(trial, value)
            text = f"val iou {value:.4f} at epoch {epoch}."
        # A finished trial is not resumed; its state is three times as large as its model.
        run.last.unlink(missing_ok=True)
        self._publish()
        self.screen.line(f"Trial {trial.number} {text} {self._state()}")
        self._check_failures(end, run.path / LOG)

    def _check_failures(self, end: TrialEnd, log: Path) -> None:
        self.num_failed += end.kind == "failed"
        has_succeeded = any(
            trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in self.study.trials()
        )
        if self.num_failed >= MAX_FAILURES and not has_succeeded:
            raise BratsError(
                f"The first {self.num_failed} trials have all failed, the last one: {end.reason} "
                f"Its output is in {printable(log)}."
            )

    def _publish(self, *, is_last: bool = False) -> None:
        """Writes the best recipe and, now and then and at the end, the study's page."""
        with self.study.turn():
            trials = self.study.trials()
            best, text = best_of(trials), ""
            if best is not None:
                recipe = self.job.space.recipe(self.job.train.recipe, best.params)
                heading = (
                    f"{_MARK}: {printable(self.study.optuna.study_name)}, trial {best.number}, "
                    f"validation IoU {best.value:.4f}.\n# brats train --recipe FILE takes it.\n\n"
                )
                text = heading + tomli_w.dumps(recipe_to_dict(recipe))
                write_atomically(self.job.out, text.encode())
            if is_last or time.monotonic() - self.page_written > SECONDS_BETWEEN_PAGES:
                page = make_page(self.study, self.job.num_trials, text)
                write_atomically(self.job.folder / PAGE, page)
                self.page_written = time.monotonic()

    def _state(self, elapsed: float = 0.0, share_done: float = 0.0) -> str:
        """How many trials are finished, the best of them, and the time left."""
        trials, num_wanted = self.study.trials(), self.job.num_trials
        finished, best = finished_trials(trials), best_of(trials)
        text = f"{len(finished)} of {num_wanted} trials are finished"
        if best is not None:
            text += f", best val iou {best.value:.4f} (trial {best.number})"
        left = seconds_left(
            [one.duration.total_seconds() for one in finished if one.duration and one.values],
            num_wanted - len(finished),
            len(self.study.running()),
            elapsed=elapsed,
            share_done=share_done,
        )
        return text + (f", about {duration(left)} left." if left else ".")


def _check_out(path: Path) -> None:
    """Makes the folder of the best recipe. Raises `BratsError` where the file is no study's."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_regular_file(path) as file:
            is_ours = file.read(len(_MARK)) == _MARK.encode()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BratsError(f"--out {printable(path)}: cannot be used ({error.strerror}).") from error
    if not is_ours:
        raise BratsError(
            f"--out {printable(path)}: exists, and no study made it. Choose another file."
        )


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
