"""Damage to a journal costs work done again, and never changes a byte of the cache."""

from __future__ import annotations

import math
import os
import re
import shutil
from pathlib import Path

import pytest

from brats_cache.build import write_case as rows
from brats_cache.build.journal_lines import format_line, parse_lines
from tests.cache.scans import Commands, add_case, mask

SMALL = ("--size", 16, "--workers", 1)
OUT, JOURNAL = Path("heads/brats.h5"), Path("heads/brats.h5.journal")


@pytest.fixture
def journal(brats: Commands, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The journal of a build of four cases that failed at its third; straight.h5 is the whole."""
    for seed in range(4):
        add_case(Path("heads"), f"h{seed}", labels=mask((1,)), seed=seed)
    brats("build-cache", "heads", *SMALL, "--out", "straight.h5")
    real = rows.write_case

    def failing(task: rows.WriteTask) -> int:
        if task.case.id == "h2":
            raise rows.BratsError("h2: the disk fell off.")
        return real(task)

    with monkeypatch.context() as patch:
        patch.setattr("brats_cache.build.execute.write_case", failing)
        brats("build-cache", "heads", *SMALL, "--out", OUT, code=1)
    shutil.copytree("heads", "kept")
    return JOURNAL.read_bytes()


def finished(brats: Commands, damaged: bytes) -> str:
    """What the build says that goes on with this journal; its file is that of the whole build."""
    for name in (f"{OUT.name}.partial", OUT.name):
        (OUT.parent / name).unlink(missing_ok=True)
    shutil.copy(Path("kept", f"{OUT.name}.partial"), OUT.parent)
    JOURNAL.write_bytes(damaged)
    said = str(brats("build-cache", "heads", *SMALL, "--out", OUT).err)
    assert OUT.read_bytes() == Path("straight.h5").read_bytes()
    assert not JOURNAL.exists()
    return said


def test_a_changed_byte_anywhere_counts_its_line_as_not_written(
    brats: Commands, journal: bytes
) -> None:
    lines = journal.splitlines(keepends=True)
    assert len(lines) == 1 + 4 + 1 + 2
    assert "2 of 4 cases are done" in finished(brats, journal)
    for number, pattern in (
        (4, rb'"normalizations":\[\{"\w+":-?\d'),
        (4, rb'"brain_pixels":\[\d'),
        (4, rb'"fi'),
        (5, rb'"images_offset":\d'),
        (6, rb'"done":\d'),
        (7, rb'"checksum":"\w'),
        (7, rb'"bo'),
        (7, rb"\t\w"),
        (0, rb'"size":\d'),
    ):
        found = re.search(pattern, lines[number])
        assert found
        damaged = bytearray(lines[number])
        damaged[found.end() - 1] ^= 1
        said = finished(brats, b"".join([*lines[:number], damaged, *lines[number + 1 :]]))
        assert ("1 of 4 cases are done" in said) == (number in (6, 7))
        assert ("2 of 4 cases are done" in said) == (number == 4)


def test_lines_may_be_lost_swapped_or_repeated(brats: Commands, journal: bytes) -> None:
    lines = journal.splitlines(keepends=True)
    finished(brats, b"".join(lines[:5] + lines[6:]))
    finished(brats, b"".join(lines[:1] + lines[3:]))
    finished(brats, b"".join(lines[1:]))
    finished(brats, b"".join(reversed(lines)))
    finished(brats, journal + journal)
    finished(brats, journal[:-1] + b"\r\n")


def test_a_journal_without_checksums_counts_as_not_written(brats: Commands, journal: bytes) -> None:
    older = b"".join(line.split(b"\t")[0] + b"\n" for line in journal.splitlines())
    assert parse_lines(older).head == {}
    assert "are done" not in finished(brats, older)


def test_a_record_of_another_form_counts_as_not_written(brats: Commands, journal: bytes) -> None:
    """Whole lines, as another program could have written them."""
    lines = journal.splitlines(keepends=True)
    state = parse_lines(journal)
    survey = {"survey": "h1", **state.surveys["h1"]}
    survey["content"] = {**survey["content"]}
    del survey["content"]["affine"]
    boot = next(iter(state.done.values()))["boot"]
    strange = [
        survey,
        {"survey": "h1", "files": state.surveys["h1"]["files"]},
        {"plan": {}, "layout": {}},
        {"plan": [], "layout": None},
        {"done": "x", "checksum": "1", "boot": ""},
        {"done": 2, "checksum": "xyz", "boot": ""},
        {"done": 2, "checksum": 5, "boot": ""},
        {"done": [], "checksum": "1", "boot": ""},
        {"done": math.inf, "checksum": "0" * 16, "boot": ""},
        {"done": 99, "checksum": "0" * 16, "boot": boot},
        {"done": -1, "checksum": "0" * 16, "boot": boot},
        {"done": 2, "checksum": "f" * 17, "boot": boot},
        {"build": 3},
        {},
    ]
    content = state.surveys["h1"]["content"]
    strange += [
        {"survey": "h1", "files": state.surveys["h1"]["files"], "content": {**content, **part}}
        for part in (
            {"codes": {"x": "LPS"}},
            {"codes": "LLS"},
            {"affine": [1.0, 2.0]},
            {"shape": [0, 1, 1]},
            {"brain_pixels": [math.inf]},
            {"brain_pixels": [10**30] * len(content["brain_pixels"])},
            {"label_values": ["1", 2]},
            {"label_values": content["label_values"] * 2},
            {"label_pixels": []},
            {"sources": content["sources"][:1]},
            {"normalizations": []},
        )
    ]
    plan, layout = dict(state.plan), state.plan["layout"]
    del plan["layout"]
    strange += [
        {"plan": plan, "layout": {**layout, "masks_offset": "x"}},
        {"plan": plan, "layout": {**layout, "masks_offset": layout["file_bytes"]}},
        {"plan": plan, "layout": {**layout, "images_offset": -4096}},
        {"plan": plan, "layout": {**layout, "cases_offset": 255}},
        {"plan": plan, "layout": {**layout, "image_row_bytes": 1}},
        {"plan": {**plan, "cases": [[]]}, "layout": layout},
        {"plan": {**plan, "options": "x"}, "layout": layout},
    ]
    for record in strange:
        finished(brats, b"".join([*lines[:5], format_line(record), *lines[5:]]))
        finished(brats, journal + format_line(record))
    finished(brats, journal + b"[" * 200_000 + b"\n")


def test_a_pipe_in_place_of_a_journal_is_one_message(brats: Commands, journal: bytes) -> None:
    JOURNAL.unlink()
    os.mkfifo(JOURNAL)
    said = brats("build-cache", "heads", *SMALL, "--out", OUT, code=1).err
    assert "brats.h5.journal: cannot be read (a pipe, not a regular file)" in said
