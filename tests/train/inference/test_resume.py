"""Going on with a prediction: a mask is kept only where model and scans are the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brats_cache.format.reader import Cache
from brats_train.inference.ensemble import Ensemble
from tests.train.runs import call, contents, make_run, predict


def test_resuming_makes_what_is_missing_and_no_more(
    run: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    predict(run, scans, out, "--probabilities")
    whole = contents(out)
    lost = sorted(out.glob("*_prob.nii.gz"))[0]
    lost.unlink()
    calls: list[int] = []
    ask = Ensemble.predict

    def counted(self: Ensemble, images: np.ndarray, *rest: Any) -> Any:
        calls.append(len(images))
        return ask(self, images, *rest)

    monkeypatch.setattr(Ensemble, "predict", counted)
    predict(run, scans, out, "--resume", "--probabilities")
    assert len(calls) == 1
    assert contents(out) == whole


def test_masks_of_another_model_are_not_taken_for_its_own(
    run: Path, scans: Path, tmp_path: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(run, scans, tmp_path / "out")
    other = make_run(tmp_path / "other", cache, target="regions", seed=7)
    predict(other, scans, tmp_path / "out", "--resume", code=1)
    assert "not made by this model" in capsys.readouterr().err
    predict(run, scans, tmp_path / "out", "--resume", "--tta", code=1)


def test_overwriting_goes_on_with_what_it_has_made(
    run: Path, scans: Path, tmp_path: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    predict(run, scans, tmp_path / "wanted")
    wanted = contents(tmp_path / "wanted")
    predict(make_run(tmp_path / "other", cache, target="regions", seed=7), scans, out)
    name = min(wanted)  # as if it had been interrupted after one case
    for path in (tmp_path / "wanted").glob(f"{name.split('.')[0]}*"):
        shutil.copy(path, out / path.name)
    predict(run, scans, out, "--resume", "--overwrite")
    assert "1 new, 1 kept" in capsys.readouterr().out
    assert contents(out) == wanted


def test_a_mask_with_other_labels_or_of_scans_in_other_roles_is_not_kept(
    run: Path, scans: Path, tmp_path: Path, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a manifest has been corrected."""
    case = sorted(scans.iterdir())[0]
    names = ("t1", "t1ce", "t2", "flair")

    def manifest(scheme: str, files: tuple[str, ...] = names) -> Path:
        cells = ",".join(str(case / f"{case.name}_{name}.nii") for name in files)
        path = tmp_path / "cases.csv"
        path.write_text(f"case,{','.join(names)},scheme\nk,{cells},{scheme}\n")
        return path

    def again(*words: object, code: int) -> str:
        call(
            "predict", "--run", run, "--out", tmp_path / "out", "--device", "cpu", *words, code=code
        )
        return capsys.readouterr().err

    again("--manifest", manifest("brats2017"), code=0)
    again("--manifest", manifest("brats2017"), "--resume", code=0)
    said = again("--manifest", manifest("brats2023"), "--resume", code=1)
    assert "has the labels of another scheme than brats2023" in said
    said = again(
        "--manifest", manifest("brats2017", ("t1ce", "t1", "t2", "flair")), "--resume", code=1
    )
    assert "was made of other scans" in said


def test_an_interrupted_run_keeps_its_masks_and_says_how_to_go_on(
    run: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask, calls = Ensemble.predict, []

    def interrupted(self: Ensemble, images: np.ndarray, *rest: Any) -> Any:
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return ask(self, images, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Ensemble, "predict", interrupted)
        predict(run, scans, tmp_path / "out", code=130)
    assert "--resume" in capsys.readouterr().err
    kept = contents(tmp_path / "out")
    assert len(kept) == 2  # a mask and what is told of it
    predict(run, scans, tmp_path / "out", "--resume")
    assert f"2 masks in {tmp_path / 'out'}: 1 new, 1 kept" in capsys.readouterr().out
    assert len(contents(tmp_path / "out")) == 4
    assert kept.items() <= contents(tmp_path / "out").items()


def test_a_mask_of_another_patient_is_never_kept(
    run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two patients whose folders and files have equal names."""
    for number, folder in enumerate(sorted(scans.iterdir())):
        session = tmp_path / f"person{number}" / "baseline"
        shutil.copytree(folder, session)
        for path in session.iterdir():
            path.rename(session / path.name.replace(folder.name, "scan"))
    out = tmp_path / "out"
    predict(run, tmp_path / "person0" / "baseline", out)
    before = contents(out)
    assert len(before) == 2
    predict(run, tmp_path / "person1" / "baseline", out, "--resume", code=1)
    told = capsys.readouterr().err
    assert "other scans" in told
    assert str(tmp_path / "person1" / "baseline") in told
    assert contents(out) == before
    predict(run, tmp_path / "person1" / "baseline", out, "--overwrite")
    assert all(content != before[name] for name, content in contents(out).items())


def test_scans_that_were_moved_are_the_same_scans(
    run: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(run, scans, tmp_path / "out")
    scans.rename(tmp_path / "moved")

    def asked(*_: object) -> None:
        raise AssertionError("a mask that could be kept was made again")

    monkeypatch.setattr(Ensemble, "predict", asked)
    predict(run, tmp_path / "moved", tmp_path / "out", "--resume")


def test_scans_that_changed_are_others(run: Path, scans: Path, tmp_path: Path) -> None:
    predict(run, scans, tmp_path / "out")
    (path,) = scans.rglob("*_001_flair.nii")
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    predict(run, scans, tmp_path / "out", "--resume", code=1)


def test_scans_that_cannot_be_read_are_a_fault_of_their_case(
    run: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The disk fails under one scan: its case is named, and what was made is not lost."""
    predict(run, scans, tmp_path / "out")
    before = contents(tmp_path / "out")
    bad = sorted(scans.rglob("*_t2.nii"))[-1]

    def failing(path: Path) -> Any:
        raise OSError(5, "Input/output error")

    def open_others(path: Path, *arguments: Any) -> Any:
        return failing(path) if path == bad else open(path, *arguments)

    for module in ("brats_train.inference.output_files", "brats_cache.imaging.nifti_header"):
        monkeypatch.setattr(f"{module}.open", open_others, raising=False)
    predict(run, scans, tmp_path / "out", "--resume", code=1)
    assert "1 fault in 1 case" in (told := capsys.readouterr().err)
    assert bad.name in told
    assert contents(tmp_path / "out") == before
