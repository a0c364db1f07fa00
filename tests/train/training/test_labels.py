"""Classification beside segmentation: which slices count, that it is learnt, and what is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_train.data.case_labels import UNLABELLED, label_cases, slice_labels
from brats_train.data.selection import select_rows
from brats_train.models.checkpoint import load_network
from tests.commands import SMALL_ENCODER
from tests.train.runs import call, find

TRAINING = (
    *("--encoder-weights", "none", "--set", f"model.encoder={SMALL_ENCODER}"),
    *("--set", "rows=tumor"),
    *("--batch-size", "24", "--lr", "1e-3", "--amp", "off", "--device", "cpu"),
)


def test_slices_take_the_label_of_their_case(cache: Cache, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    names = cache.case_ids
    wanted = {name: "ab"[number % 2] for number, name in enumerate(names[:-2])}
    lines = [f"{case.upper()},{label}" for case, label in wanted.items()]  # of a spreadsheet
    table.write_text("\n".join(["case,label", *lines, f"{names[-2]},NA", "stranger,a"]))
    labels = label_cases(str(table), [cache])
    assert labels == wanted
    rows = select_rows([cache], "train", "all")
    found = slice_labels([cache], rows, labels, is_balanced=True)
    assert found.names == ("a", "b")
    totals = np.zeros(2)
    for row, index in zip(rows.row, found.indices, strict=True):
        record = cache.slices[row]
        label = wanted.get(names[record["case"]])
        if label is None or not record["label_pixels"][1:].any():
            assert index == UNLABELLED
        else:
            assert found.names[index] == label
            totals[index] += found.weights[index]
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,grade\nx,1\n", "columns case and label"),
        ("case,label\nx,1\nx,2\n", "line 3: x again"),
        ("case,label\nx,1\nX,2\n", "line 3: X again"),
        ("case,label\nstranger,1\n", "no case of the caches has a label"),
        ("case,label\n", "columns case and label"),
    ],
)
def test_tables_that_label_nothing_are_refused(
    cache: Cache, tmp_path: Path, content: str, words: str
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(content)
    with pytest.raises(BratsError, match=words):
        label_cases(str(table), [cache])


def test_one_label_is_nothing_to_tell_apart(cache: Cache) -> None:
    rows = select_rows([cache], "train", "tumor")
    labels = dict.fromkeys(cache.case_ids, "same")
    with pytest.raises(BratsError, match="two different labels"):
        slice_labels([cache], rows, labels, is_balanced=True)


def test_a_run_learns_labels_and_goes_on_without_their_table(
    cache: Cache, phantom_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels are those of the file when the run began; a resumed run needs it no more."""
    monkeypatch.chdir(tmp_path)
    table, run = tmp_path / "labels.csv", tmp_path / "run"
    names = cache.case_ids
    lines = [f"{name},{'odd' if number % 2 else 'even'}" for number, name in enumerate(names)]
    table.write_text("\n".join(["case,label", *lines]))
    words = ("--cache", cache.path, "--run-dir", run, *TRAINING)
    call("train", *words, "--classify", table, "--epochs", 1)
    table.unlink()
    call("train", "--run-dir", run, "--resume", "--epochs", 2)
    spec, model, _ = load_network(run / "best.pt")
    assert spec.labels == ("even", "odd")
    masks, logits = model(torch.zeros(2, 4, 64, 64))
    assert masks.shape == (2, 1, 64, 64)
    assert logits.shape == (2, 2)
    config = json.loads((run / "config.json").read_text())
    assert config["labels"] == dict(line.split(",") for line in lines)

    call("eval", "--run-dir", run, "--split", "train")
    summary = json.loads((run / "eval" / "train" / "summary.json").read_text())
    told = summary["classification"]
    assert told["classes"] == ["even", "odd"]
    with (run / "eval" / "train" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert told["num_cases"] == len(rows) == 6
    assert {row["case"]: row["label"] for row in rows}.items() <= config["labels"].items()
    right = [row["label"] == row["predicted"] for row in rows]
    assert told["accuracy"]["value"] == pytest.approx(np.mean(right))
    call("eval", "--run-dir", run)
    call("report", "--run-dir", run)
    assert "Cases by true label" in (run / "report.html").read_text()

    scans = find(phantom_dir, f"{names[0]}_t1.nii").parent
    call("predict", scans, "--run-dir", run, "--out", tmp_path / "masks")
    details = json.loads((tmp_path / "masks" / f"{names[0]}.json").read_text())
    assert sum(details["label_probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert details["label"] in ("even", "odd")
    call("predict", scans, "--run-dir", run, "--out", tmp_path / "masks", "--resume")
