"""A study shared by several processes: whose turn it is, what is finished, what was abandoned.

Optuna keeps the trials. Beside it every process holds a lock file in `workers/`, which ends with
it, however it ends, and writes its name to the trials that it runs. A trial whose process is dead
is marked as failed and queued again, to go on in the same run directory; it counts once. Processes
that do not share the folder know each other's trials by the time at which they were last seen.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from brats_cache.common.errors import BratsError, printable
from brats_train.training.recipe import Recipe, recipe_from_dict, recipe_to_dict
from brats_train.training.run_dir import RunDir, differences
from brats_train.tuning.locks import hold, is_held
from brats_train.tuning.space import Space
from brats_train.tuning.storage import forged_records, open_storage
from brats_train.tuning.trial_record import fault_of

__all__ = ["Study", "best_of", "finished_trials"]

RUN, OWNER, RETRY_OF, BEST_EPOCH, REASON = "run", "owner", "retry_of", "best_epoch", "reason"
SECONDS_BETWEEN_SIGNS = 60.0
SECONDS_UNTIL_LOST = 600.0  # of a process elsewhere that gives no sign
_SETTINGS = "settings"
_WARMUP_SHARE = 0.2  # of the epochs, before which no trial is pruned


class Study:
    """One process's view of a study.

    Attributes:
        folder: Its folder.
        space: What is searched.
        optuna: The study as Optuna keeps it.
    """

    def __init__(
        self,
        folder: Path,
        storage: str | None,
        space: Space,
        base: Recipe,
        settings: Mapping[str, Any],
    ) -> None:
        """Opens a study, or begins one, whose first trial is then the recipe itself.

        Args:
            folder: Its folder, which is made; its last part is the study's name.
            storage: A database; None for a journal in the folder.
            space: What is searched.
            base: What holds for all trials.
            settings: Plain values that must be equal in all processes of the study.

        Raises:
            BratsError: The folder or the storage cannot be used, or the study has other settings.
        """
        self.folder, self.space, self._seed = folder, space, base.seed
        self._knows_all = storage is None  # no process elsewhere can write to a journal
        try:
            (folder / "workers").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BratsError(f"{printable(folder)}: cannot be made ({error.strerror}).") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self.turn():
            with forged_records(folder):
                self.optuna = optuna.create_study(
                    storage=open_storage(storage, folder),
                    study_name=folder.resolve().name,
                    direction="maximize",
                    load_if_exists=True,
                    pruner=MedianPruner(n_warmup_steps=round(_WARMUP_SHARE * base.epochs)),
                )
                self.optuna.get_trials(deepcopy=False)
            self._settle(json.loads(json.dumps(settings)), base)

    def _settle(self, settings: Mapping[str, Any], base: Recipe) -> None:
        """Writes down the settings of a new study, or compares them with those of an old one."""
        held = self.optuna.user_attrs.get(_SETTINGS)
        if held is None:
            if self.optuna.get_trials(deepcopy=False):
                raise BratsError(
                    f"{self.optuna.study_name}: the storage holds a study of this name that brats "
                    "tune did not make. Choose another --study."
                )
            params = self.space.own_params(base)
            if params is not None:
                self.optuna.enqueue_trial(params)
            self.optuna.set_user_attr(_SETTINGS, settings)
            return
        if not isinstance(held, dict) or not isinstance(held.get("recipe"), dict):
            raise self._forged("its settings are no settings of a search")
        # Recipes of older versions lack fields.
        recipe = recipe_to_dict(recipe_from_dict(held["recipe"]))
        held = {**held, "recipe": json.loads(json.dumps(recipe))}
        found = [
            f"{name}: {json.dumps(before)} there, {json.dumps(now)} now"
            for part in settings
            for name, (before, now) in differences(part, [held.get(part), settings[part]])
        ]
        if found:
            lines = "\n".join(f"  {line}" for line in found)
            raise BratsError(
                f"{printable(self.folder)}: holds a study of other settings:\n{lines}\n"
                "Go on with its own, or choose another --study."
            )

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until no other process of the folder is within this context."""
        with hold(self.folder / ".turn"):
            yield

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """This process as one of those that run trials."""
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        with ExitStack() as stack:
            with self.turn():  # a file that is not locked yet would be taken for a dead process's
                descriptor = stack.enter_context(hold(self._worker_path(name)))
            yield Worker(self, name, descriptor)

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number. Raises `BratsError` where brats tune cannot have made one."""
        trials = self.optuna.get_trials(deepcopy=False)
        for trial in trials:
            if fault := fault_of(trial, self.space):
                raise self._forged(f"trial {trial.number}: {fault}")
        return trials

    def _forged(self, found: str) -> BratsError:
        return BratsError(
            f"{printable(self.folder)}: its storage holds what brats tune did not write "
            f"({printable(found)}). Put back a copy, or choose another --study."
        )

    def running(self) -> list[FrozenTrial]:
        """The trials that a process runs now, as far as can be known."""
        running = [trial for trial in self.trials() if trial.state == TrialState.RUNNING]
        return [trial for trial in running if not self._is_abandoned(trial)]

    def running_here(self) -> list[FrozenTrial]:
        """Those of them whose process shares the folder, so that its end will be seen."""
        return [trial for trial in self.running() if self._is_alive(trial) is not None]

    def queue_abandoned(self) -> None:
        """Queues the trials of processes that have ended again. In one's own turn alone."""
        for trial in self.trials():
            if trial.state == TrialState.RUNNING and self._is_abandoned(trial):
                self.queue_again(trial)
        for path in (self.folder / "workers").iterdir():
            if is_held(path) is False:
                path.unlink(missing_ok=True)

    def queue_again(self, trial: FrozenTrial) -> None:
        """Marks a trial as failed and queues its parameters, to go on in its run directory.

        Queued first: killed in between, it is found to be queued the next time.
        """
        if trial.number not in _retried(self.trials()):
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            run = trial.user_attrs.get(RUN, _run_name(trial.number))
            self.optuna.enqueue_trial(params, user_attrs={RUN: run, RETRY_OF: trial.number})
        self.optuna.tell(trial.number, state=TrialState.FAIL)

    def run_of(self, trial: FrozenTrial | Trial) -> RunDir:
        """The run directory of a trial."""
        return RunDir(self.folder / trial.user_attrs.get(RUN, _run_name(trial.number)))

    def ask(self) -> Trial:
        """A new trial with its parameters, or one that was queued. In one's own turn alone."""
        # Seeded for each trial, so that processes that begin together draw other values.
        seed = (self._seed + len(self.trials())) % 2**32
        self.optuna.sampler = TPESampler(seed=seed)
        return self.optuna.ask(dict(self.space.distributions))

    def _worker_path(self, name: str) -> Path:
        return self.folder / "workers" / name

    def _is_alive(self, trial: FrozenTrial) -> bool | None:
        """Whether a trial's process is alive; None where it does not share the folder."""
        owner = trial.user_attrs.get(OWNER)
        return None if owner is None else is_held(self._worker_path(owner["worker"]))

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        is_alive = self._is_alive(trial)
        if is_alive is not None:
            return not is_alive
        if self._knows_all:  # killed before it signed, or long gone
            return True
        seen = trial.user_attrs.get(OWNER, {}).get("seen", 0.0)
        return bool(time.time() - seen > SECONDS_UNTIL_LOST)


class Worker:
    """A process that runs trials.

    Attributes:
        descriptor: Of its lock, for the trials' processes to inherit: a trial is abandoned when
            both are dead.
    """

    def __init__(self, study: Study, name: str, descriptor: int) -> None:
        self._study, self._name, self.descriptor = study, name, descriptor
        self._signed = 0.0

    def claim(self, num_wanted: int) -> Trial | None:
        """Takes a trial, None where as many as are wanted are finished or running.

        Args:
            num_wanted: Finished trials that the study should have in the end.
        """
        study = self._study
        with study.turn():
            study.queue_abandoned()
            if len(finished_trials(study.trials())) + len(study.running()) >= num_wanted:
                return None
            trial = study.ask()
            self._signed = 0.0
            self.sign(trial)
            return trial

    def sign(self, trial: Trial) -> None:
        """Writes down that this process runs a trial, now and then."""
        if time.monotonic() - self._signed > SECONDS_BETWEEN_SIGNS or not self._signed:
            self._signed = time.monotonic()
            trial.set_user_attr(OWNER, {"worker": self._name, "seen": time.time()})


def finished_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count: complete, pruned, and failed by themselves."""
    retried = _retried(trials)
    return [
        trial
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (trial.state == TrialState.FAIL and trial.number not in retried)
    ]


def best_of(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial of the greatest value, the first of equal ones."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


def _retried(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials that were queued again."""
    return {trial.user_attrs[RETRY_OF] for trial in trials if RETRY_OF in trial.user_attrs}


def _run_name(number: int) -> str:
    return f"trials/{number:04}"
