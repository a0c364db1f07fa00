"""`brats scan` writes a table of the cases that a person can correct."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from brats_cache.cli.scan import scan
from brats_cache.common.errors import BratsError
from brats_cache.discovery.manifest import read_manifest
from tests.cache.discovery.trees import FOUR, add_files, add_scans


def run(*words: object) -> Result:
    return CliRunner().invoke(scan, list(map(str, words)))


def test_the_table_can_be_read_as_a_manifest(tmp_path: Path) -> None:
    add_scans(tmp_path / "set", "N-31/N-31_")
    add_scans(tmp_path / "set", "N-32/N-32_", (*FOUR, "outline"))
    out = tmp_path / "cases.csv"
    done = run(tmp_path / "set", "--out", out)
    assert done.exit_code == 0, done.output
    assert "2 cases of 2 patients, 1 with a mask" in done.output
    assert "could be one" in done.output
    assert [case.mask is None for case in read_manifest(out).cases] == [False, True]
    assert run(tmp_path / "set", "--out", out, "--mask-word", "outline").exit_code == 1
    again = run(tmp_path / "set", "--out", out, "--mask-word", "outline", "--overwrite")
    assert "2 with a mask" in again.output
    assert all(case.mask is not None for case in read_manifest(out).cases)


def test_an_existing_table_is_not_replaced(tmp_path: Path) -> None:
    add_scans(tmp_path, "N-31/N-31_")
    out = tmp_path / "cases.csv"
    out.write_text("corrected by hand")
    done = run(tmp_path, "--out", out)
    assert isinstance(done.exception, BratsError)
    assert "--overwrite" in str(done.exception)
    assert out.read_text() == "corrected by hand"


def test_cases_with_faults_are_told_and_the_others_written(tmp_path: Path) -> None:
    add_scans(tmp_path / "set", "N-31/N-31_", ("t1", "flair"))
    add_files(tmp_path / "set", "N-32/N-32_t1.nii", "N-32/N-32_t1.nii.gz")
    out = tmp_path / "cases.csv"
    done = run(tmp_path / "set", "--out", out)
    assert done.exit_code == 0
    assert "two different files for t1" in done.output
    assert [case.id for case in read_manifest(out, ("t1", "flair")).cases] == ["N-31"]


def test_where_nothing_is_found_nothing_is_written(tmp_path: Path) -> None:
    done = run(tmp_path, "--out", tmp_path / "cases.csv")
    assert isinstance(done.exception, BratsError)
    assert not (tmp_path / "cases.csv").exists()


def test_a_scheme_that_dataset_json_tells_is_written(tmp_path: Path) -> None:
    description = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "edema": 1, "non-enhancing": 2, "enhancing": 3},
        "file_ending": ".nii.gz",
    }
    add_files(tmp_path, "imagesTr/c_0000.nii.gz", "labelsTr/c.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    assert run(tmp_path, "--out", tmp_path / "cases.csv").exit_code == 0
    (case,) = read_manifest(tmp_path / "cases.csv", ("t1",)).cases
    assert (case.id, case.scheme) == ("c", "msd")
