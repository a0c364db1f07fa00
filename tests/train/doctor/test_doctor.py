"""The doctor: everything that training needs is looked at, and each fault has a fix."""

from __future__ import annotations

import json
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from brats_train.doctor import report as doctor
from brats_train.doctor.check import Check, as_text
from brats_train.doctor.disk import look_at_disk
from tests.train.runs import call

ROOT = Path(__file__).resolve().parents[3]


def test_it_knows_every_library_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(doctor.LIBRARIES) == {Requirement(line).name for line in project["dependencies"]}


def test_this_machine_can_train(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call("doctor", "--json")
    findings = json.loads(capsys.readouterr().out)
    names = {finding["name"] for finding in findings}
    expected = {"python", "cores", "memory", "/dev/shm", "data/", "runs/", "torch", "precision"}
    assert expected | {"ranks", "weights"} <= names
    for finding in findings:
        assert finding["state"] in ("fine", "warning"), finding
        assert bool(finding["fix"]) == (finding["state"] != "fine"), finding
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


def test_what_it_trips_over_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Check]:
        raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "_torch", broken)
    (finding,) = (one for one in doctor.examine() if one.name == "torch")
    assert finding.state == "failure"
    assert "libcudart.so" in finding.found


def test_a_folder_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    finding = look_at_disk("runs/", tmp_path / "not" / "yet")
    assert "free" in finding.found
    assert "/s" in finding.found
    assert not list(tmp_path.iterdir())


def test_a_folder_that_takes_no_files_is_said_so() -> None:
    finding = look_at_disk("runs/", Path("/proc"))
    assert finding.state == "warning"
    assert "/proc cannot be written" in finding.found
    assert "--run" in finding.fix


@pytest.mark.parametrize(
    ("states", "end"),
    [
        (("fine", "fine"), "Everything is in place."),
        (("fine", "warning"), "Training works here"),
        (("warning", "failure"), "Training is impossible here"),
    ],
)
def test_the_last_line_sums_up(states: tuple[str, ...], end: str) -> None:
    findings = [Check(name="x", found="y", state=state, fix="z") for state in states]
    assert as_text(findings).splitlines()[-1].startswith(end)
