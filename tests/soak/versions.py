"""The tests with the oldest dependencies that pyproject.toml admits, and with the newest."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent.parent


def soak(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak versions")
    parser.add_argument("--only", choices=["oldest", "newest"])
    parser.add_argument("--python", type=Path, help="the interpreter (default: this one)")
    parser.add_argument("--folder", type=Path, help="where environments are made (6 GB each)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="brats-versions-") as name:
        for which in [options.only] if options.only else ["oldest", "newest"]:
            python = environment(Path(name) / which, options.python or Path(sys.executable), which)
            listed = subprocess.check_output([python, "-m", "pip", "freeze"], text=True)
            print(f"{which}: {' '.join(listed.split())}", flush=True)
            subprocess.run([python, "-m", "pytest", "-q", "-n", "2"], cwd=ROOT, check=True)


def environment(folder: Path, python: Path, which: str) -> Path:
    """Makes a virtual environment with the project and its dependencies; its interpreter."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    limits = folder / "constraints.txt"
    limits.write_text("\n".join(oldest()) if which == "oldest" else "")
    inside = folder / "bin" / "python"
    words = ("-m", "pip", "install", "--quiet", "--no-input", "--constraint", limits)
    subprocess.run([inside, *words, "--editable", f"{ROOT}[dev]"], check=True)
    return inside


def oldest() -> list[str]:
    """A constraint for each dependency: its least version, whatever the patch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in optional.values() for line in extra)]
    constraints = []
    for requirement in map(Requirement, lines):
        for limit in requirement.specifier:
            assert limit.operator == ">=", f"{requirement}: what would be the oldest?"
            constraints.append(f"{requirement.name}=={limit.version}.*")
    return constraints
