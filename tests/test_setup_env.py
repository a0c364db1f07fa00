"""scripts/setup_env with a stand-in for Python, so that nothing is downloaded."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SETUP_ENV = Path(__file__).resolve().parent.parent / "scripts" / "setup_env"

# Answers what the script asks of an interpreter; STUB_FAILS names the question that goes
# wrong; with STUB_KILLS the installation takes the script with it.
STUB = r"""#!/bin/sh
case "$*" in
    *"$STUB_FAILS"*) [ -z "$STUB_FAILS" ] || exit 1 ;;
esac
case "$*" in
    *python_version*) echo "${STUB_VERSION:-3.12.1}" ;;
    "-m venv -- "*)
        echo venv >>"$STUB_LOG"
        mkdir -p "$4/bin" && touch "$4/pyvenv.cfg" && cp "$0" "$4/bin/python" ;;
    "-m pip install"*)
        echo pip >>"$STUB_LOG"
        [ -z "$STUB_KILLS" ] || kill -KILL "$PPID" ;;
esac
"""


@dataclass
class Machine:
    """A folder with a stand-in interpreter, and what the script did with it."""

    folder: Path

    @property
    def venv(self) -> Path:
        return self.folder / "an environment"

    @property
    def steps(self) -> list[str]:
        """ "venv" or "pip" for each step taken so far, in order."""
        log = self.folder / "log"
        return log.read_text().split() if log.exists() else []

    def setup(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "BRATS_PYTHON": "bin dir/python3",
            "BRATS_VENV": self.venv.name,
            "STUB_LOG": str(self.folder / "log"),
            "STUB_FAILS": "",
            "STUB_KILLS": "",
        }
        return subprocess.run(
            [SETUP_ENV, *arguments],
            cwd=self.folder,
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    stub = tmp_path / "bin dir" / "python3"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    return Machine(folder=tmp_path)


def test_second_call_starts_at_once(machine: Machine) -> None:
    first = machine.setup("dev")
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"{machine.venv}\n"
    second = machine.setup("dev")
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert machine.steps == ["venv", "pip"]


def test_development_serves_for_running_but_not_the_reverse(machine: Machine) -> None:
    machine.setup()
    machine.setup("dev")
    assert machine.steps == ["venv", "pip", "pip"]
    machine.setup()
    machine.setup("dev")
    assert machine.steps == ["venv", "pip", "pip"]


@pytest.mark.parametrize("failing", ["pip install", "-m venv"])
def test_failed_installation_is_tried_again(machine: Machine, failing: str) -> None:
    broken = machine.setup(STUB_FAILS=failing)
    assert broken.returncode == 1
    assert broken.stdout == ""
    assert machine.setup().returncode == 0
    assert machine.steps == ["venv", "pip"]


def test_killed_installation_starts_from_nothing(machine: Machine) -> None:
    """pip would take a library for installed of which half the files are there."""
    machine.setup(STUB_KILLS="yes")
    leftover = machine.venv / "lib" / "half a library"
    leftover.mkdir(parents=True)
    assert machine.setup().returncode == 0
    assert not leftover.exists()
    assert machine.steps == ["venv", "pip"] * 2


def test_interpreter_of_another_version_means_another_environment(machine: Machine) -> None:
    machine.setup()
    (machine.venv / "bin" / "python").write_text(STUB.replace("3.12.1", "3.11.7"))
    machine.setup()
    assert machine.steps == ["venv", "pip"] * 2


def test_moved_environment_is_made_anew(machine: Machine) -> None:
    machine.setup()
    elsewhere = machine.folder / "elsewhere"
    machine.venv.rename(elsewhere)
    assert machine.setup(BRATS_VENV=str(elsewhere)).stdout == f"{elsewhere}\n"
    assert machine.steps == ["venv", "pip"] * 2


@pytest.mark.parametrize(
    ("failing", "remedy"),
    [("version_info", "Python 3.11 or newer"), ("ensurepip", "apt-get install python3-venv")],
)
def test_missing_prerequisite_is_one_clear_line(
    machine: Machine, failing: str, remedy: str
) -> None:
    result = machine.setup(STUB_FAILS=failing, STUB_VERSION="3.10.12")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert remedy in line
    assert machine.steps == []


def test_other_peoples_folders_are_left_alone(machine: Machine) -> None:
    machine.venv.mkdir()
    thesis = machine.venv / "thesis.tex"
    thesis.write_text("all of it")
    assert machine.setup().returncode == 1
    assert list(machine.venv.iterdir()) == [thesis]
    assert machine.steps == []
