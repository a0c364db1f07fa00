"""The search: with trials that only say how they went, and with two that are trained."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from optuna.trial import TrialState

from brats_cache.common.errors import BratsError
from brats_train.runtime.signals import InterruptHandler
from brats_train.training.recipe import RECIPES, apply_settings, load_recipe
from brats_train.training.run_dir import RunDir
from brats_train.training.state import TrainJob
from brats_train.tuning import search as module
from brats_train.tuning.search import TuneJob, check_data, objective, tune
from brats_train.tuning.study import REASON, finished_trials
from brats_train.tuning.trial import TrialEnd
from tests.commands import LAUNCHER, SMALL_ENCODER, run_brats
from tests.train.runs import call
from tests.train.tuning.studies import BASE, make_space, open_study, row_of

TRAINING = (
    *("--encoder-weights", "none", "--set", f"model.encoder={SMALL_ENCODER}"),
    *("--set", "rows=tumor"),
    *("--batch-size", "24", "--amp", "off", "--device", "cpu"),
)
SMALL_SPACE = 'optimizer = ["adam", "sgd"]\nlr = { low = 1e-3, high = 1e-2, log = true }\n'


def rows_of(curve: Sequence[float]) -> list[dict[str, float]]:
    return [row_of(epoch, iou) for epoch, iou in enumerate(curve, start=1)]


def ends_with(*curves: Sequence[float] | str) -> Callable[..., TrialEnd]:
    """A `run_trial` whose trials have these curves one after the other, or fail for a reason."""
    left = list(curves)

    def run_trial(words: Sequence[str], run: RunDir, **hooks: Any) -> TrialEnd:
        curve = left.pop(0)
        hooks["is_interrupted"]()
        if isinstance(curve, str):
            return TrialEnd("interrupted" if curve == "interrupted" else "failed", [], curve)
        run.best.write_bytes(b"model")
        run.last.write_bytes(b"state")
        for number, row in enumerate(rows_of(curve), start=1):
            if hooks["is_to_prune"](row):
                return TrialEnd("pruned", rows_of(curve)[:number])
        return TrialEnd("complete", rows_of(curve))

    return run_trial


@pytest.fixture
def job(tmp_path: Path, cache_path: Path) -> TuneJob:
    train = TrainJob(cache_paths=(cache_path,), recipe_name="paper", recipe=BASE)
    return TuneJob(
        folder=tmp_path / "study",
        storage=None,
        space=make_space(tmp_path),
        train=train,
        train_words=["--device", "cpu"],
        num_trials=3,
        out=tmp_path / "found" / "best.toml",
    )


def run(job: TuneJob, patch: pytest.MonkeyPatch, *curves: Sequence[float] | str) -> list[str]:
    said: list[str] = []
    patch.setattr(module, "run_trial", ends_with(*curves))
    tune(job, said.append)
    return said


def states(job: TuneJob) -> list[TrialState]:
    return [trial.state for trial in open_study_of(job).trials()]


@pytest.fixture(autouse=True)
def _plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The study's page is drawn in test_page.py."""
    monkeypatch.setattr(module, "make_page", lambda *_: b"page")


def open_study_of(job: TuneJob) -> Any:
    return open_study(job.folder.parent, settings=module.settings_of(job))


def test_the_objective_is_the_epoch_that_best_holds() -> None:
    rows = rows_of([0.2, 0.8, 0.5])
    for best_by, epoch in {"last": 3, "iou": 2, "iou_loss": 2}.items():
        recipe = apply_settings(BASE, [f"best_by={best_by}"])
        assert objective(rows, recipe) == (epoch, rows[epoch - 1]["val_iou"])
    rows[0]["val_loss"] = 0.1
    assert objective(rows, apply_settings(BASE, ["best_by=loss"])) == (1, 0.2)


def test_the_best_is_written_as_a_recipe_that_train_takes(
    job: TuneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run(job, monkeypatch, [0.1, 0.2], [0.3, 0.9], [0.1, 0.4])
    study = open_study_of(job)
    best = study.trials()[1]
    assert best.value == 0.9
    assert load_recipe(str(job.out)) == job.space.recipe(BASE, best.params)
    assert load_recipe(str(study.run_of(best).path / "recipe.toml")) == load_recipe(str(job.out))
    assert "3 of 3 trials are finished, best val iou 0.9000 (trial 1)" in said[-1]
    assert (job.folder / "report.html").is_file()


def test_the_state_of_finished_trials_is_removed_and_models_of_complete_ones_stay(
    job: TuneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(job, monkeypatch, [0.5], [0.6], [0.7])
    for folder in (job.folder / "trials").iterdir():
        assert (folder / "best.pt").exists()
        assert not (folder / "last.pt").exists()


def test_a_failed_trial_is_not_the_end(job: TuneJob, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(job, monkeypatch, [0.5], "out of memory", [0.6])
    assert states(job) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert open_study_of(job).trials()[1].user_attrs[REASON] == "out of memory"
    assert any("Trial 1 failed: out of memory" in line for line in said)


def test_a_trial_without_a_validation_iou_has_failed(
    job: TuneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows, which a space can hold, are none of the validation cases'."""
    run(job, monkeypatch, [0.5], [float("nan")], [0.6])
    assert states(job) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]


def test_failures_from_the_first_are_the_end_and_typed_again_it_goes_on(
    job: TuneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BratsError, match=r"The first 3 trials have all failed.*no weights.*log"):
        run(job, monkeypatch, "no weights", "no weights", "no weights")
    again = module.TuneJob(**{**vars(job), "num_trials": 4})
    run(again, monkeypatch, [0.5])
    assert states(job)[-1] == TrialState.COMPLETE


def test_a_bad_curve_is_pruned(job: TuneJob, monkeypatch: pytest.MonkeyPatch) -> None:
    long = module.TuneJob(**{**vars(job), "num_trials": 6})
    good = [[0.5 + 0.01 * number] * 10 for number in range(5)]
    said = run(long, monkeypatch, *good, [0.1] * 10)
    assert states(job) == [TrialState.COMPLETE] * 5 + [TrialState.PRUNED]
    assert any("Trial 5 pruned after epoch 2, val iou 0.1000" in line for line in said)
    assert not (job.folder / "trials" / "0005" / "best.pt").exists()


def test_an_interrupted_trial_goes_on_with_the_next_start(
    job: TuneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(InterruptHandler):
        def __init__(self) -> None:
            super().__init__()
            self.looked = 0

        @property
        def requested(self) -> bool:
            self.looked += 1
            return self.looked > 2

        @requested.setter
        def requested(self, value: bool) -> None:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(module, "InterruptHandler", Interrupted)
        run(job, patch, "interrupted")
    assert states(job) == [TrialState.FAIL, TrialState.WAITING]
    run(job, monkeypatch, [0.5], [0.6], [0.7])
    study = open_study_of(job)
    assert len(finished_trials(study.trials())) == 3
    assert study.trials()[1].user_attrs["run"] == "trials/0000"
    assert study.trials()[1].params == study.trials()[0].params


def test_a_study_without_validation_slices_or_with_all_folds_is_refused(
    job: TuneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "select_rows", lambda *words: [])
    with pytest.raises(BratsError, match="no validation slices"):
        check_data(job.train)
    with pytest.raises(BratsError, match="--fold all"):
        check_data(TrainJob(**{**vars(job.train), "fold": "all"}))


def test_a_file_of_somebody_elses_is_not_replaced(
    job: TuneJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.out.parent.mkdir()
    job.out.write_text("lr = 1\n")
    with pytest.raises(BratsError, match="no study made it"):
        run(job, monkeypatch)
    assert job.out.read_text() == "lr = 1\n"
    job.out.unlink()
    run(job, monkeypatch, [0.5], [0.6], [0.7])
    run(job, monkeypatch)  # its own is


def test_a_typo_is_one_message_before_anything_is_made(
    tmp_path: Path, cache_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "space.toml").write_text("optimiser = ['sgd']")
    words = ("tune", "--cache", cache_path, "--space", tmp_path / "space.toml")
    call(*words, "--study", tmp_path / "study", code=1)
    assert "optimiser: no such field; did you mean optimizer" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_options_of_train_go_to_the_trials_and_fix_fields(
    tmp_path: Path, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[TuneJob] = []

    def note(job: TuneJob, log: Callable[[str], None]) -> None:
        jobs.append(job)
        raise click.Abort

    monkeypatch.setattr(module, "tune", note)
    monkeypatch.setenv("BRATS_TUNE_EPOCHS", "7")
    words = ("--cache", "a b.h5", "--cache", cache_path, "--lr", "0.5", "--recipe", "strong")
    more = ("--set", "loss.name=dice", "--fold", 0, "--deterministic", "--device", "cpu")
    call("tune", *words, *more, "--study", tmp_path / "s", code=130)
    (job,) = jobs
    assert job.train_words == [
        *("--cache", "a b.h5", "--cache", str(cache_path), "--epochs", "7", "--lr", "0.5"),
        *("--fold", "0", "--device", "cpu", "--deterministic", "--set", "loss.name=dice"),
    ]
    assert job.train.recipe == apply_settings(
        RECIPES["strong"], ["lr=0.5", "epochs=7", "loss.name=dice"]
    )
    assert not {"lr", "loss.name"} & set(job.space.distributions)
    assert {"optimizer", "batch_size"} <= set(job.space.distributions)
    assert job.out == tmp_path / "s" / "best.toml"


def test_under_torchrun_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    call("tune", code=1)
    assert "without torchrun" in capsys.readouterr().err


@pytest.mark.kills
@pytest.mark.slow
def test_a_search_trains_is_killed_and_goes_on(tmp_path: Path, cache_path: Path) -> None:
    """With real trainings: a trial outlives a kill, and the best can be trained with."""
    study = tmp_path / "study"
    (tmp_path / "space.toml").write_text(SMALL_SPACE)
    words: Sequence[object] = ("tune", "--cache", cache_path, "--study", study, *TRAINING)
    words = (*words, "--space", tmp_path / "space.toml", "--trials", 1, "--epochs", 2)
    command = [sys.executable, str(LAUNCHER), *map(str, words), "--save-minutes", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        first = RunDir(study / "trials" / "0000")
        while not first.last.exists():
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    done = run_brats(*words, "--save-minutes", 0)
    assert "Trial 1 goes on in" in done.stdout
    assert "1 of 1 trials are finished" in done.stdout
    assert "brats train --recipe" in done.stdout
    names = sorted(path.name for path in (study / "trials").iterdir())
    assert names == ["0000"]
    values: Mapping[str, Any] = tomllib.loads((study / "best.toml").read_text())
    assert values["epochs"] == 2
    for name in names:
        config = json.loads((study / "trials" / name / "config.json").read_text())
        assert config["recipe"]["batch_size"] == 24
        assert len(RunDir(study / "trials" / name).read_metrics()) == 2
