"""docs/cache-format.md is enough to write a reader from: the readers it holds are run here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from brats_cache.format.checksum import OBJECTS
from brats_cache.format.reader import open_cache
from brats_cache.format.schema import SLICE_DTYPE, TEXT_FIELDS, case_dtype
from tests.commands import ROOT
from tests.hostile.caches import small_cache

PAGE = (ROOT / "docs" / "cache-format.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
GUARD = '\nassert not {m for m in sys.modules if m.startswith("brats")}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "small.h5"
    path.write_bytes(small_cache())
    return path


def run(program: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", program + GUARD, path],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_reader_of_the_page_reads_what_this_program_wrote(path: Path) -> None:
    _, reader, _ = PROGRAMS
    done = run(reader, path)
    assert done.returncode == 0, done.stderr
    cache = open_cache(path)
    lines = [f"{len(cache.images)} rows of {', '.join(cache.preparation.modalities)}"]
    for index, record in enumerate(cache.cases):
        rows = slice(record["first_row"], record["first_row"] + record["rows"])
        tumour = np.isin(cache.masks[rows], (1, 2, 3)).sum()
        assert tumour > 0
        name, split = record["id"].decode(), record["split"].decode()
        lines.append(f"{name} {split} {cache.images[rows].shape} {tumour}")
        assert cache.depth(index) == record["rows"]
    assert done.stdout.splitlines() == lines


def test_the_checksum_record_is_as_the_page_says(path: Path) -> None:
    *_, checker = PROGRAMS
    assert run(checker, path).stdout == "intact\n"
    raw = bytearray(path.read_bytes())
    raw[40] ^= 1
    path.write_bytes(raw)
    assert "AssertionError" in run(checker, path).stderr


def test_the_three_lines_at_the_top_work(path: Path) -> None:
    done = run("import sys\n" + PROGRAMS[0].replace('"data/brats.h5"', "sys.argv[1]"), path)
    assert done.returncode == 0, done.stderr


def test_every_object_and_field_is_described(path: Path) -> None:
    named = set(re.findall(r"`/?(\w+)`", PAGE))
    kinds = case_dtype(dict.fromkeys(TEXT_FIELDS, 1), num_modalities=4)
    fields = {*kinds.names, *SLICE_DTYPE.names}
    assert fields <= named
    assert set(OBJECTS) <= named
    with h5py.File(path) as file:
        assert set(file) | set(file.attrs) <= named


def test_attributes_say_what_about_says(path: Path) -> None:
    """For tools that look at a file's attributes and read no JSON."""
    with h5py.File(path, "r") as file:
        attributes = dict(file.attrs.items())
    about = json.loads(attributes["about"])
    assert attributes["format_version"] == 1
    assert attributes["writer"].decode() == about["writer"]
    assert attributes["fingerprint"].decode() == about["fingerprint"]
    assert [name.decode() for name in attributes["modalities"]] == about["modalities"]
    assert json.loads(attributes["options"]) == about["options"]
