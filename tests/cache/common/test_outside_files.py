"""Files from outside: what is no regular file, too large or nested too deep is told at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brats_cache.build import output_checks
from brats_cache.common.errors import BratsError, DataFaults
from brats_cache.common.files import open_regular_file, read_json, read_small_file
from brats_cache.discovery.dataset_json import read_dataset_json
from brats_cache.discovery.manifest import read_manifest
from brats_cache.discovery.tables import read_csv, read_tables

KINDS = ("a pipe", "a folder", "a device")


def make(path: Path, kind: str) -> Path:
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / "name_mapping.csv", kind)
    for reader in (open_regular_file, read_small_file, read_json):
        with pytest.raises(OSError, match=f"{kind}, not a regular file") as told:
            reader(path)
        assert told.value.strerror == f"{kind}, not a regular file"
    for parse in (read_csv, read_dataset_json):
        with pytest.raises(DataFaults, match=rf"name_mapping\.csv: {kind}, not a regular"):
            parse(path)
    assert kind in str(read_tables([path]).faults[0])
    assert kind in str(read_manifest(path).faults[0])
    with pytest.raises(BratsError, match=kind):
        output_checks._holds(path, b"")


def test_a_file_has_at_most_so_many_bytes(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_bytes(bytes(10))
    assert read_small_file(path, 10) == bytes(10)
    with pytest.raises(OSError, match="larger than 9 bytes"):
        read_small_file(path, 9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 200_000, "values nested too deep"),
        ('{"a":' * 200_000, "values nested too deep"),
        ('{"numTraining": ' + "7" * 5000 + "}", "a number of too many digits"),
        ('{\n"a": }', "line 2: Expecting value"),
        ('{\n\n"a": "\udcff"}', "line 3: bytes that are not UTF-8"),
        ("", "line 1: Expecting value"),
    ],
)
def test_json_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=words):
        read_json(path)
    with pytest.raises(DataFaults, match=words):
        read_dataset_json(path)


@pytest.mark.parametrize(
    "labels",
    [
        '{"' + "9" * 5000 + '": "edema"}',
        '{"edema": ' + "9" * 4000 + ', "core": 1}',
        '{"²": "edema"}',
        '{"1": ' + "[" * 900 + "]" * 900 + ', "2": "x"}',
        '"' + "x" * 100_000 + '"',
    ],
)
def test_labels_that_are_none_are_quoted_in_part(tmp_path: Path, labels: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text('{"modality": {"0": "FLAIR"}, "labels": ' + labels + "}")
    told: object
    try:
        told = read_dataset_json(path)
    except DataFaults as error:
        told = error
    assert len(str(told)) < 4000


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("x" * 300, "which is not there"),
        ("a/" * 3000, "which is not there"),
        ("a.nii#" + "9" * 5000, "which is not there"),
        ("a\0.nii", "line 2: a NUL character"),
    ],
)
def test_paths_of_a_manifest_that_cannot_be(tmp_path: Path, cell: str, found: str) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(f"case,t1\none,{cell}\n")
    (tmp_path / "a.nii").touch()
    (fault,) = read_manifest(path, ["t1"], with_masks=False).faults
    assert found in fault.found
