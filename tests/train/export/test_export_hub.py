"""A folder in the hub's layout is the model of its run, and all that using it needs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import brats_train
from brats_cache.common.errors import BratsError, CheckpointError, RunNotFoundError
from brats_cache.common.partials import create_partial
from brats_cache.format.reader import Cache
from brats_train.models import checkpoint
from brats_train.models.sources import load_models
from brats_train.training.initial_state import initial_model
from tests.train.runs import call, contents, find, fold_run, ids, make_run, predict


@pytest.fixture
def case(phantom_dir: Path, cache: Cache) -> Path:
    return find(phantom_dir, f"{ids(cache, 'val')[0]}_t1.nii").parent


def test_the_folder_writes_the_files_that_its_run_writes(
    run: Path, hub_dir: Path, case: Path, tmp_path: Path
) -> None:
    for source, name in ((run, "run"), (hub_dir, "hub")):
        predict(source, case, tmp_path / name, "--probabilities")
    assert contents(tmp_path / "hub") == contents(tmp_path / "run")


def test_the_folder_alone_is_enough_for_two_lines_of_python(
    tmp_path: Path, cache: Cache, case: Path
) -> None:
    run = make_run(tmp_path / "run", cache, target="regions")
    expected = brats_train.load_model(run, device="cpu").predict(case)
    call("export", "--run", run, "--format", "hub", "--out", tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "elsewhere" / "folder")
    shutil.rmtree(tmp_path / "out")
    shutil.rmtree(run)
    program = f"""
import brats_train, nibabel
result = brats_train.load_model("folder").predict({str(case)!r})
nibabel.save(nibabel.Nifti1Image(result.labels, result.affine), "mask.nii.gz")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": os.getcwd(), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    mask = nib.load(tmp_path / "elsewhere" / "mask.nii.gz")
    assert np.array_equal(mask.dataobj, expected.labels)


def test_a_single_networks_weights_have_the_names_of_its_library(run: Path, hub_dir: Path) -> None:
    expected = checkpoint.load(run / "best.pt")["model"]
    found = load_file(hub_dir / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_no_path_of_this_machine_leaves_it(hub_dir: Path, run: Path) -> None:
    for content in contents(hub_dir).values():
        assert os.fsencode(run.parent.parent) not in content


def test_eval_and_init_from_read_the_folder(
    run: Path, hub_dir: Path, cache_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("eval", "--run", run, "--device", "cpu", "--json")
    expected = json.loads(capsys.readouterr().out)
    copy = shutil.copytree(hub_dir, tmp_path / "copy")
    call("eval", "--run", copy, "--device", "cpu", code=1)
    assert "--cache" in capsys.readouterr().err
    call("eval", "--run", copy, "--cache", cache_path, "--device", "cpu", "--json")
    told = capsys.readouterr()
    assert "Warning" not in told.err  # it is the cache that the model was trained on
    assert json.loads(told.out)["regions"] == expected["regions"]
    assert (copy / "eval" / "val" / "cases.csv").is_file()
    (loaded,) = load_models(hub_dir)
    network, name = initial_model(loaded.spec.model, "none", hub_dir)
    with pytest.raises(BratsError, match="takes t1, t1ce, t2, flair, this run t1ce"):
        initial_model(loaded.spec.model, "none", hub_dir, ("t1ce", "t1", "t2", "flair"))
    own = loaded.network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in network.state_dict().items())
    assert str(hub_dir.parent) not in name


def test_folds_stay_together_and_keep_to_the_cases_that_they_have_not_seen(
    cache: Cache, cache_path: Path, case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = fold_run(tmp_path / "r", cache), tmp_path / "out"
    call("eval", "--run", run, "--device", "cpu", "--json")
    expected = json.loads(capsys.readouterr().out)
    call("export", "--run", run, "--format", "hub", "--out", out)
    assert "mean of 3 networks" in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert "was not scored" in card
    dice = expected["regions"]["wt"]["dice"]
    assert f"| Dice | {dice['mean']:.3f} [{dice['low']:.3f}, {dice['high']:.3f}] |" in card
    assert [model.fold for model in load_models(out)] == [0, 1, 2]
    for source, name in ((run, "run"), (out, "hub")):
        predict(source, case, tmp_path / name)
    assert contents(tmp_path / "hub") == contents(tmp_path / "run")
    capsys.readouterr()
    call("eval", "--run", out, "--cache", cache_path, "--device", "cpu", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["regions"] == expected["regions"]
    assert found["num_cases"] == expected["num_cases"] == 8
    (loaded, *_) = load_models(out)
    with pytest.raises(BratsError, match="holds 3 models"):
        initial_model(loaded.spec.model, "none", out)


def test_runs_of_other_folds_travel_together_without_an_account_of_their_training(
    cache: Cache, cache_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has seen what the other has not, so nothing could tell which cases are new to both."""
    runs = [make_run(tmp_path / f"f{fold}", cache, seed=fold, fold=fold) for fold in range(2)]
    out = tmp_path / "out"
    both = ("--run", runs[0], "--run", runs[1])
    call("export", *both, "--format", "hub", "--out", out)
    assert "differ in it" in capsys.readouterr().out
    assert json.loads((out / "config.json").read_text())["training"] == {}
    call("eval", "--run", out, "--cache", cache_path, "--device", "cpu", "--json")
    assert "does not say what it was trained on" in capsys.readouterr().err
    call("eval", "--run", runs[0], "--checkpoint", out, "--device", "cpu")
    assert "does not say what it was trained on" in capsys.readouterr().err
    alone = tmp_path / "alone"
    call("export", "--run", runs[1], "--format", "hub", "--out", alone)
    call("eval", "--run", runs[0], "--checkpoint", alone, "--device", "cpu", code=1)
    assert "has seen cases that the other has not" in capsys.readouterr().err
    call("export", "--run", out / "model.safetensors", "--format", "hub", "--out", tmp_path / "2")
    assert json.loads((tmp_path / "2" / "config.json").read_text())["training"] == {}


def test_networks_that_differ_are_not_put_into_one_folder(
    tmp_path: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "a", cache)
    make_run(tmp_path / "b", cache, encoder="resnet18")
    both = ("--run", tmp_path / "a", "--run", tmp_path / "b")
    call("export", *both, "--format", "hub", "--out", tmp_path / "out", code=1)
    assert "--format onnx" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cases_are_not_counted_where_a_cache_is_gone(tmp_path: Path, cache: Cache) -> None:
    run = make_run(tmp_path / "r", cache)
    config = json.loads((run / "config.json").read_text())
    config["caches"].append({"path": str(tmp_path / "gone.h5"), "fingerprint": "0" * 32})
    (run / "config.json").write_text(json.dumps(config))
    call("export", "--run", run, "--format", "hub", "--out", tmp_path / "out")
    training = json.loads((tmp_path / "out" / "config.json").read_text())["training"]
    assert len(training["caches"]) == 2
    assert "num_cases" not in training


def test_the_card_has_the_scores_of_this_very_model(
    tmp_path: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "r", cache)
    call("eval", "--run", run, "--device", "cpu", "--json")
    scores = json.loads(capsys.readouterr().out)["regions"]["wt"]["dice"]
    call("export", "--run", run, "--format", "hub", "--out", tmp_path / "one")
    card = ModelCard.load(tmp_path / "one" / "README.md")  # as the hub parses it
    assert card.data.library_name == "brats"
    (dice,) = [one for one in card.data.eval_results if one.metric_type == "dice"]
    assert dice.metric_value == round(scores["mean"], 3)
    assert f"| Dice | {scores['mean']:.3f} |" in card.text  # two patients give no interval
    for heading in ("preprocessing", "Training data", "Limits", "Licence"):
        assert re.search(rf"^## .*{heading}", card.text, re.MULTILINE)
    assert "6 train, 2 val" in card.text  # cases
    make_run(run, cache, seed=4)  # other weights, which nobody has scored
    call("export", "--run", run, "--format", "hub", "--out", tmp_path / "two")
    assert "of another model" in capsys.readouterr().out
    assert "Not scored" in (tmp_path / "two" / "README.md").read_text()


@pytest.mark.parametrize(
    "fault", ["weights", "threshold", "no config", "no weights", "cut", "git-lfs", "newer", "alien"]
)
def test_a_folder_that_is_not_as_it_was_exported_is_refused(
    hub_dir: Path, tmp_path: Path, fault: str
) -> None:
    copy = shutil.copytree(hub_dir, tmp_path / "copy")
    weights, config = copy / "model.safetensors", copy / "config.json"
    content = bytearray(weights.read_bytes())
    if fault == "weights":
        content[-5] ^= 1
        weights.write_bytes(content)
    elif fault == "threshold":
        config.write_text(config.read_text().replace("0.47", "0.46"))
    elif fault == "no config":
        config.unlink()
    elif fault == "no weights":
        weights.unlink()
    elif fault == "cut":
        weights.write_bytes(content[:-100])
    elif fault == "git-lfs":
        weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    elif fault == "newer":
        config.write_text(config.read_text().replace('"format_version": 1', '"format_version": 2'))
    else:
        config.write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError) as caught:
        load_models(copy)
    assert str(copy) in str(caught.value)
    call("verify", copy, code=1)
    if fault == "git-lfs":
        assert "needs git-lfs" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("versions", "x"), ("num_rows", [1]), ("caches", "x"), ("fold", -1)]
)
def test_a_forged_account_of_the_training_is_refused(
    hub_dir: Path, tmp_path: Path, key: str, value: object
) -> None:
    copy = shutil.copytree(hub_dir, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["training"][key] = value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"\(training\.{key}"):
        load_models(copy)


def test_keys_that_a_reader_does_not_know_do_no_harm(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a later version may write them."""
    from brats_train.models.description import Description

    pack = Description.pack
    monkeypatch.setattr(Description, "pack", lambda self: {**pack(self), "heads": ["grade"]})
    call("export", "--run", run, "--format", "hub", "--out", tmp_path / "out")
    monkeypatch.undo()
    assert len(load_models(tmp_path / "out")) == 1


def test_nothing_is_lost_without_being_asked_for(
    tmp_path: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = make_run(tmp_path / "run", cache), tmp_path / "out"
    words = ("export", "--run", run, "--format", "hub")
    call(*words, "--out", out)
    exported = contents(out)
    (out / "README.md").write_text("my own words")
    call(*words, "--out", out, code=1)
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "README.md").read_text() == "my own words"
    call(*words, "--out", out, "--overwrite")
    assert contents(out) == exported
    before = contents(run)
    call(*words, "--out", run, "--overwrite", code=1)
    assert contents(run) == before


def test_a_full_disk_leaves_no_folder_that_looks_whole(
    run: Path, hub_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(hub_dir, tmp_path / "copy")

    def full(path: Path) -> object:
        if path.name == "README.md":
            raise OSError(28, "No space left on device")
        return create_partial(path)

    monkeypatch.setattr("brats_cache.common.files.create_partial", full)
    call("export", "--run", run, "--format", "hub", "--out", copy, "--overwrite", code=1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="not complete"):
        load_models(copy)


def test_verify_reads_an_exported_model(hub_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("verify", hub_dir)
    assert capsys.readouterr().out == "1 exported model: every value is as written.\n"


def test_what_is_no_run_says_so(
    hub_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("report", "--run", hub_dir, code=1)
    assert "an exported model" in capsys.readouterr().err
    with pytest.raises(RunNotFoundError, match="holds no"):
        load_models(tmp_path)
