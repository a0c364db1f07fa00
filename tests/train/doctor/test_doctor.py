"""The doctor: everything that training needs is checked, and each warning has a fix."""

from __future__ import annotations

import json
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from brats_train.doctor import report as doctor
from brats_train.doctor.check import Check, format_checks
from brats_train.doctor.disk import check_disk
from tests.train.runs import call

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor tries the disk of runs/, which other tests would see."""
    monkeypatch.chdir(tmp_path)


def test_it_knows_every_library_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(doctor.LIBRARIES) == {Requirement(line).name for line in project["dependencies"]}


def test_this_machine_can_train(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call("doctor", "--json")
    checks = json.loads(capsys.readouterr().out)
    names = {check["name"] for check in checks}
    expected = {"python", "cores", "memory", "/dev/shm", "data/", "runs/", "torch", "precision"}
    assert expected | {"ranks", "weights"} <= names
    for check in checks:
        assert check["state"] in ("fine", "warning"), check
        assert bool(check["fix"]) == (check["state"] != "fine"), check
    assert not list(Path.cwd().glob(".brats-doctor-*"))


def test_it_reads_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    call("doctor")
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "->" in text or "Everything is in place." in text


def test_a_library_that_is_missing_makes_training_impossible(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        if name == "kornia":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    call("doctor", code=1)
    text = capsys.readouterr().out
    assert "FAIL  missing" in text
    assert "kornia" in text
    assert "pip install" in text


def test_an_exception_in_a_check_is_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Check]:
        raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "_torch", broken)
    (check,) = (one for one in doctor.run_checks() if one.name == "torch")
    assert check.state == "failure"
    assert "libcudart.so" in check.found


def test_a_folder_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    check = check_disk("runs/", tmp_path / "not" / "yet")
    assert "free" in check.found
    assert "/s" in check.found
    assert not list(tmp_path.iterdir())


def test_a_folder_that_takes_no_files_is_said_so() -> None:
    check = check_disk("runs/", Path("/proc"))
    assert check.state == "warning"
    assert "/proc cannot be written" in check.found
    assert "--run" in check.fix


@pytest.mark.parametrize(
    ("states", "end"),
    [
        (("fine", "fine"), "Everything is in place."),
        (("fine", "warning"), "Training works here"),
        (("warning", "failure"), "Training is impossible here"),
    ],
)
def test_the_last_line_sums_up(states: tuple[str, ...], end: str) -> None:
    checks = [Check(name="x", found="y", state=state, fix="z") for state in states]
    assert format_checks(checks).splitlines()[-1].startswith(end)
