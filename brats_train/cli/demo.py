"""The command `brats demo`: the whole pipeline on synthetic cases."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from brats_cache.common.errors import BratsError, print_wrapped
from brats_cache.common.files import read_small_file
from brats_train.cli.main import cli
from brats_train.cli.options import PATH, FiniteRange

__all__ = ["demo"]

NUM_TEST_CASES = 2
MARK, MARK_TEXT = "README.txt", "Made by brats demo, which replaces this folder when run again.\n"
_SHAPE = "128x128x32"  # voxels of 1.9 x 1.9 x 4.8 mm: a seventeenth of those of BraTS
_SIZE = 128
# Averaging over flips and choosing the post-processing would take longer than the training.
_TRAINING = (
    "--recipe strong --encoder-weights none --batch-size 8 --set choose=false --set tta=false"
)
_VARIABLES = tuple(
    f"BRATS_{command}_"
    for command in ("PHANTOM", "BUILD_CACHE", "TRAIN", "EVAL", "PREDICT", "REPORT")
)


@click.command("demo")
@click.option(
    "--out", type=PATH, default=Path("demo"), show_default=True, help="Folder for everything."
)
@click.option("--cases", default=12, show_default=True, help="Synthetic cases with masks.")
@click.option(
    "--minutes",
    type=FiniteRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="Of training, at most.",
)
def demo(out: Path, cases: int, minutes: float) -> None:
    """Run the whole pipeline on synthetic cases: cache, training, scores, masks, figures.

    Takes about a minute longer than its training. Replaces an earlier demo in the same folder.
    """
    _run_demo(out, num_cases=cases, max_minutes=minutes)


def _run_demo(out: Path, *, num_cases: int, max_minutes: float) -> None:
    """Writes scans, cache, run, masks and figures into `out`, replacing an earlier demo.

    Raises:
        BratsError: `out` is a folder that no demo made.
    """
    if out.exists() and not _is_earlier_demo(out):
        raise BratsError(f"{out}: exists, and is no earlier demo. Name another folder with --out.")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).write_text(MARK_TEXT)
    started = time.monotonic()
    scans, cache, run = out / "scans", out / "brats.h5", out / "run"
    masks = out / "masks"
    print_wrapped(
        f"Trains for {max_minutes:g} minutes, however fast this machine is. The rest takes a "
        "minute on two idle cores, and longer on busy ones."
    )
    of_cases = f"--cases {num_cases} --test-cases {NUM_TEST_CASES} --shape {_SHAPE}"
    _run(f"phantom {_quote(scans)} {of_cases}")
    _run(f"build-cache {_quote(scans)} --out {_quote(cache)} --size {_SIZE}")
    limit = f"--max-minutes {max_minutes:g}"
    _run(f"train --cache {_quote(cache)} --run {_quote(run)} {_TRAINING} {limit}")
    _run(f"eval --run {_quote(run)} --split val")
    validation = scans / "BraTS2020_ValidationData"
    _run(f"predict {_quote(validation)} --run {_quote(run)} --out {_quote(masks)}")
    _run(f"report --run {_quote(run)}")
    click.echo(f"\nDone in {time.monotonic() - started:.0f} s. Results:")
    for path, what in {
        run / "report.html": "the run on one page, with slices to browse",
        run / "figures" / "panels.png": "scans, truth and prediction side by side",
        run / "figures" / "curves.png": "loss and IoU by epoch",
        run / "eval" / "val" / "cases.csv": "scores of every case",
        masks: "masks of the test cases, for any NIfTI viewer",
    }.items():
        click.echo(f"  {path}  ({what})")
    case = min(path.parent for path in validation.rglob("*_flair.nii*"))
    view = f"view {_quote(case)} --mask {_quote(masks / f'{case.name}.nii.gz')}"
    click.echo(f"Next: {_program()} {view}")


def _is_earlier_demo(out: Path) -> bool:
    mark = out / MARK
    return mark.is_file() and read_small_file(mark) == MARK_TEXT.encode()


def _run(words: str) -> None:
    """Shows a command and runs it; its time counts from here, not from the process's start."""
    click.echo(f"\n$ brats {words}")
    began = time.monotonic()
    with _options_of_the_demo():
        cli.main(shlex.split(words), prog_name="brats", standalone_mode=False, obj=began)


@contextmanager
def _options_of_the_demo() -> Iterator[None]:
    """Hides environment variables that would give the commands other options than are shown."""
    hidden = {name: os.environ[name] for name in os.environ if name.startswith(_VARIABLES)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _program() -> str:
    """How `brats` can be called from here: by its name where that is on PATH, else by its path."""
    if shutil.which("brats"):
        return "brats"
    path = Path(sys.argv[0])
    if not os.access(path, os.X_OK):  # python -m brats_train
        return f"{shlex.quote(sys.executable)} -m brats_train"
    path, here = path.resolve(), Path.cwd()
    if path.is_relative_to(here):
        return shlex.quote(f"./{path.relative_to(here)}")
    return _quote(path)


def _quote(path: Path) -> str:
    return shlex.quote(str(path))
