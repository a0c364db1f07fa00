"""The tests that are too slow for every change, those marked "slow"."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from tests.commands import ROOT


def soak(arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pytest", "-m", "slow", "-n0", *arguments]
    subprocess.run(command, cwd=ROOT, check=True)
