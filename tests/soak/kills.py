"""A build killed at random moments, again and again (--kills 50): it ends in the same file.

Half of the kills take the main process alone, whose workers must follow it. After each, nothing
may lie under the final name, and the next start must go on with at least the cases that were noted.
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
from collections.abc import Sequence
from pathlib import Path

from brats_cache.synthetic.write_phantom import write_phantom
from tests.cache.builds import Build, journal_of

WORKERS = 2
SHAPE = (160, 160, 100)


def soak(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak kills")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--cases", type=int, default=60, help="Enough that every kill hits.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="Where to work; needs about 5 GB.")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        _soak(Path(folder), options.kills, options.cases, random.Random(options.seed))


def _soak(folder: Path, num_kills: int, num_cases: int, rng: random.Random) -> None:
    scans, out = folder / "scans", folder / "brats.h5"
    write_phantom(
        scans, num_cases=num_cases, num_test_cases=2, seed=0, gz=True, shape=(160, 160, 100)
    )
    words = (scans, "--workers", WORKERS, "--size", 160)
    started = time.monotonic()
    assert Build(out, *words).end().code == 0
    seconds = time.monotonic() - started
    wanted = _sha256(out)
    hits = builds = 0
    while hits < num_kills:
        out.unlink(missing_ok=True)
        builds += 1
        while not out.exists() and hits < num_kills:
            before = journal_of(out)["done"]
            build = Build(out, *words)
            # Moments over a whole build, more of them early: every start repeats its beginning.
            time.sleep(rng.uniform(0.1, max(0.4, seconds * rng.random())))
            build.kill(group=rng.random() < 0.5)
            ended = build.end()
            if ended.code == 0:
                break
            assert ended.code == -signal.SIGKILL, ended.said
            assert build.leaves_nobody(), "a worker outlived its parent"
            hits += 1
            said = re.search(r"Resuming: (\d+) of", ended.said)
            assert not said or int(said[1]) == before, f"{before} were noted: {ended.said}"
            assert journal_of(out)["done"] >= before
        last = Build(out, *words).end() if not out.exists() else None
        assert last is None or last.code == 0, last and last.said
        assert _sha256(out) == wanted, "another file"
        left = [name for name in os.listdir(folder) if name.endswith((".partial", ".journal"))]
        assert left == [], left
    print(f"{hits} kills hit in {builds} builds of {num_cases + 2} cases, ", end="")
    print(f"each {seconds:.1f} s when left alone")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
