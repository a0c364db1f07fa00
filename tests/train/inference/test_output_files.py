"""Names of what is predicted: inside the output folder, different, short enough."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brats_cache.common.errors import BratsError
from brats_cache.discovery.cases import find_cases
from brats_train.inference.output_files import plan_outputs
from tests.train.runs import call, contents, predict

MODALITIES = ("t1", "t1ce", "t2", "flair")


def test_odd_names_stay_in_the_output_folder(run: Path, scans: Path, tmp_path: Path) -> None:
    case = sorted(scans.iterdir())[0]
    for place, name in enumerate(("a b;$(x)", "-rf", "é", "c..")):
        for path in case.iterdir():
            role = path.name.removeprefix(case.name)
            target = tmp_path / "odd" / str(place) / f"{name}{role}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    predict(run, tmp_path / "odd", tmp_path / "here" / "out")
    made = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*"))
    assert len(made) == 9  # the folder, and of each case a mask and what is told of it
    assert all(path.parts[0] == "out" for path in made)


def test_an_id_that_leads_elsewhere_is_a_fault(
    run: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = find_cases([scans])
    evil = tuple(
        replace(case, id=name) for case, name in zip(found.cases, ("../x", "/x"), strict=True)
    )
    monkeypatch.setattr(
        "brats_train.inference.case_sources.find_cases",
        lambda *_, **__: replace(found, cases=evil, notes=()),
    )
    predict(run, scans, tmp_path / "here" / "out", code=1)
    assert "2 faults in 2 cases" in capsys.readouterr().err
    assert not list((tmp_path / "here" / "out").iterdir())
    assert not (tmp_path / "here" / "x.nii.gz").exists()


def test_no_scan_is_replaced_by_its_mask(scans: Path, tmp_path: Path) -> None:
    """As where the id is all of a file's name: p1.nii.gz --out its own folder."""
    (found, *_) = find_cases([scans]).cases
    source = tmp_path / "p1.nii.gz"
    source.write_bytes(b"scan")
    images = {"flair": replace(found.images["flair"], path=source)}
    case = replace(found, id="p1", images=images, mask=None)
    words: dict[str, bool] = {"with_probabilities": False, "with_uncertainty": False}
    with pytest.raises(BratsError, match=r"p1\.nii\.gz: a scan or mask of these cases"):
        plan_outputs([case], tmp_path, overwrite=True, **words)
    outputs, _ = plan_outputs([case], tmp_path / "out", overwrite=True, **words)
    assert len(outputs) == 1


def masks_in(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.nii.gz")}


def copy_case(source: Path, folder: Path) -> None:
    """A case under its role words alone, so that its folder names it."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        shutil.copy(path, folder / path.name.removeprefix(f"{source.name}_"))


def test_two_files_never_have_one_name(
    run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = sorted(scans.iterdir())[0]
    for name in ("Smith", "Smith_PROB"):  # one name on a disk of Windows or macOS
        copy_case(source, tmp_path / "both" / name)
    predict(run, tmp_path / "both", tmp_path / "out", "--probabilities", code=1)
    told = capsys.readouterr().err
    assert "Smith_PROB.nii.gz" in told
    assert "Smith and Smith_PROB" in told
    assert not (tmp_path / "out").exists()
    predict(run, tmp_path / "both", tmp_path / "out")
    assert masks_in(tmp_path / "out") == {"Smith.nii.gz", "Smith_PROB.nii.gz"}
    for name in ("Jones", "Jones_uncertainty"):
        copy_case(source, tmp_path / "jones" / name)
    predict(run, tmp_path / "jones", tmp_path / "maps", "--uncertainty", code=1)
    assert "leave out --probabilities and --uncertainty" in capsys.readouterr().err
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("length", [231, 238, 252])
def test_a_name_too_long_is_a_fault_of_its_case_alone(
    run: Path, scans: Path, tmp_path: Path, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    source = sorted(scans.iterdir())[0]
    long = "n" * length
    for name in ("first", long, "zuletzt"):
        copy_case(source, tmp_path / "in" / name)
    is_short_enough = length == 231
    made = {"first.nii.gz", "zuletzt.nii.gz", *([f"{long}.nii.gz"] if is_short_enough else [])}
    for words in ((), ("--resume",)):
        code = 0 if is_short_enough else 1
        predict(run, tmp_path / "in", tmp_path / "out", *words, code=code)
        assert masks_in(tmp_path / "out") == made
        told = capsys.readouterr().err
        assert ("1 fault in 1 case" in told) is not is_short_enough


def test_one_case_by_its_files(
    run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = sorted(scans.iterdir())[0]
    predict(run, source, tmp_path / "out")
    expected = np.asarray(nib.load(next((tmp_path / "out").glob("*.nii.gz"))).dataobj)
    named = {name: source / f"{source.name}_{name}.nii" for name in MODALITIES}
    odd = {
        name: tmp_path / "odd" / f"Jane_Doe-{word}.nii"
        for name, word in zip(MODALITIES, ("T1w", "T1w_Gd", "T2w", "FLAIR"), strict=True)
    }
    odd["t1"].parent.mkdir()
    for name, path in odd.items():
        shutil.copy(named[name], path)
    letters = zip(MODALITIES, "abcd", strict=True)
    bare = {name: tmp_path / "visit 2" / f"{letter}.nii" for name, letter in letters}
    bare["t1"].parent.mkdir()
    for name, path in bare.items():
        shutil.copy(named[name], path)
    for files, case in ((named, source.name), (odd, "Jane_Doe"), (bare, "visit 2")):
        words = [word for name, path in files.items() for word in (f"--{name}", path)]
        out = tmp_path / "masks" / case
        call("predict", *words, "--run", run, "--out", out, "--device", "cpu")
        assert set(contents(out)) == {f"{case}.nii.gz", f"{case}.json"}
        found = np.asarray(nib.load(out / f"{case}.nii.gz").dataobj)
        assert np.array_equal(found > 0, expected > 0)
    call("predict", "--t1", named["t1"], "--run", run, "--device", "cpu", code=1)
    assert "--flair" in capsys.readouterr().err
    call("predict", source, "--t1", named["t1"], "--run", run, "--device", "cpu", code=2)
    call("predict", "--run", run, code=2)
