"""Journals of a build that was killed, damaged, or changed and given their checksums again.

A damaged one must not change the cache, whose bytes are compared. A forged one may be refused.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from brats_cache.build.execute import build, open_partial
from brats_cache.build.journal import Journal, file_states
from brats_cache.build.journal_lines import format_line
from brats_cache.build.plan import Plan, make_plan
from brats_cache.build.survey import Survey, load_case
from brats_cache.build.write_case import WriteTask, write_case
from brats_cache.common.errors import BratsError
from brats_cache.discovery.cases import Case
from brats_cache.format.reader import open_cache
from tests.hostile.caches import SMALL, small_cases
from tests.hostile.mutations import Files, choose, spoil_text, spoil_value

_SCANS = Path("../inner/scans")  # relative, so that the journal is the same everywhere
_JOURNAL, _PARTIAL, _FORGED = "out.h5.journal", "out.h5.partial", "forged"


def make(rng: np.random.Generator) -> Files:
    """The journal, the file under construction and the scans of a build."""
    files, _ = _left_behind()
    if rng.random() < 0.4:
        return {**files, _JOURNAL: spoil_text(files[_JOURNAL], rng)}
    lines = files[_JOURNAL].splitlines(keepends=True)
    for _ in range(int(rng.integers(1, 3))):
        number = int(rng.integers(len(lines)))
        lines[number] = _forged(lines[number], rng)
    return {**files, _JOURNAL: b"".join(lines), _FORGED: b""}


def _forged(line: bytes, rng: np.random.Generator) -> bytes:
    """A line that says something else, with the right checksum."""
    record = json.loads(line.rpartition(b"\t")[0])
    if (
        isinstance(record, dict) and record and rng.random() < 0.9
    ):  # below the keys, without which a line is not looked at
        key = choose(rng, list(record))
        record[key] = spoil_value(record[key], rng)
    else:
        record = spoil_value(record, rng)
    return format_line(record)


@cache
def _left_behind() -> tuple[Files, bytes]:
    """What a build leaves that was killed after the first of two cases, and what it would make."""
    with tempfile.TemporaryDirectory() as name:
        for folder in ("elsewhere", "inner/scans"):
            (Path(name) / folder).mkdir(parents=True)
        with chdir(Path(name) / "elsewhere"):
            out = _SCANS.parent / "out.h5"
            journal, plan = _begin(out, small_cases(_SCANS))
            layout = open_partial(plan, journal).layout
            first = WriteTask(
                path=journal.partial,
                layout=layout,
                case=plan.cases[0],
                preparation=SMALL.preparation,
            )
            journal.mark(0, write_case(first))
            names = [_JOURNAL, _PARTIAL, *(f"scans/{path.name}" for path in _SCANS.iterdir())]
            files = {name: (out.parent / name).read_bytes() for name in names}
            _finish(journal, plan)
            return files, journal.partial.read_bytes()


def read(folder: Path) -> None:
    """Goes on with the build."""
    out, partial = folder / "out.h5", folder / _PARTIAL
    if not (folder / _FORGED).exists():
        _go_on(out, start_anew=False)
        assert partial.read_bytes() == _left_behind()[1], "another cache"
        return
    try:
        _go_on(out, start_anew=False)
    except BratsError:
        _go_on(out, start_anew=True)
        raise
    open_cache(partial)


def _go_on(out: Path, *, start_anew: bool) -> None:
    journal, plan = _begin(out, small_cases(_SCANS), start_anew=start_anew)
    try:
        _finish(journal, plan)
    finally:
        journal.close()


def _begin(out: Path, cases: Sequence[Case], *, start_anew: bool = False) -> tuple[Journal, Plan]:
    for path in _SCANS.iterdir():
        os.utime(path, ns=(0, 0))  # the journal holds the time of each file
    journal = Journal(out, SMALL.preparation, start_anew=start_anew)
    try:
        surveys = [journal.find_survey(case) or _survey(journal, case) for case in cases]
        return journal, make_plan(surveys, (_SCANS,), SMALL)
    except BaseException:
        journal.close()
        raise


def _survey(journal: Journal, case: Case) -> Survey:
    survey = load_case(case, SMALL.preparation).survey
    journal.add_survey(survey, file_states(case))
    return survey


def _finish(journal: Journal, plan: Plan) -> None:
    build(plan, journal, open_partial(plan, journal), _OneProcess(), lambda done, total: None)


class _OneProcess:
    """`Workers` that are this process."""

    def map(
        self, function: Callable[[Any], Any], tasks: Sequence[Any], name_of: Callable[[Any], str]
    ) -> Iterator[tuple[int, Any]]:
        for index, task in enumerate(tasks):
            yield index, function(task)
