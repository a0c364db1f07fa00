"""A run directory belongs to one command at a time, and what it holds is whole or refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from brats_cache.common.errors import BratsError
from brats_train.models.run_files import fold_folders
from brats_train.training import run_lock
from brats_train.training.metrics_file import METRIC_COLUMNS
from brats_train.training.recipe import load_recipe, recipe_to_dict
from brats_train.training.run_dir import RunDir, decisive, differences

HOLDS_FOR_EVER = """
import sys, time
from pathlib import Path
from brats_train.training.run_lock import run_lock
with run_lock(Path(sys.argv[1]), "brats train"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.new(tmp_path / "one", "paper")


def config(**changes: Any) -> dict[str, Any]:
    caches = [{"path": "/data/brats.h5", "fingerprint": "0123456789abcdef"}]
    recipe = recipe_to_dict(load_recipe("strong"))
    return {"recipe": recipe, "caches": caches, "fold": None, **changes}


def row_of(epoch: int) -> dict[str, float]:
    return dict.fromkeys(METRIC_COLUMNS, 1 / 3) | {"epoch": epoch}


def test_runs_without_a_name_have_directories_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return cls(2026, 3, 4, 5, 6, 7)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("brats_train.training.run_dir.datetime", Clock)
    names = [RunDir.new(None, "recipes/own.toml").path.name for _ in range(3)]
    assert names == ["own-20260304-050607", "own-20260304-050607-2", "own-20260304-050607-3"]


def test_a_link_is_followed_once(run: RunDir, tmp_path: Path) -> None:
    """A training that begins meanwhile points runs/latest at its own run."""
    run.write_config(config())
    link = tmp_path / "latest"
    link.symlink_to(run.path)
    held = RunDir.existing(link), RunDir.new(link, "paper")
    link.unlink()
    link.symlink_to(tmp_path)
    assert [one.path for one in held] == [run.path.resolve()] * 2


def test_a_second_command_is_refused_and_told_who_writes(run: RunDir) -> None:
    with run.locked("brats eval"):
        expected = rf"one: in use by brats eval, process {os.getpid()} on .*choose another --run"
        with pytest.raises(BratsError, match=expected), run.locked("brats report"):
            pass
        run.write_config(config())
    with run.locked("brats report"):
        pass
    assert os.listdir(run.path) == ["config.json"]


@pytest.mark.kills
def test_the_lock_of_a_killed_process_is_free(run: RunDir) -> None:
    command = [sys.executable, "-c", HOLDS_FOR_EVER, str(run.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(BratsError, match=f"process {process.pid} "),
            run_lock.run_lock(run.path, "brats train"),
        ):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert (run.path / run_lock.LOCK_NAME).exists()
    with run_lock.run_lock(run.path, "brats train"):
        pass


def test_a_file_system_without_locks_is_named_once(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    for _ in range(2):
        with run_lock.run_lock(run.path, "brats train"):
            pass
    assert capsys.readouterr().err.count("has no locks (Operation not supported)") == 1


def test_a_directory_made_for_a_run_that_never_began_is_removed(tmp_path: Path) -> None:
    persons = tmp_path / "persons"
    persons.mkdir()
    for path in (persons, tmp_path / "made"):
        run = RunDir.new(path, "paper")
        with pytest.raises(ZeroDivisionError), run.locked("brats train"):
            raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["persons"]


def test_a_best_checkpoint_alone_is_not_trained_over(run: RunDir) -> None:
    assert not run.has_checkpoint()
    run.best.touch()
    with pytest.raises(BratsError, match=r"last\.pt is not.*--overwrite"):
        run.has_checkpoint()
    with pytest.raises(BratsError, match=r"holds a run already \(best\.pt\)"):
        run.check_vacant()
    run.last.touch()
    assert run.has_checkpoint()


@pytest.mark.parametrize(
    "torn",
    [
        *("", "3", "3,0.0001,1.7", "x", "\x00\x00\x00", "3" + ",1" * 12),
        *(f"{epoch}{',1' * 12}\n" for epoch in ("1e308", "2.5", "-1", "nan")),  # no epochs
        "3" + ",1e308" * 12 + "\n",
    ],
)
def test_torn_rows_are_not_read_and_are_cut(run: RunDir, torn: str) -> None:
    for epoch in (1, 2):
        run.append_metrics(row_of(epoch))
    whole = run.metrics.read_bytes()
    with open(run.metrics, "a") as file:
        file.write(torn)
    assert [row["epoch"] for row in run.read_metrics()] == [1, 2]
    run.cut_metrics(2)
    assert run.metrics.read_bytes() == whole
    run.append_metrics(row_of(3))
    assert [row["epoch"] for row in run.read_metrics()] == [1, 2, 3]
    assert run.read_metrics()[2]["lr"] == pytest.approx(1 / 3)
    run.cut_metrics(0)
    run.append_metrics(row_of(1))
    assert [row["epoch"] for row in run.read_metrics()] == [1]


def test_a_torn_header_is_written_anew_and_a_foreign_one_refused(run: RunDir) -> None:
    run.metrics.write_text("epoch,lr,tr")
    assert not run.read_metrics()
    run.cut_metrics(5)
    run.append_metrics(row_of(6))
    assert [row["epoch"] for row in run.read_metrics()] == [6]
    run.metrics.write_text("time,loss\n1,2\n")
    with pytest.raises(BratsError, match=r"metrics\.csv: its first line is 'time,loss'"):
        run.read_metrics()


def test_a_row_is_written_by_one_call_and_a_full_disk_leaves_none_of_it(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.append_metrics(row_of(1))
    before = run.metrics.read_bytes()
    write, sizes = os.write, []

    def fill_up(descriptor: int, content: bytes) -> int:
        sizes.append(len(content))
        if len(sizes) > 1:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[:20])

    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(BratsError, match=r"metrics\.csv: cannot be written \(No space left"):
        run.append_metrics(row_of(2))
    assert run.metrics.read_bytes() == before
    assert sizes[0] == len(before.splitlines(keepends=True)[1])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no JSON"),
        ("[" * 200_000, "no JSON"),
        ("[1, 2]", "expected a JSON object"),
        ("null", "expected a JSON object"),
        ("{}", "recipe: field required"),
        (config(recipe={}), "recipe: "),
        (config(recipe=[1]), "recipe: "),
        (config(recipe={"epochs": "many"}), "recipe: epochs"),
        (config(recipe={"epoch": 3}), "did you mean epochs"),
        (config(caches="c.h5"), "caches: "),
        (config(caches=[]), "caches: "),
        (config(caches=[{"path": 5, "fingerprint": "0"}]), "caches.0.path: "),
        (config(caches=[{"path": "c.h5"}]), "caches.0.fingerprint: field required"),
        (config(fold="x"), "fold: "),
        (config(trackers="mlflow"), "trackers: "),
        (config(trackers=["x"]), "trackers.0: "),
        (config(versions="x"), "versions: "),
        (config(max_minutes=float("inf")), "max_minutes: "),
    ],
)
def test_settings_of_another_shape_are_one_message(
    run: RunDir, text: str | dict[str, Any], fault: str
) -> None:
    run.config.write_text(text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(BratsError) as raised:
        run.read_config()
    message = str(raised.value)
    assert message.startswith(f"{run.config}: does not hold the settings of a run (")
    assert fault in message
    assert "\n" not in message
    assert len(message) < 500


def test_a_recipe_of_an_older_version_is_filled_up(run: RunDir) -> None:
    run.write_config(config(recipe={"epochs": 7}))
    assert run.read_config()["recipe"] == {**recipe_to_dict(load_recipe("paper")), "epochs": 7}


def test_a_new_run_removes_links_but_not_what_they_lead_to(run: RunDir, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    run.figures.symlink_to(elsewhere)
    run.begin(config())
    assert not run.figures.is_symlink()
    assert (elsewhere / "precious").exists()


def test_only_the_folders_that_a_cross_validation_makes_are_its_folds(run: RunDir) -> None:
    """One of another spelling would stand in the place of a fold."""
    for name in ("fold0", "fold1", "fold00", "fold\u0661", "fold-1", "fold2.old"):
        (run.path / name).mkdir()
    assert [path.name for path in fold_folders(run.path).values()] == ["fold0", "fold1"]


def test_settings_of_any_number_of_runs_are_compared() -> None:
    recipes = [
        {"lr": 1, "model": {"encoder": "a", "depth": 5}, "loss": {"name": "dice"}},
        {"lr": 1, "model": {"encoder": "b", "depth": 5}, "loss": {"name": "dice"}},
        {"lr": 2, "model": {"encoder": "a"}},
    ]
    loss = {"name": "dice"}
    assert list(differences("recipe", recipes)) == [
        ("lr", [1, 1, 2]),
        ("model.encoder", ["a", "b", "a"]),
        ("model.depth", [5, 5, None]),
        ("loss", [loss, loss, None]),
    ]
    assert list(differences("fold", [0, 0, 0])) == []
    caches = [{"caches": [{"path": path, "fingerprint": "f"}]} for path in ("here", "there")]
    assert list(differences("caches", [decisive(one, "caches") for one in caches])) == []
