"""What surroundings can do to a command: it is right, or ends in one message with nothing lost.

A clock that jumps; memory that runs out at several limits (RLIMIT_AS); outputs on a disk that is
full or read-only; scans cut, replaced and removed while they are read (--changes 12). After each
fault the same command on sound surroundings makes what one that was left alone made. The disks are
small tmpfs mounts, which need root; without it these are left out and that is said.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import brats_cache.build.job  # noqa: F401 - for the forks
import brats_train.cli.main  # noqa: F401 - for the forks
from brats_cache.synthetic.write_phantom import write_phantom
from tests.cache.builds import Build, journal_of
from tests.commands import LAUNCHER

NUM_CASES = 8
SIDE = 32  # of a slice
SHARES = (0.5, 0.8, 0.95)  # of the address space that a command left alone takes
# Every reading of the clock is a day or more before or after the one before it.
JUMPING_CLOCK = """
import itertools, time
real, calls = time.time, itertools.count(1)
time.time = lambda: real() + (-1) ** (n := next(calls)) * 86400.0 * n
"""
Words = tuple[object, ...]


def soak(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak faults")
    parser.add_argument("--changes", type=int, default=12, help="Of scans while they are read.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="Where to work.")
    options = parser.parse_args(arguments)
    sys.stdout.reconfigure(line_buffering=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        soaked = _Soak(Path(name).resolve(), random.Random(options.seed))
        soaked.change_scans(options.changes)
        soaked.let_clock_jump()
        soaked.limit_memory()
        if os.geteuid() == 0:
            soaked.refuse_disk()
        else:
            print("full and read-only disks: left out, mounting them needs root")


class _Soak:
    """A phantom, its cache and a run, and what may be done to the commands that made them."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder, rng
        self._scans, self._cache, self._run = folder / "scans", folder / "c.h5", folder / "run"
        write_phantom(
            self._scans,
            num_cases=NUM_CASES - 2,
            num_test_cases=2,
            seed=3,
            shape=(SIDE, SIDE, 16),
            workers=1,
        )
        _run(*self._build(self._cache))
        _run(*self._train(self._run))

    def _build(self, out: Path) -> Words:
        return "build-cache", self._scans, "--out", out, "--size", SIDE, "--workers", 1

    def _train(self, run: Path) -> Words:
        start = ("--encoder-weights", "none", "--set", "model.encoder=resnet18", "--epochs", 1)
        options = ("--set", "rows=all", "--batch-size", 25, "--amp", "off", "--device", "cpu")
        return "train", "--cache", self._cache, "--run-dir", run, *start, *options

    def _predict(self, out: Path) -> Words:
        return "predict", self._scans, "--run-dir", self._run, "--out", out, "--device", "cpu"

    def _eval(self, run: Path) -> Words:
        return "eval", "--run-dir", run, "--save-masks", "--device", "cpu"

    def change_scans(self, num_changes: int) -> None:
        """Cuts, replaces and removes scans while a build reads them."""
        wanted, out, kept = _sha256(self._cache), self._folder / "changed.h5", self._folder / "kept"
        files = sorted(self._scans.rglob("*.nii*"))
        num_told = 0
        for _ in range(num_changes):
            scan, other = self._rng.sample(files, 2)
            step = self._rng.randrange(2 * NUM_CASES)  # a survey or the rows of a case
            build = Build(out, self._scans, *self._build(out)[4:], forked=True)
            while build.process.poll() is None and sum(journal_of(out).values()) <= step:
                time.sleep(0.002)
            shutil.copy2(scan, kept)
            change = self._rng.choice((_cut, _overwrite, _replace, _remove))
            change(scan, other, self._rng)
            ended = build.end()
            if ended.code == 0:  # it had been read, or not yet
                fresh = self._folder / "fresh.h5"
                held = [wanted]
                if _run(*self._build(fresh), code=None).returncode == 0:
                    held.append(_sha256(fresh))
                    fresh.unlink()
                assert _sha256(out) in held, f"{change.__name__} of {scan} got through"
                out.unlink()
            else:
                assert ended.code == 1, ended
                assert "Traceback" not in ended.said, ended.said
                assert ended.said.count("Error: ") == 1, ended.said
                assert scan.name in ended.said or scan.parent.name in ended.said, ended.said
                num_told += 1
            shutil.copy2(kept, scan)
            _run(*self._build(out))
            assert _sha256(out) == wanted, f"another file after {change.__name__} of {scan}"
            out.unlink()
        print(
            f"scans changed while read: {num_changes}, {num_told} told, ",
            "the others before or after they were read",
            sep="",
        )

    def let_clock_jump(self) -> None:
        """Builds and trains with a clock that jumps, on scans of other centuries."""
        (self._folder / "sitecustomize.py").write_text(JUMPING_CLOCK)
        moments = (0, 1 << 31, 1 << 33)
        for scan in self._scans.rglob("*.nii*"):
            os.utime(scan, (self._rng.choice(moments),) * 2)
        out, run = self._folder / "jumped.h5", self._folder / "jumped"
        _run(*self._build(out), path=self._folder)
        assert _sha256(out) == _sha256(self._cache)
        _run(*self._train(run), path=self._folder)
        _run(*self._eval(run), path=self._folder)
        _run(*self._eval(self._run))
        for name in ("cases.csv", *[f"masks/{mask.name}" for mask in _masks(self._run)]):
            assert _held(run, name) == _held(self._run, name), name
        print("a clock that jumps: the same cache, scores and masks")

    def limit_memory(self) -> None:
        """Runs commands in less address space than they need."""
        outs = [self._folder / name for name in ("less.h5", "less-run", "less-masks")]
        commands = [
            (self._build(outs[0]), outs[0]),
            (self._train(outs[1]), outs[1]),
            (self._eval(self._run), self._run / "eval"),
            (self._predict(outs[2]), outs[2]),
        ]
        for words, out in commands:
            _discard(out)
            peak = _peak_address_space(*words)
            if words[0] in ("train", "predict"):
                words = (*words, "--overwrite")
            told = died = 0
            for share in SHARES:
                done = _run(*words, code=None, address_space=int(share * peak))
                if done.returncode == 1:
                    _assert_one_message(done, "memory")
                    told += 1
                elif done.returncode:  # a library ended the process
                    died += 1
                    assert done.stderr, "it died without a word"
            _run(*words)
            print(
                f"memory, {words[0]}: {len(SHARES)} limits, {told} told, {died} ended in a library"
            )
            _discard(out)

    def refuse_disk(self) -> None:
        """Writes to disks that are full or read-only."""
        disk, link, num = self._folder / "disk", ("link", self._cache, "--out"), 0
        run, name = disk / "run", "c.h5"
        for size, is_read_only in (("4m", True), ("4k", False)):
            with _disk(disk, "400m"):
                shutil.copytree(self._run, run)
                _remount(disk, "ro" if is_read_only else f"size={_used(disk)}k")
                commands: list[Words] = [
                    self._build(disk / name),
                    self._train(disk / "new"),
                    self._eval(run),
                    ("report", "--run-dir", run, "--device", "cpu"),
                    self._predict(disk / "masks"),
                    (*link, disk / "link.h5"),
                    ("phantom", disk / "ph", "--cases", 2, "--shape", "16,16,8"),
                ]
                for words in commands:
                    _assert_one_message(_run(*words, code=1), str(disk))
                    num += 1
                _run("verify", run)
                assert not list(disk.glob("*.h5")), size
        print(f"full and read-only disks: {num} commands, each ended in one message")


def _cut(scan: Path, other: Path, rng: random.Random) -> None:
    os.truncate(scan, rng.randrange(scan.stat().st_size))


def _overwrite(scan: Path, other: Path, rng: random.Random) -> None:
    scan.write_bytes(other.read_bytes())


def _replace(scan: Path, other: Path, rng: random.Random) -> None:
    shutil.copy2(other, scan.with_name("new"))
    scan.with_name("new").replace(scan)


def _remove(scan: Path, other: Path, rng: random.Random) -> None:
    scan.unlink()


def _run(
    *words: object, code: int | None = 0, address_space: int = 0, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `brats WORDS`, with a limit of its address space and a folder of modules."""
    done = subprocess.run(
        [sys.executable, str(LAUNCHER), *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **({"PYTHONPATH": str(path)} if path else {})},
        preexec_fn=_limit(address_space) if address_space else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert code is None or done.returncode == code, f"{words}: {done.returncode}\n{done.stderr}"
    return done


def _limit(num_bytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))


def _peak_address_space(*words: object) -> int:
    """The most address space that the main process of a command takes, in bytes."""
    process = subprocess.Popen(
        [sys.executable, str(LAUNCHER), *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        lines = [line for line in status.splitlines() if line.startswith("VmPeak:")]
        peak = max(peak, *(1024 * int(line.split()[1]) for line in lines), 0)
        time.sleep(0.02)
    assert process.returncode == 0, words
    return peak


def _assert_one_message(done: subprocess.CompletedProcess[str], expected: str) -> None:
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("Error: ") == 1, done.stderr
    assert expected in " ".join(done.stderr.split()), done.stderr


@contextmanager
def _disk(folder: Path, size: str) -> Iterator[None]:
    """A small disk of its own at `folder`."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


def _used(folder: Path) -> int:
    """KiB in use on a disk."""
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize // 1024


def _masks(run: Path) -> list[Path]:
    return sorted((run / "eval" / "val" / "masks").iterdir())


def _held(run: Path, name: str) -> bytes:
    return (run / "eval" / "val" / name).read_bytes()


def _discard(out: Path) -> None:
    for path in (out, *out.parent.glob(f"{out.name}.*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
