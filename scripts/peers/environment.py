"""The environment of the peers, .venv-peers in the checkout, in the versions that were measured."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["find_python", "merge_constraints", "pinned_names"]

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def find_python(root: Path) -> Path:
    """Finds the interpreter of the environment, which is made first where it is not there yet.

    A hash of all that decides it tells whether it is whole and up to date; else it is made anew.

    Args:
        root: The checkout.

    Raises:
        SystemExit: The environment cannot be made.
    """
    folder = root / ".venv-peers"
    python, stamp = folder / "bin" / "python", folder / "peers-ready"
    constraints = merge_constraints(
        (root / "constraints.txt").read_text(), REQUIREMENTS.read_text()
    )
    decides = (constraints, REQUIREMENTS.read_text(), (root / "pyproject.toml").read_text())
    key = hashlib.sha256("\0".join((*decides, platform.python_version(), str(root))).encode())
    if stamp.is_file() and stamp.read_text() == key.hexdigest():
        return python
    print(f"installing brats and its peers into {folder}: about 7 GB", file=sys.stderr, flush=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(constraints)
        file.flush()
        pip = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        wanted = ["--constraint", file.name, "--requirement", REQUIREMENTS, "--editable", root]
        for command in ([sys.executable, "-m", "venv", "--clear", folder], [*pip, *wanted]):
            if subprocess.run(list(map(str, command)), stdout=sys.stderr).returncode:
                raise SystemExit(
                    f"{folder} could not be made, as said above. The same command tries again; "
                    "--python names an interpreter that has brats and its peers."
                )
    stamp.write_text(key.hexdigest())
    return python


def merge_constraints(constraints: str, requirements: str) -> str:
    """Leaves out of a constraints file what a requirements file pins."""
    pinned = pinned_names(requirements)
    return "\n".join(line for line in constraints.splitlines() if not pinned_names(line) & pinned)


def pinned_names(text: str) -> set[str]:
    """The names of the libraries that a requirements file pins, as PyPI normalises them."""
    names = re.findall(r"^([\w.-]+)==", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}
