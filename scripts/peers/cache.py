"""Benchmark `cache`: from scans to training data, whole commands."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brats_cache.common.errors import BratsError
from peers.builders import link_nnunet_raw
from peers.job import Job, write_cases
from peers.ways import OURS, Benchmark, Way, measure, wanted

__all__ = ["run"]

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 3600
ALL, BRAIN = "brats, all slices", "brats, brain slices"
CPU, DISK = "CPU s a case", "MB a case"


def run(job: Job, save: Callable[[dict[str, Any]], None]) -> None:
    """Measures the ways; see the notes of each for what it does."""
    benchmark = Benchmark(
        title="From scans to training data",
        unit="case",
        shown="seconds",
        settings={"size": job.size, "modalities": len(job.modalities)},
        columns={CPU: {}, DISK: {}},
        remarks=[
            "Whole commands, start and imports included, from scans in the page cache; the same "
            "number of worker processes for all, of one thread each. Before each, what the one "
            "before wrote is removed and the disk synchronised. All are compared with brats that "
            "keeps every slice, as the others do.",
        ],
    )
    cases = job.folder / "cases.json"
    write_cases(job.cases, cases)
    makers = {
        OURS: lambda: [_ours(job, rule) for rule in ("all", "brain")],
        **{
            peer: lambda peer=peer: [_builder(job, cases, peer)]  # type: ignore[misc]
            for peer in ("monai", "torchio", "plain")
        },
        "nnunet": lambda: _nnunet(job),
    }
    ways = [_way(job, benchmark, command) for command in wanted(job, makers)]
    measure(job, benchmark, ways, save, warm_up=False)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A way that is a command.

    Attributes:
        name, peer, note: As of `Way`.
        words: The program and its arguments.
        out: The folder that it writes.
        count: Tells how many cases it has written.
        variables: Of its environment, beside those of this process.
        lay_out: Makes what it needs in `out`; not timed.
    """

    name: str
    peer: str
    note: str
    words: Sequence[object]
    out: Path
    count: Callable[[], int]
    variables: Mapping[str, str] = field(default_factory=dict)
    lay_out: Callable[[], object] = lambda: None


def _ours(job: Job, rule: str) -> Command:
    out = job.folder / f"out-brats-{rule}"
    words = ["build-cache", *job.data, "--out", out / "a.h5", "--slices", rule]
    shape = ["--size", job.size, "--modalities", ",".join(job.modalities), "--val-fraction", 0]
    return Command(
        name={"all": ALL, "brain": BRAIN}[rule],
        peer=OURS,
        note=(
            "`brats build-cache`, which also finds the cases, checks scans and masks, makes one "
            "orientation and one label scheme, writes float16 with checksums, and waits for the "
            f"disk (fsync). {'Every slice' if rule == 'all' else 'Slices with brain'}."
        ),
        words=[sys.executable, ROOT / "brats", *words, *shape, "--workers", job.workers],
        out=out,
        count=lambda: len(job.cases) if (out / "a.h5").is_file() else 0,  # whole, or not there
    )


_NOTES = {
    "monai": (
        "MONAI PersistentDataset",
        "*.pt",
        "Filled by a DataLoader: loaded, z-scored over non-zero voxels, every slice resized, "
        "float16 and uint8, pickled with torch. No checks, checksums or fsync, no labels mapped.",
    ),
    "torchio": (
        "TorchIO",
        "*.npz",
        "SubjectsDataset and SubjectsLoader: ZNormalization over non-zero voxels (the background "
        "becomes the negative mean), Resize of the volume by SimpleITK, float16 and uint8 as "
        ".npz, written by its workers, because TorchIO has no cache of its own. No checks, "
        "checksums or fsync, no labels mapped.",
    ),
    "plain": (
        "nibabel + h5py, gzip",
        "*.h5",
        "A plain script: nibabel, z-score by NumPy, scipy.ndimage.zoom slice by slice, one HDF5 "
        "file a case, gzipped by h5py. No checks, checksums or fsync, no labels mapped.",
    ),
}


def _builder(job: Job, cases: Path, peer: str) -> Command:
    name, files, note = _NOTES[peer]
    out = job.folder / f"out-{peer}"
    return Command(
        name=name,
        peer=peer,
        note=note,
        words=[sys.executable, "-m", "peers.builders", peer, cases, out, job.size, job.workers],
        out=out,
        count=lambda: len(list(out.glob(files))),
    )


def _nnunet(job: Job) -> list[Command]:
    out, raw, planned = (job.folder / name for name in ("out-nnunet", "nnunet-raw", "planned"))
    try:
        link_nnunet_raw(job.cases, raw)
    except ValueError as error:
        raise BratsError(f"{job.about}: {error}. Leave nnunet out of --peers.") from error
    variables = {
        "nnUNet_raw": str(raw),
        "nnUNet_preprocessed": str(out),
        "nnUNet_results": str(job.folder / "nnunet-results"),
    }
    programs = Path(sys.executable).parent
    workers = ["-np", job.workers]
    both = [programs / "nnUNetv2_plan_and_preprocess", "-d", 1, "-npfp", job.workers]

    def count() -> int:
        return len(list(out.rglob("nnUNetPlans_2d/*.pkl")))

    whole = Command(
        name="nnU-Net v2, 2d",
        peer="nnunet",
        note=(
            "`nnUNetv2_plan_and_preprocess -c 2d`: fingerprint of the data set, planning (which "
            "takes as long for any number of cases), cropping, z-score, resampling to the median "
            "spacing (no fixed size), float32 compressed with Blosc2, foreground sampled. The raw "
            "folder, by symbolic links, is made beforehand. Integrity check off; no checksums or "
            "fsync, no labels mapped."
        ),
        words=[*both, "-c", "2d", *workers],
        out=out,
        count=count,
        variables=variables,
    )
    preprocess = Command(
        name="nnU-Net v2, 2d, planned before",
        peer="nnunet",
        note="`nnUNetv2_preprocess -c 2d` alone: fingerprint and plans are there beforehand.",
        words=[programs / "nnUNetv2_preprocess", "-d", 1, "-c", "2d", *workers],
        out=out,
        count=count,
        variables=variables,
        lay_out=lambda: shutil.copytree(planned, out),
    )
    _call("nnU-Net's planning", [*both, "--no_pp"], variables, job.folder / "log.txt")
    out.rename(planned)
    return [whole, preprocess]


def _way(job: Job, benchmark: Benchmark, command: Command) -> Way:
    """A command as a way, which fills the columns of the benchmark as it runs."""

    def prepare() -> None:
        for folder in job.folder.glob("out-*"):
            shutil.rmtree(folder)
        command.lay_out()
        os.sync()  # unwritten pages of one must not slow the next
        for case in job.cases:
            for path in case.paths:
                path.read_bytes()

    def run() -> int:
        before = _cpu_seconds()
        _call(command.name, command.words, command.variables, job.folder / "log.txt")
        written = [path.stat().st_size for path in command.out.rglob("*") if path.is_file()]
        for column, value in ((CPU, _cpu_seconds() - before), (DISK, sum(written) / 1e6)):
            benchmark.columns[column].setdefault(command.name, []).append(value / len(job.cases))
        if (done := command.count()) != len(job.cases):
            raise BratsError(f"{command.name}: wrote {done} of {len(job.cases)} cases.")
        return done

    return Way(
        name=command.name,
        peer=command.peer,
        note=command.note,
        run=run,
        compared=ALL,
        prepare=prepare,
    )


def _call(name: str, words: Sequence[object], variables: Mapping[str, str], log: Path) -> None:
    """Runs a command, and ends all of its processes where it does not end by itself."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            list(map(str, words)),
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(LIMIT_SECONDS)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise BratsError(f"{name}: did not end within {LIMIT_SECONDS} s.") from error
            raise
    if process.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise BratsError(f"{name}: failed with exit code {process.returncode}:\n{tail}")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
