"""The tests that kill processes, again and again (--times 50), and what failed by chance."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from tests.commands import ROOT


def soak(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak repeat")
    parser.add_argument("--times", type=int, default=50)
    options = parser.parse_args(arguments)
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    killing = [path for path in tests if "@pytest.mark.kills" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "kills", "-n0", "-q", "--no-header", *killing]
    failed = 0
    for number in range(1, options.times + 1):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        failed += done.returncode != 0
        print(f"{number} of {options.times}: {done.stdout.splitlines()[-1]}", flush=True)
        if done.returncode:
            print(done.stdout, flush=True)
    assert not failed, f"{failed} of {options.times} rounds failed"
