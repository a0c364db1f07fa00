"""An ONNX file gives what its run gives, and says what it is."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import brats_train
from brats_cache.common.errors import CheckpointError
from brats_cache.format.reader import Cache
from brats_train.inference.ensemble import load_ensemble
from brats_train.models.description import Description
from brats_train.models.onnx_file import OPSET
from brats_train.models.sources import load_models
from tests.train.runs import call, find, fold_run, ids, make_run, predict

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "new" / "model.onnx"
    call("export", "--run", run, "--format", "onnx", "--out", out)
    return out


def changed(path: Path, out: Path, old: bytes, new: bytes) -> Path:
    """A copy with some bytes replaced, and a digest that does not fit them."""
    content = path.read_bytes()
    assert old in content
    out.write_bytes(content.replace(old, new))
    return out


def probabilities(source: Path, cache: Cache, tta: bool = True) -> np.ndarray:
    rows = slice(0, 7)
    ensemble = load_ensemble([source], CPU, amp="off")
    return ensemble.probabilities(cache.images[rows], cache.slices["z"][rows], tta).numpy()


def test_the_masks_are_those_of_the_run(
    run: Path,
    onnx_path: Path,
    phantom_dir: Path,
    cache: Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In 32 bits voxels may differ where rounding decides, within 1e-4 of a threshold alone."""
    monkeypatch.setattr("brats_train.inference.ensemble.choose_amp", lambda wanted, device: "off")
    case = ids(cache, "val")[0]
    scans = find(phantom_dir, f"{case}_t1.nii").parent
    for source, name in ((run, "run"), (onnx_path, "onnx")):
        predict(source, scans, tmp_path / name)
    ours, theirs = (
        np.asarray(nib.load(tmp_path / name / f"{case}.nii.gz").dataobj) for name in ("run", "onnx")
    )
    assert ours.any()
    likely = brats_train.load_model(run, device="cpu").predict(scans, probabilities=True)
    to_threshold = [np.abs(volume - 0.47) for volume in likely.probabilities.values()]
    assert np.all(np.min(to_threshold, axis=0)[ours != theirs] < 1e-4)
    # Probabilities are equal but for rounding, so one is not resumed with the other.
    predict(onnx_path, scans, tmp_path / "run", "--resume", code=1)


def test_any_number_of_slices_gives_the_probabilities_of_the_run(
    run: Path, onnx_path: Path, cache: Cache
) -> None:
    found, expected = probabilities(onnx_path, cache), probabilities(run, cache)
    assert np.abs(found - expected).max() < 1e-4


def test_the_file_says_what_other_programs_need(run: Path, onnx_path: Path) -> None:
    session = onnxruntime.InferenceSession(onnx_path)
    (pixels,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (pixels.name, pixels.shape[1:]) == ("pixels", [12, 64, 64])
    assert (logits.name, logits.shape[1:]) == ("logits", [3, 64, 64])
    assert isinstance(pixels.shape[0], str)  # any batch
    held = session.get_modelmeta().custom_metadata_map
    spec = Description.unpack(json.loads(held["brats"])).spec
    (of_run,) = load_models(run)
    assert spec == of_run.spec
    assert spec.postprocessing.tta
    assert importlib.import_module("onnx").load(onnx_path).opset_import[0].version == OPSET


def test_no_path_of_this_machine_leaves_it(onnx_path: Path) -> None:
    content = onnx_path.read_bytes()
    for word in (os.path.dirname(torch.__file__), os.getcwd(), str(onnx_path.parent)):
        assert os.fsencode(word) not in content


@pytest.mark.slow
def test_several_runs_become_one_file_of_their_mean(
    tmp_path: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path / str(seed), cache, seed=seed) for seed in (1, 2)]
    out = tmp_path / "both.onnx"
    call("export", "--run", runs[0], "--run", runs[1], "--format", "onnx", "--out", out)
    told = capsys.readouterr().out
    assert "mean of 2 networks" in told
    assert "real slices" in told
    mean = (probabilities(runs[0], cache) + probabilities(runs[1], cache)) / 2
    assert np.abs(probabilities(out, cache) - mean).max() < 1e-4


def test_a_file_that_differs_from_torch_is_not_written(
    run: Path,
    onnx_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = onnx_path.read_bytes()
    monkeypatch.setattr("brats_train.export.export.make_onnx", lambda *_: made)
    monkeypatch.setattr("brats_train.export.export.MAX_DIFFERENCE", -1.0)
    out = tmp_path / "model.onnx"
    call("export", "--run", run, "--format", "onnx", "--out", out, code=1)
    assert "not written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_its_cache_noise_is_compared_and_said(
    tmp_path: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "r", cache)
    config = json.loads((run / "config.json").read_text())
    config["caches"][0]["path"] = str(tmp_path / "gone.h5")
    (run / "config.json").write_text(json.dumps(config))
    call("export", "--run", run, "--format", "onnx", "--out", tmp_path / "m.onnx")
    assert "noise" in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["changed", "cut", "another", "empty", "missing", "forged"])
def test_a_file_that_is_not_as_it_was_exported_is_refused(
    onnx_path: Path, tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "model.onnx"
    content = onnx_path.read_bytes()
    if fault == "changed":
        changed(onnx_path, path, b'"threshold": 0.47', b'"threshold": 0.46')
    elif fault == "cut":
        path.write_bytes(content[: len(content) // 2] + content[-100:])
    elif fault == "another":
        path.write_bytes(b"\x08\x0a\x12\x07pytorch")
    elif fault == "empty":
        path.touch()
    elif fault == "forged":  # a digest that fits what is no graph
        import xxhash

        mark = b"xxh3_128:"
        path.write_bytes(mark + xxhash.xxh3_128_hexdigest(mark).encode())
    with pytest.raises(CheckpointError) as caught:
        load_models(path)
    assert str(path) in str(caught.value)


def test_what_an_onnx_file_cannot_do_is_said_in_one_message(
    onnx_path: Path, cache_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (("eval", "--run", onnx_path, "--cache", cache_path, "--device", "cpu"), "Name the run"),
        (
            (
                *("train", "--cache", cache_path, "--init-from", onnx_path, "--epochs", 1),
                *("--run", tmp_path / "new", "--device", "cpu"),
            ),
            "cannot be trained on",
        ),
        (("export", "--run", onnx_path, "--format", "hub", "--out", tmp_path / "hub"), "again"),
        (("export", "--run", onnx_path, "--format", "onnx", "--out", onnx_path), "--overwrite"),
    ):
        call(*words, code=1)
        told = capsys.readouterr().err
        assert said in told
        assert "Traceback" not in told
    assert not (tmp_path / "hub").exists()
    call("export", "--run", onnx_path, "--format", "onnx", "--out", tmp_path / "x", code=2)
    assert ".onnx" in capsys.readouterr().err


def test_the_average_of_all_folds_is_not_scored_on_what_they_have_seen(
    onnx_path: Path, cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fold_run(tmp_path / "r", cache)
    inside = Path(shutil.copy(onnx_path, run / "m.ONNX"))
    call("verify", inside)
    call("eval", "--run", run, "--checkpoint", inside, "--device", "cpu", code=1)
    assert "have seen every case between them" in capsys.readouterr().err


def test_a_missing_package_is_named_with_what_to_install(
    run: Path,
    onnx_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real: Any = importlib.import_module

    def without_onnxruntime(name: str, package: str | None = None) -> ModuleType:
        if name == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without_onnxruntime)
    for words in (
        ("export", "--run", run, "--format", "onnx", "--out", tmp_path / "m.onnx"),
        ("predict", tmp_path, "--run", onnx_path),
    ):
        call(*words, code=1)
        told = capsys.readouterr().err
        assert "onnxruntime" in told
        assert "pip install -e '.[onnx]'" in told
