"""One benchmark, in a process of its own, whose results are written after every round."""

from __future__ import annotations

import importlib
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from brats_cache.common.errors import BratsError, print_message
from peers.job import Job
from peers.results import read_results, write_results

__all__ = ["run_one"]


def run_one(name: str, job: Job, out: Path) -> None:
    """Runs the benchmark of a name, and ends the process with 1 where it fails."""
    warnings.simplefilter("ignore")
    try:
        importlib.import_module(f"peers.{name}").run(job, partial(_save, name, out))
    except BratsError as error:
        print_message(error)
        sys.exit(1)


def _save(name: str, out: Path, result: dict[str, Any]) -> None:
    write_results(out, {**read_results(out), name: result})
    rounds = len(next(iter(result["ways"].values()))["rounds"])
    print(f"{name}: round {rounds} of all ways is measured", file=sys.stderr, flush=True)
