"""A cross-validation is one run: every case is scored by the model that has not seen it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import brats_train
from brats_cache.format.reader import Cache
from brats_train.evaluation.tune_postprocessing import choose_postprocessing, measure_cases
from brats_train.inference.ensemble import load_ensemble
from brats_train.models import checkpoint
from brats_train.models.postprocessing import Postprocessing
from brats_train.models.run_files import fold_folders
from brats_train.runtime.distributed import World
from brats_train.training.recipe import Recipe
from tests.cache.scans import add_case, mask
from tests.commands import SMALL_ENCODER
from tests.train.runs import call

SETTINGS = (
    *("--encoder-weights", "none", "--batch-size", 8, "--epochs", 1, "--lr", 1e-3),
    *("--set", f"model.encoder={SMALL_ENCODER}", "--set", "rows=tumor", "--set", "choose=true"),
    *("--device", "cpu", "--amp", "off"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache_path: Path) -> Path:
    path = tmp_path_factory.mktemp("folds") / "run"
    call("train", "--cache", cache_path, "--fold", "all", "--run", path, *SETTINGS)
    return path


def cases_of(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (folder / "eval" / "val" / "cases.csv").open() as file:
        return {(row["case"], row["region"]): row for row in csv.DictReader(file)}


def test_each_fold_is_a_run_of_its_own(run: Path) -> None:
    assert list(fold_folders(run)) == [0, 1, 2]
    for fold, folder in fold_folders(run).items():
        assert json.loads((folder / "config.json").read_text())["fold"] == fold
        assert (folder / "best.pt").is_file()
    assert json.loads((run / "config.json").read_text())["fold"] == "all"


def test_a_case_is_scored_by_the_model_that_has_not_seen_it(run: Path, cache: Cache) -> None:
    call("eval", "--run", run, "--device", "cpu")
    whole = cases_of(run)
    labelled = cache.cases["fold"] >= 0
    assert {case for case, _ in whole} == set(np.char.decode(cache.cases["id"][labelled]))
    parts: dict[tuple[str, str], dict[str, str]] = {}
    for folder in fold_folders(run).values():
        call("eval", "--run", folder, "--device", "cpu")
        parts |= cases_of(folder)
    assert whole == parts
    summary = json.loads((run / "eval" / "val" / "summary.json").read_text())
    assert [one["fold"] for one in summary["folds"]] == [0, 1, 2]


def test_what_is_chosen_for_a_fold_depends_on_the_others_alone(run: Path, cache: Cache) -> None:
    alone = World(rank=0, size=1, device=torch.device("cpu"))
    measured = {
        fold: measure_cases(
            [cache],
            fold,
            load_ensemble([folder / "best.pt"], alone.device),
            alone,
            lambda done, total: None,
        )
        for fold, folder in fold_folders(run).items()
    }
    for fold, folder in fold_folders(run).items():
        others = {
            key: curves
            for other, part in measured.items()
            for key, curves in part.items()
            if other != fold
        }
        held = checkpoint.load(folder / "best.pt")["segmenter"]["postprocessing"]
        assert Postprocessing.unpack(held) == choose_postprocessing(
            others, ("wt",), Recipe().postprocessing
        )


def test_predictions_average_the_folds(
    run: Path, phantom_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = next(phantom_dir.rglob("BraTS20_Training_001"))
    call("predict", case, "--run", run, "--out", tmp_path / "out", "--device", "cpu")
    named = capsys.readouterr().err
    assert all(f"fold{fold}" in named for fold in range(3))
    parts = [
        brats_train.load_model(folder, device="cpu").predict(case, tta=False, probabilities=True)
        for folder in fold_folders(run).values()
    ]
    whole = brats_train.load_model(run, device="cpu").predict(case, tta=False, probabilities=True)
    mean = np.mean([part.probabilities["wt"] for part in parts], axis=0)
    assert np.allclose(whole.probabilities["wt"], mean, atol=1e-6)


def test_a_resumed_cross_validation_keeps_what_was_finished(
    run: Path, tmp_path: Path, cache_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "fold2")
    held = [(copy / f"fold{fold}" / "metrics.csv").read_bytes() for fold in range(2)]
    call("train", "--resume", "--run", copy, "--device", "cpu")
    assert held == [(copy / f"fold{fold}" / "metrics.csv").read_bytes() for fold in range(2)]
    for fold in range(3):
        ours, theirs = (checkpoint.load(one / f"fold{fold}" / "best.pt") for one in (copy, run))
        assert ours["segmenter"] == theirs["segmenter"]
        for name, value in theirs["model"].items():
            assert np.allclose(ours["model"][name], value, atol=1e-6), name


def test_what_a_resumed_cross_validation_was_given_holds_for_the_whole(
    run: Path,
    tmp_path: Path,
    cache_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More epochs, and a cache that was moved: later commands need not be told again."""
    monkeypatch.setattr("brats_train.training.folds.choose_for_folds", lambda *_: None)
    copy, moved = tmp_path / "copy", tmp_path / "moved.h5"
    shutil.copytree(run, copy)
    shutil.copy(cache_path, moved)
    words = ("--run", copy, "--device", "cpu")
    call("train", "--resume", "--epochs", 2, "--cache", moved, *words)
    config = json.loads((copy / "config.json").read_text())
    assert config["recipe"]["epochs"] == 2
    assert config["caches"][0]["path"] == str(moved)
    call("train", "--resume", *words)
    call("train", "--resume", "--lr", 0.5, *words, code=1)
    assert "lr: 0.001 there, 0.5 now" in capsys.readouterr().err


def test_labels_of_a_cross_validation_are_remembered(
    tmp_path: Path, cache: Cache, cache_path: Path
) -> None:
    table, path = tmp_path / "labels.csv", tmp_path / "run"
    labels = {case: "ab"[number % 2] for number, case in enumerate(cache.case_ids)}
    table.write_text("case,label\n" + "".join(f"{case},{labels[case]}\n" for case in labels))
    words = ("--fold", "all", "--run", path, *SETTINGS, "--set", "choose=false")
    call("train", "--cache", cache_path, "--classify", table, *words)
    assert json.loads((path / "config.json").read_text())["labels"] == labels
    table.unlink()
    call("train", "--resume", "--run", path, "--device", "cpu")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "labels": None}))  # earlier versions
    table.write_text("case,label\n" + "".join(f"{case},{labels[case]}\n" for case in labels))
    call("train", "--resume", "--run", path, "--device", "cpu")
    table.unlink()
    call("eval", "--run", path, "--device", "cpu")
    scored = json.loads((path / "eval" / "val" / "summary.json").read_text())["classification"]
    assert scored["num_cases"] > 0


def test_models_of_two_folds_are_not_averaged_on_what_one_has_seen(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--run", run / "fold0", "--run", run / "fold1", "--device", "cpu")
    call("eval", *words, code=1)
    assert "fold1 was trained with --fold 1" in capsys.readouterr().err
    call("eval", *words, "--split", "test", code=1)  # no case of it has a mask
    assert "has a mask" in capsys.readouterr().err


def test_a_checkpoint_is_not_scored_on_what_it_was_trained_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--device", "cpu", "--checkpoint")
    call("eval", "--run", run, *words, run / "fold0" / "best.pt", code=1)
    assert "fold0 was trained with --fold 0" in capsys.readouterr().err
    call("eval", "--run", run / "fold0", *words, run / "fold0" / "last.pt")
    assert "Warning" not in capsys.readouterr().err
    shutil.copy(run / "fold0" / "best.pt", tmp_path / "best.pt")
    call("eval", "--run", run / "fold0", *words, tmp_path / "best.pt")
    assert "lies in no run" in capsys.readouterr().err


def test_folds_of_two_caches_put_no_patient_on_two_sides(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a patient's scans of two years were built apart, with folds of their own."""
    caches = []
    for year, folds in ((1, (0, 1)), (2, (1, 0))):
        lines = ["patient,split,fold"]
        for letter, fold in zip("AB", folds, strict=True):
            patient = f"Brats17_CBICA_AA{letter}"
            lines.append(f"{patient},train,{fold}")
            scans = tmp_path / f"year{year}"
            add_case(scans, f"{patient}_{year}", labels=mask((1, 2, 4)), seed=year)
        table, cache = tmp_path / f"{year}.csv", tmp_path / f"{year}.h5"
        table.write_text("\n".join(lines))
        call(
            "build-cache", scans, "--out", cache, "--size", 32, "--folds", 2, "--split-file", table
        )
        caches += ["--cache", cache]
    words = (*caches, "--run", tmp_path / "r", *SETTINGS, "--set", "choose=false")
    for fold in (0, "all"):
        call("train", *words, "--fold", fold, code=1)
        assert "Brats17_CBICA_AAA (fold 0 and fold 1)" in capsys.readouterr().err
    call("eval", *caches, "--run", run / "fold0", "--device", "cpu", code=1)
    assert "on two sides" in capsys.readouterr().err


def test_an_interrupted_choice_says_how_to_go_on(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("brats_train.training.folds.choose_for_folds", interrupted)
    call("train", "--resume", "--run", copy, "--device", "cpu", code=130)
    assert f"Interrupted. Go on with: brats train --resume --run-dir {copy}" in (
        capsys.readouterr().out
    )


@pytest.mark.usefixtures("plain_figures")
def test_it_is_verified_and_reported_as_one(
    run: Path, tmp_path: Path, cache_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    call("verify", copy)
    call("eval", "--run", copy, "--device", "cpu")
    call("report", "--run", copy, "--device", "cpu")
    assert (copy / "report.html").is_file()
    call("train", "--cache", cache_path, "--run", copy, "--fold", "all", *SETTINGS, code=1)
    assert "holds a run already" in capsys.readouterr().err


def test_caches_without_folds_are_one_message(
    tmp_path: Path, phantom_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plain.h5"
    call("build-cache", phantom_dir, "--out", path, "--size", 32, "--workers", 1)
    call("train", "--cache", path, "--fold", "all", "--run", tmp_path / "r", *SETTINGS, code=1)
    assert "--folds K" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    call("train", "--cache", path, "--fold", "some", code=2)


@pytest.mark.slow
def test_each_fold_has_the_minutes(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a process that is older than the limit: only the first fold's time includes that."""
    monkeypatch.setattr("brats_train.training.time_budget.process_age", lambda: 3600.0)
    path = tmp_path / "run"
    words = (
        "--fold",
        "all",
        "--run",
        path,
        *SETTINGS,
        "--max-minutes",
        30,
        "--set",
        "choose=false",
    )
    call("train", "--cache", cache_path, *words)
    steps = [checkpoint.load(path / f"fold{fold}" / "last.pt")["position"] for fold in range(3)]
    assert steps[0]["steps_taken"] < steps[1]["steps_taken"]
    assert steps[1]["epoch"] == steps[2]["epoch"] == 1
