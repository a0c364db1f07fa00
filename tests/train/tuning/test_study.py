"""A study that processes share: trials are counted once, and none that was finished is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from brats_cache.common.errors import BratsError
from brats_train.training.recipe import apply_settings, recipe_to_dict
from brats_train.tuning import study as module
from brats_train.tuning.storage import JOURNAL, open_storage, storage_faults
from brats_train.tuning.study import RETRY_OF, RUN, Study, best_of, finished_trials
from tests.train.tuning.studies import BASE, finish, open_study

CLAIMS_AND_WAITS = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.train.tuning.studies import open_study
with open_study(Path(sys.argv[1])).worker() as worker:
    trial = worker.claim(5)
    print(trial.number, flush=True)
    time.sleep(600)
"""
ROOT = Path(__file__).resolve().parents[3]


def lr_of(params: dict) -> float:
    return params["lr"]


@pytest.fixture(params=["journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return f"sqlite:///{tmp_path / 'study.db'}" if request.param == "sqlite" else None


def test_the_first_trial_is_the_recipe_itself(tmp_path: Path) -> None:
    with open_study(tmp_path).worker() as worker:
        trial = worker.claim(3)
        assert trial is not None
        assert trial.params == {"optimizer": "adamw", "lr": 1e-4, "batch_size": 64}
        assert worker.claim(3).params != trial.params  # type: ignore[union-attr]


def test_a_study_has_as_many_trials_as_were_asked_for(tmp_path: Path, storage: str | None) -> None:
    finish(open_study(tmp_path, storage=storage), lr_of, 3)
    again = open_study(tmp_path, storage=storage)
    assert len(finished_trials(again.trials())) == 3
    finish(again, lr_of, 3)
    assert len(again.trials()) == 3
    finish(again, lr_of, 5)
    assert len(again.trials()) == 5
    best = best_of(again.trials())
    assert best is not None
    assert best.value == max(trial.value or 0 for trial in again.trials())


def test_two_processes_share_the_trials_and_draw_other_ones(
    tmp_path: Path, storage: str | None
) -> None:
    one, other = (open_study(tmp_path, storage=storage) for _ in range(2))
    with one.worker() as first, other.worker() as second:
        trials = [worker.claim(4) for worker in (first, second, first, second)]
        assert first.claim(4) is second.claim(4) is None
        assert [trial.number for trial in trials if trial] == [0, 1, 2, 3]
        assert len({str(trial.params) for trial in trials if trial}) == 4
        assert len(one.running_here()) == 4
        for trial in trials:
            one.optuna.tell(trial, 0.5)  # type: ignore[arg-type]
        assert second.claim(4) is None
        assert one.running_here() == []


def test_a_trial_of_a_dead_process_goes_on_in_its_folder_and_counts_once(
    tmp_path: Path, storage: str | None
) -> None:
    study = open_study(tmp_path, storage=storage)
    with study.worker() as worker:
        left = worker.claim(2)
    assert left is not None
    study = open_study(tmp_path, storage=storage)
    with study.worker() as worker:
        taken = worker.claim(2)
        assert taken is not None
        assert taken.number != left.number
        assert taken.params == left.params
        assert study.run_of(taken).path == study.run_of(study.trials()[0]).path
        assert taken.user_attrs[RETRY_OF] == left.number
        study.optuna.tell(taken, 0.5)
        finish(study, lr_of, 2)
    states = [trial.state for trial in study.trials()]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert len(finished_trials(study.trials())) == 2


def test_a_trial_that_is_left_again_and_again_keeps_its_folder(tmp_path: Path) -> None:
    for _ in range(4):
        study = open_study(tmp_path)
        with study.worker() as worker:
            trial = worker.claim(1)
            assert trial is not None
    assert study.run_of(trial).path.name == "0000"
    assert trial.params["lr"] == 1e-4
    finish(open_study(tmp_path), lr_of, 1)
    assert len(finished_trials(open_study(tmp_path).trials())) == 1


def test_killed_while_a_trial_is_queued_again_it_is_queued_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(tmp_path)
    with study.worker() as worker:
        worker.claim(2)
    with monkeypatch.context() as patch:
        patch.setattr(study.optuna, "tell", lambda *words, **named: None)
        study.queue_abandoned()  # the process ends before it marks the trial as failed
    study = open_study(tmp_path)
    study.queue_abandoned()
    assert [trial.state for trial in study.trials()] == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_whose_process_died_before_signing_is_queued_again(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    with study.turn():
        study.ask()
    assert study.running() == []
    study.queue_abandoned()
    assert [trial.state for trial in study.trials()] == [TrialState.FAIL, TrialState.WAITING]
    assert study.trials()[1].user_attrs == {RUN: "trials/0000", RETRY_OF: 0}


def test_a_trial_of_another_machine_is_left_alone_until_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here, there = (open_study(tmp_path / name, storage=url) for name in ("here", "there"))
    with there.worker() as worker:
        trial = worker.claim(1)
        assert trial is not None
        with here.worker() as other:
            assert other.claim(1) is None
            assert [one.number for one in here.running()] == [trial.number]
            assert here.running_here() == []  # its end may never be seen, so nobody waits for it
    with here.worker() as other:
        assert other.claim(1) is None  # it is dead, but that cannot be seen from here
        later = time.time() + module.SECONDS_UNTIL_LOST + 1
        monkeypatch.setattr(module.time, "time", lambda: later)
        taken = other.claim(1)
        assert taken is not None
        assert taken.params == trial.params


@pytest.mark.kills
def test_a_killed_process_loses_its_trial_at_once_and_a_living_one_does_not(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", CLAIMS_AND_WAITS, str(tmp_path), str(ROOT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"0"
        study = open_study(tmp_path)
        assert len(study.running_here()) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert study.running() == []
    with study.worker() as worker:
        trial = worker.claim(5)
        assert trial is not None
        assert trial.user_attrs[RETRY_OF] == 0
    assert len(list((study.folder / "workers").iterdir())) == 1  # its own


def test_failed_trials_count_and_are_never_the_best(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    with study.worker() as worker:
        study.optuna.tell(worker.claim(2), state=TrialState.FAIL)  # type: ignore[arg-type]
        trial = worker.claim(2)
        assert trial is not None
        trial.report(0.9, 1)
        study.optuna.tell(trial, state=TrialState.PRUNED)
        assert worker.claim(2) is None
    assert best_of(study.trials()) is None


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    recipe = recipe_to_dict(BASE)
    open_study(tmp_path, settings={"recipe": recipe | {"loss": {"name": "dice"}}, "fold": 0})
    other = recipe_to_dict(apply_settings(BASE, ["loss.name=iou"]))
    with pytest.raises(BratsError, match=r"holds a study of other settings") as caught:
        open_study(tmp_path, settings={"recipe": other, "fold": 1})
    text = str(caught.value)
    assert 'loss.name: "dice" there, "iou" now' in text
    assert "fold: 0 there, 1 now" in text
    assert "lr" not in text


def test_a_study_of_an_older_version_goes_on(tmp_path: Path) -> None:
    """Its recipe lacks fields, which have the values that they had then."""
    recipe = recipe_to_dict(BASE)
    open_study(tmp_path, settings={"recipe": {k: recipe[k] for k in recipe if k != "optimizer"}})
    open_study(tmp_path, settings={"recipe": recipe})


def test_a_study_of_somebody_elses_is_not_continued(tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path / 'study.db'}"
    theirs = optuna.create_study(storage=url, study_name="study")
    theirs.tell(theirs.ask(), 1.0)
    with pytest.raises(BratsError, match="brats tune did not make"):
        open_study(tmp_path, storage=url)


def test_a_storage_that_cannot_be_opened_is_one_message_without_its_password(
    tmp_path: Path,
) -> None:
    for url in ("nonsense", "postgresql://me:secret@nowhere/x", "sqlite:////nowhere/at/all.db"):
        with pytest.raises(BratsError, match=r"--storage .*cannot be opened") as caught:
            open_storage(url, tmp_path)
        assert "secret" not in str(caught.value)


def test_a_closed_pipe_is_no_fault_of_the_storage() -> None:
    """As of `brats tune | head`, which ends quietly."""
    with pytest.raises(BrokenPipeError), storage_faults("study"):
        raise BrokenPipeError
    with (
        pytest.raises(BratsError, match="study: the study"),
        storage_faults("study"),
    ):
        raise OSError(28, "No space left on device")


def test_a_torn_record_is_cut_and_the_rest_is_kept(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    finish(study, lr_of, 2)
    journal = study.folder / JOURNAL
    with open(journal, "ab") as file:
        file.write(b'{"op_code":4,"wor')
    again = open_study(tmp_path)
    finish(again, lr_of, 3)
    assert len(finished_trials(open_study(tmp_path).trials())) == 3


def test_a_damaged_journal_is_one_message(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    finish(study, lr_of, 2)
    journal = study.folder / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"nonsense\n", *lines[1:]]))
    with pytest.raises(BratsError, match=r"journal\.log: damaged"):
        open_study(tmp_path)


def change_records(study: Study, key: str, value: object) -> None:
    """Gives a key of the journal's records, wherever it stands, another value."""

    def changed(record: object) -> object:
        if isinstance(record, dict):
            return {name: value if name == key else changed(one) for name, one in record.items()}
        return record

    journal = study.folder / JOURNAL
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text("".join(f"{json.dumps(changed(line))}\n" for line in lines))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("op_code", 99),
        ("op_code", "x"),
        ("state", 77),
        ("datetime_complete", "x"),
        ("settings", "x"),
        ("recipe", "x"),
        ("worker", "../../x"),
        ("owner", "x"),
        ("param_name", "nosuch"),
        ("param_value_internal", 1e9),
        ("values", ["x"]),
        ("values", [float("nan")]),
        ("values", [0.5, 0.5]),
        ("step", "x"),
        ("intermediate_value", "x"),
    ],
)
def test_a_forged_journal_is_one_message(tmp_path: Path, key: str, value: object) -> None:
    study = open_study(tmp_path)
    finish(study, lr_of, 1)
    change_records(study, key, value)
    with pytest.raises(BratsError, match=r"study: its storage .*choose another --study\."):
        open_study(tmp_path).trials()


@pytest.mark.parametrize("run", ["../../outside", "/tmp/outside", "trials/0000/../../x", 5])
def test_a_trial_cannot_lead_out_of_its_study(tmp_path: Path, run: object) -> None:
    study = open_study(tmp_path)
    study.optuna.enqueue_trial({"lr": 1e-4}, user_attrs={RUN: run})
    with pytest.raises(BratsError, match=r"trial 1: run: ") as caught, study.worker() as worker:
        worker.claim(3)
    assert "\n" not in str(caught.value)


def test_pruning_begins_after_a_fifth_of_the_epochs(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    with study.worker() as worker:
        for value in (0.5, 0.6, 0.7, 0.8, 0.9):
            trial = worker.claim(7)
            assert trial is not None
            for epoch in range(1, BASE.epochs + 1):
                trial.report(value, epoch)
                assert not trial.should_prune()
            study.optuna.tell(trial, value)
        for value, is_pruned in ((0.1, True), (0.95, False)):
            trial = worker.claim(7)
            assert trial is not None
            trial.report(value, 1)
            assert not trial.should_prune()
            trial.report(value, 2)
            assert trial.should_prune() == is_pruned
            study.optuna.tell(trial, value)
