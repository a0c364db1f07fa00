"""Runs a build as another process that can be killed at a chosen line of its journal.

Used by `test_build` and by `scripts/soak kills`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.commands import LAUNCHER, PATIENCE
from tests.forked import ForkedBrats


@dataclass(frozen=True, kw_only=True)
class EndedBuild:
    """Exit code and output of a build."""

    code: int
    said: str


class Build:
    """`brats build-cache WORDS --out OUT` in a process group of its own."""

    def __init__(self, out: Path, *words: object, forked: bool = False) -> None:
        self.out = out
        words = ("build-cache", *words, "--out", out)
        self.process = ForkedBrats(*words) if forked else _start(words)

    def wait_until(self, what: str, count: int) -> None:
        """Waits until the journal holds `count` lines of a kind: "survey", "plan" or "done"."""
        deadline = time.monotonic() + PATIENCE
        while journal_of(self.out)[what] < count:
            assert self.process.poll() is None, self.end().said
            assert time.monotonic() < deadline, f"no {count} x {what} in {PATIENCE} s"
            time.sleep(0.002)

    def workers(self) -> list[int]:
        """Returns the process ids of the workers."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            lines = {int(pid): Path(f"/proc/{pid}/cmdline") for pid in path.read_text().split()}
            return [pid for pid, line in lines.items() if b"spawn_main" in line.read_bytes()]
        except OSError:  # one of them has just ended
            return []

    def kill(self, *, group: bool) -> None:
        """Sends SIGKILL to the main process, or to the workers as well."""
        (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)

    def end(self) -> EndedBuild:
        """Waits for the build to end."""
        said, _ = self.process.communicate(timeout=PATIENCE)
        return EndedBuild(code=self.process.returncode, said=said)

    def leaves_nobody(self) -> bool:
        """Whether every process of the group ends within seconds."""
        for _ in range(500):
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.01)
        return False


def _start(words: Sequence[object]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, LAUNCHER, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def journal_of(out: Path) -> Counter[str]:
    """Counts the complete lines of each kind in the journal of `out`."""
    counts: Counter[str] = Counter()
    try:
        content = out.with_name(out.name + ".journal").read_bytes()
    except FileNotFoundError:
        return counts
    for line in content.splitlines(keepends=True):
        if line.endswith(b"\n"):
            counts[next(iter(json.loads(line.rpartition(b"\t")[0])))] += 1
    return counts
