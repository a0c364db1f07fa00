"""Running the `brats` command as a person does: another process, its exit code, its words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Seconds after which a wait fails, on any machine and beside any load: only a hang takes as long.
PATIENCE = 900
ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = ROOT / "brats"
# An encoder of timm, made for tests: 0.4 million parameters, where resnet18 has 11.
SMALL_ENCODER = "tu-test_resnet"


def run_brats(
    *words: object,
    code: int = 0,
    cwd: Path | None = None,
    nproc: int = 0,
    timeout: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Runs `brats WORDS` (under torchrun where `nproc` is set) and checks its exit code."""
    start = [sys.executable]
    if nproc:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
    done = subprocess.run(
        [*start, str(LAUNCHER), *map(str, words)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def children_of(pid: int) -> list[int]:
    """The processes running `brats` that process `pid`, a torchrun, has started, oldest first."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
            command = (path.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent == pid and str(LAUNCHER) in command:
            found.append(int(path.parent.name))
    return sorted(found)
