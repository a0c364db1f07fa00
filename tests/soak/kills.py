"""A build killed at random moments, again and again (--kills 50): it ends in the same file.

In turn SIGKILL takes the main process, whose workers must follow it, the main process with its
workers, and one worker, of which the build says in one message that it died. In between the main
process, its workers or all of them are stopped and go on. After every kill nothing half written may
lie under the final name, and the next start must go on with all cases that were noted.

Most kills follow a random step of the build by a random moment; one in ten falls at any moment of
its start. The defaults make a build of about a second, so that 1,000 kills take half an hour of one
core; for a longer one: --cases 60 --shape 160,160,100, which needs 5 GB.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import brats_cache.build.job  # noqa: F401 - for the forks
import brats_train.cli.main  # noqa: F401
from brats_cache.synthetic.write_phantom import write_phantom
from tests.cache.builds import Build, EndedBuild, journal_of
from tests.commands import PATIENCE

VICTIMS = ("main", "group", "worker")
MOMENT_SECONDS = 0.04  # after a step of the build; a case takes about as long
PAUSE_SECONDS = 0.2


def soak(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak kills")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--shape", default="48,48,24", help="Of a case, in voxels.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="Where to work.")
    options = parser.parse_args(arguments)
    width, height, depth = map(int, options.shape.split(","))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        scans = Path(name) / "scans"
        write_phantom(
            scans,
            num_cases=options.cases,
            num_test_cases=2,
            seed=0,
            gz=True,
            workers=1,
            shape=(width, height, depth),
        )
        words = (scans, "--size", max(width, height))
        _Soak(Path(name), words, options.cases + 2, random.Random(options.seed)).run(options.kills)


class _Soak:
    """Builds one cache over and over, killed more often than not."""

    def __init__(
        self, folder: Path, words: Sequence[object], num_cases: int, rng: random.Random
    ) -> None:
        self._folder, self._words, self._rng = folder, words, rng
        self._out = folder / "brats.h5"
        self._num_steps = 2 * num_cases + 2  # surveys, plan, cases, final name
        self._victims: Counter[str] = Counter()  # hits by what was killed
        self._moments: Counter[str] = Counter()  # and by how far the build was
        self._num_recovered = self._num_pauses = 0

    def run(self, num_kills: int) -> None:
        """Kills so many times and prints what was hit."""
        started = time.monotonic()
        build = self._start()
        self._wait_until(build, 1)
        self._start_seconds = time.monotonic() - started
        ended = build.end()
        assert ended.code == 0, ended.said
        wanted = _sha256(self._out)
        num_builds = 0
        while self._victims.total() < num_kills:
            self._out.unlink()
            num_builds += 1
            while not self._out.exists() and self._victims.total() < num_kills:
                ended = self._kill_one()
            if ended.code:  # completes it, or finds it complete and sweeps
                ended = self._start().end()
            assert ended.code == 0, ended.said
            assert _sha256(self._out) == wanted, "another file"
            left = set(os.listdir(self._folder)) - {"scans", "brats.h5", "brats.splits.csv"}
            assert not left, left
            if num_builds % 20 == 0 or self._victims.total() == num_kills:
                print(f"{self._victims.total()} kills hit in {num_builds} builds:", end=" ")
                print(f"{_listed(self._victims)}; {_listed(self._moments)}; ", end="")
                print(f"{self._num_recovered} builds did not need the killed worker; ", end="")
                print(f"{self._num_pauses} pauses", flush=True)

    def _start(self) -> Build:
        return Build(self._out, *self._words, "--workers", self._rng.choice((1, 1, 2)), forked=True)

    def _kill_one(self) -> EndedBuild:
        """Starts or goes on with the build and kills it, or one of its workers."""
        before = journal_of(self._out)
        build = self._start()
        if self._rng.random() < 0.1:
            time.sleep(self._rng.uniform(0, self._start_seconds))
        else:
            self._wait_until(build, self._rng.randint(_steps(before) + 1, self._num_steps))
            time.sleep(self._rng.uniform(0, MOMENT_SECONDS))
        if self._rng.random() < 0.1:
            self._pause(build)
        victim = self._rng.choice(VICTIMS)
        if victim == "worker":
            ended = self._kill_worker(build)
        else:
            with suppress(ProcessLookupError):  # a group that has not begun, or has ended
                build.kill(group=victim == "group")
            ended = build.end()
            assert ended.code in (0, -signal.SIGKILL), ended.said
        assert build.leaves_nobody(), "a worker outlived its parent"
        after = journal_of(self._out)
        if ended.code:
            self._victims[victim] += 1
            self._moments[self._moment_of(after)] += 1
        if not self._out.exists():
            said = re.search(r"Resuming: (\d+) of", ended.said)
            assert not said or int(said[1]) == before["done"], f"not {before}: {ended.said}"
            assert after["done"] >= before["done"], (before, after)
        return ended

    def _wait_until(self, build: Build, step: int) -> None:
        """Waits until the build has made so many steps, or has ended."""
        deadline = time.monotonic() + PATIENCE
        journal, num_bytes = self._out.with_name(self._out.name + ".journal"), -1
        while build.process.poll() is None and not self._out.exists():
            assert time.monotonic() < deadline, f"no step {step} in {PATIENCE} s"
            with suppress(FileNotFoundError):  # reading it takes long, so only where it has grown
                has_grown = num_bytes != (num_bytes := journal.stat().st_size)
                if has_grown and _steps(journal_of(self._out)) >= step:
                    break
            time.sleep(0.005)

    def _moment_of(self, journal: Counter[str]) -> str:
        """How far a killed build was, by what it left."""
        if self._out.exists():
            return "after the final name"
        if not journal["plan"]:
            return "before the plan"
        return "before the last case" if _steps(journal) < self._num_steps - 1 else "finishing"

    def _pause(self, build: Build) -> None:
        """Stops the main process, its workers or all of them, and lets them go on."""
        main, workers = build.process.pid, build.workers()
        who = self._rng.choice(([main], workers, [main, *workers]))
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in who:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(PAUSE_SECONDS)
        self._num_pauses += bool(who)

    def _kill_worker(self, build: Build) -> EndedBuild:
        """Kills one worker, where there is one; the build ends in one message or without it."""
        workers = build.workers()
        if workers:
            with suppress(ProcessLookupError):
                os.kill(self._rng.choice(workers), signal.SIGKILL)
        ended = build.end()
        if ended.code == 0:
            self._num_recovered += bool(workers)
        else:
            assert ended.code == 1, ended
            assert "the worker process died" in ended.said, ended.said
            assert "Traceback" not in ended.said, ended.said
        return ended


def _steps(journal: Counter[str]) -> int:
    """How many steps of a build are noted."""
    return journal["survey"] + journal["plan"] + journal["done"]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
