"""What `brats build-cache` refuses, and how it says so: all faults together, nothing lost."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from brats_cache.format.reader import open_cache
from tests.cache.scans import (
    OLD,
    SHAPE,
    SMALL,
    Commands,
    add_case,
    add_msd,
    edit,
    image,
    mask,
    splits_of,
    write,
)
from tests.commands import LAUNCHER, PATIENCE

# Faults: together, before anything is written


def break_many(data: Path) -> dict[str, str]:
    """Cases with one fault each, by id, and what must be said of it."""
    add_case(data, "BraTS20_Training_001", labels=mask())
    add_case(data, "BraTS20_Training_002", labels=mask())
    lacking = add_case(data, "BraTS20_Training_003", labels=mask())
    (lacking / "BraTS20_Training_003_t1ce.nii").unlink()
    cut = add_case(data, "BraTS20_Training_004", labels=mask()) / "BraTS20_Training_004_t2.nii"
    cut.write_bytes(cut.read_bytes()[:-9])
    other = add_case(data, "BraTS20_Training_005")
    write(other / "BraTS20_Training_005_seg.nii", mask((1,), (14, 12, 7)))
    add_case(data, "BraTS20_Training_006", labels=mask((1, 7)))
    holes = add_case(data, "BraTS20_Training_007", labels=mask())
    values = image(3).astype(np.float32)
    values[5, 5, :2], values[6, 5, 1] = np.nan, np.inf
    write(holes / "BraTS20_Training_007_flair.nii", values)
    half = add_case(data, "BraTS20_Training_008") / "BraTS20_Training_008_seg.nii"
    write(half, np.full(SHAPE, 0.5, np.float32))
    packed = add_case(data, "BraTS20_Training_009", labels=mask(), suffix=".nii.gz")
    bits = bytearray((packed / "BraTS20_Training_009_t1.nii.gz").read_bytes())
    bits[-60] ^= 1
    (packed / "BraTS20_Training_009_t1.nii.gz").write_bytes(bits)
    empty = add_case(data, "BraTS20_Training_010", labels=mask())
    for role in OLD:
        write(empty / f"BraTS20_Training_010_{role}.nii", image(0) * 0)
    (data / "BraTS20_Training_011_t1.nii").symlink_to("nowhere.nii")
    return {
        "003": "no t1ce, only t1, t2, flair, mask",
        "004": "a truncated file",
        "005": "14 x 12 x 7 voxels; expected 14 x 12 x 6",
        "006": "its mask holds 7",
        "007": "2 NaN and 1 infinite voxels in flair",
        "008": "values that are no label (0.5)",
        "009": "gzip data",
        "010": "no voxel that is not zero",
        "011": "a link to nowhere.nii",
    }


def test_all_faults_are_told_together_and_nothing_is_written(brats: Commands) -> None:
    faults = break_many(Path("data"))
    before = sorted(Path().rglob("*"))
    said = brats("build-cache", *SMALL, code=1).err
    lines = [line for line in said.splitlines() if line.startswith("  BraTS20_Training_")]
    assert len(lines) == len(faults)
    for number, words in faults.items():
        (line,) = (text for text in lines if text.startswith(f"  BraTS20_Training_{number}: "))
        assert words in line
        assert "data/BraTS20_Training_" in line
    assert "9 faults in 9 cases" in said
    assert "--skip-bad" in said
    assert sorted(Path().rglob("*")) == before


def test_skip_bad_goes_on_without_them_and_its_split_can_be_pinned(brats: Commands) -> None:
    faults = break_many(Path("data"))
    said = brats("build-cache", *SMALL, "--skip-bad").err
    assert all(words in said for words in faults.values())
    cache = open_cache(Path("data/brats.h5"))
    assert cache.cases["id"].tolist() == [b"BraTS20_Training_001", b"BraTS20_Training_002"]
    shutil.copy("data/brats.splits.csv", "pinned.csv")
    again = ("build-cache", *SMALL, "--split-file", "pinned.csv", "--out", "b.h5")
    brats(*again, "--skip-bad")
    assert splits_of(open_cache(Path("b.h5"))) == splits_of(cache)


def test_several_faults_of_one_case_are_all_told(brats: Commands) -> None:
    folder = add_case(Path("data"), "a")
    (folder / "a_t1.nii").write_bytes(b"")
    write(folder / "a_t2.nii", np.full(SHAPE, np.nan, np.float32))
    write(folder / "a_seg.nii", np.full(SHAPE, -1, np.int16))
    said = brats("build-cache", *SMALL, code=1).err
    assert "3 faults in 1 case" in said
    for name in ("a_t1.nii", "a_t2.nii", "a_seg.nii"):
        assert f"data/a/{name}: " in said
    assert "no case is without fault" in brats("build-cache", *SMALL, "--skip-bad", code=1).err


def test_a_fault_of_a_4d_file_is_told_once(brats: Commands) -> None:
    add_msd(Path("data"))
    path = Path("data/imagesTr/BRATS_001.nii.gz")
    path.write_bytes(path.read_bytes()[:-50])
    assert "1 fault in 1 case" in brats("build-cache", *SMALL, code=1).err


def test_what_belongs_to_no_case_cannot_be_skipped(brats: Commands) -> None:
    add_case(Path("data"), "a", labels=mask((1,)))
    Path("data/name_mapping.csv").write_text("Grade,BraTS_2020_subject_ID\nHGG\n")
    for data in (("data",), ("data", "typo")):
        said = brats("build-cache", *data, *SMALL, "--skip-bad", code=1).err
        assert "these belong to none" in said
    assert "no such folder" in said
    assert "name_mapping.csv" in said


def test_a_contradictory_grade_is_that_cases_fault(brats: Commands) -> None:
    for number in "12":
        add_case(Path("data"), f"BraTS20_Training_00{number}", labels=mask())
    rows = "HGG,BraTS20_Training_001\nLGG,BraTS20_Training_001\nLGG,BraTS20_Training_002\n"
    Path("data/name_mapping.csv").write_text("Grade,BraTS_2020_subject_ID\n" + rows)
    assert "line 3" in brats("build-cache", *SMALL, code=1).err
    brats("build-cache", *SMALL, "--skip-bad")
    cache = open_cache(Path("data/brats.h5"))
    assert cache.cases[["id", "grade"]].tolist() == [(b"BraTS20_Training_002", b"LGG")]


def test_a_background_that_is_not_zero_draws_a_warning(brats: Commands) -> None:
    folder = add_case(Path("data"), "a", labels=mask((1,)))
    write(folder / "a_t1.nii", image(1), scl_slope=1, scl_inter=-1024)
    assert "no voxel is zero in a" in brats("build-cache", *SMALL).err


def test_negative_and_fractional_values_are_no_fault(brats: Commands) -> None:
    folder = add_case(Path("data"), "a", labels=mask((1,)).astype(np.float64) + 5e-4)
    write(folder / "a_t1.nii", image(1) - 400)
    write(folder / "a_t2.nii", (image(1) / 7).astype(np.float64)[..., None])
    brats("build-cache", *SMALL)
    cache = open_cache(Path("data/brats.h5"))
    assert np.isfinite(cache.images).all()
    assert (cache.images[:, 0] < 0).any()


# What exists, wrong usage, death half way


def test_what_exists_is_not_replaced_unasked(brats: Commands) -> None:
    add_case(Path("data"), "a", labels=mask((1,)))
    add_case(Path("data"), "b", labels=mask((1,)))
    out = Path("data/brats.h5")
    brats("build-cache", *SMALL)
    content, stamp = out.read_bytes(), out.stat().st_mtime_ns
    assert "is identical" in brats("build-cache", *SMALL).out
    said = brats("build-cache", "--size", 32, "--seed", 4, code=1).err
    assert "size: 16 there, 32 now" in said
    add_case(Path("data"), "c", labels=mask((1,)))
    assert "c: among the scans now" in brats("build-cache", *SMALL, code=1).err
    assert (out.read_bytes(), out.stat().st_mtime_ns) == (content, stamp)
    brats("build-cache", *SMALL, "--overwrite")
    assert len(open_cache(out).cases) == 3


def test_a_pipe_is_not_replaced_and_told_before_the_scans_are_read(brats: Commands) -> None:
    add_case(Path("data"), "a", labels=mask((1,)))
    os.mkfifo("pipe.h5")
    said = brats("build-cache", *SMALL, "--out", "pipe.h5", "--overwrite", code=1).err
    assert said.startswith("Error: pipe.h5: cannot be written (a pipe, not a regular file).")
    assert sorted(os.listdir()) == ["data", "pipe.h5"]


def test_a_file_that_is_no_cache_is_refused_at_once(brats: Commands) -> None:
    add_case(Path("data"), "a", labels=mask((1,)))
    Path("notes.txt").write_text("precious")
    said = brats("build-cache", *SMALL, "--out", "notes.txt", code=1).err
    assert "no cache this program can read" in said
    assert Path("notes.txt").read_text() == "precious"
    assert "Checking" not in said


def test_data_that_is_not_there_or_holds_nothing(brats: Commands) -> None:
    way_out = "name the folder where they are"
    said = brats("build-cache", code=1).err
    assert "data: no such folder" in said
    assert way_out in said
    Path("data").mkdir()
    said = brats("build-cache", code=1).err
    assert "no files" in said
    assert way_out in said
    Path("data/README.md").touch()  # as in a fresh checkout
    said = brats("build-cache", code=1).err
    assert "no cases" in said
    assert way_out in said
    Path("data/scans.zip").touch()
    assert "Unpack archives" in brats("build-cache", code=1).err
    assert "unpack archives" in brats("build-cache", "data/scans.zip", code=1).err
    assert sorted(os.listdir("data")) == ["README.md", "scans.zip"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--modalities", "foo"), "t1, t1ce, t2, flair"),
        (("--modalities", "t1,t1"), "different"),
        (("--modalities", ""), "--modalities"),
        (("--slices", "some"), "A:B"),
        (("--slices", "9:3"), "A < B"),
        (("--size", "4"), "16"),
        (("--size", "big"), "--size"),
        (("--fit", "crop"), "pad"),
        (("--normalize", "minmax"), "percentile"),
        (("--label-scheme", "brats2022"), "brats2023"),
        (("--val-fraction", "1"), "--val-fraction"),
        (("--val-fraction", "nan"), "--val-fraction"),
        (("--folds", "1"), "--folds 1"),
        (("--folds", "-3"), "--folds -3"),
        (("--workers", "0"), "--workers"),
        (("--split-file", "absent.csv"), "absent.csv"),
        (("--split-file", "here.csv", "--val-fraction", "0.15"), "leave --val-fraction out"),
        (("--out", "folder"), "folder"),
        (("--frobnicate",), "--frobnicate"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    brats: Commands,
    options: tuple[str, ...],
    said: str,
) -> None:
    Path("folder").mkdir()
    Path("here.csv").write_text("case,split\n")
    assert said in brats("build-cache", *options, code=2).err


def test_a_dry_run_says_it_all_and_writes_nothing(brats: Commands) -> None:
    add_case(Path("data"), "a", labels=mask((1,)))
    before = sorted(Path().rglob("*"))
    done = brats("build-cache", *SMALL, "--dry-run", "--out", "deep/er/b.h5")
    assert "1 case" in done.out
    assert "binary (1 case)" in done.out
    assert sorted(Path().rglob("*")) == before


def test_a_disk_that_is_too_small_is_told_before_writing(
    brats: Commands,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_case(Path("data"), "a", labels=mask((1,)))
    usage = shutil._ntuple_diskusage(1, 1, 1000)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "1000 bytes free" in brats("build-cache", *SMALL, code=1).err
    assert os.listdir("data") == ["a"]


def test_names_from_a_hostile_disk(brats: Commands) -> None:
    data = Path("my data/x\u202e/new\nline")
    add_case(data, "-dash", labels=mask((1,)))
    (data / "loop").symlink_to(".")
    (data / "x.nii").mkdir()
    done = brats("build-cache", "my data", *SMALL, "--out", "my data/out.h5")
    assert "\u202e" not in done.out + done.err
    assert "\t" not in done.out
    assert "--cache 'my data/out.h5'" in done.out
    shown = json.loads(brats("info", "--json", "my data/out.h5").out)
    assert [case["id"] for case in shown["cases"]] == ["-dash"]


def test_an_id_that_is_no_file_name_is_refused(brats: Commands) -> None:
    """Masks and pages are called after it."""
    add_case(Path("data"), "a\tb", labels=mask((1,)))
    assert "U+0009" in brats("build-cache", *SMALL, code=1).err


def test_a_name_that_is_no_text_is_refused(brats: Commands) -> None:
    add_case(Path("data"), os.fsdecode(b"caf\xe9"), labels=mask((1,)))
    said = brats("build-cache", *SMALL, code=1).err
    assert "a name that is not UTF-8" in said
    assert r"caf\udce9" in said


def test_tables_too_large_to_be_read_again_are_refused_before_rows_are_written(
    brats: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_case(Path("data"), "p0", labels=mask())
    monkeypatch.setattr("brats_cache.build.writer.MAX_METADATA_BYTES", (1 << 20) + 100)
    said = brats("build-cache", *SMALL, code=1).err
    assert "tables of 1 cases and 4 rows" in said
    assert "--shards N" in said
    assert not list(Path("data").glob("brats*"))


@pytest.mark.kills
def test_a_build_killed_half_way_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    for n in range(12):
        shape = (200, 200, 40)
        add_case(tmp_path / "data", f"p{n}", roles=("t1",), labels=mask((1,), shape), shape=shape)
    out = tmp_path / "data" / "brats.h5"
    words = [sys.executable, LAUNCHER, "build-cache", "--modalities", "t1", "--workers", "1"]
    process = subprocess.Popen(
        words, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while not list(out.parent.glob("*brats.h5*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(out.parent.glob("*brats.h5*"))
    assert not out.exists()
    assert not out.with_name("brats.splits.csv").exists()
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert open_cache(out).masks.any()


def test_gzip_members_and_plain_bytes_under_the_other_name(brats: Commands) -> None:
    folder = add_case(Path("data"), "a", labels=mask((1,)))
    brats("build-cache", *SMALL, "--out", "plain.h5")
    for role in ("t1", "seg"):
        raw = (folder / f"a_{role}.nii").read_bytes()
        (folder / f"a_{role}.nii").write_bytes(gzip.compress(raw[:500]) + gzip.compress(raw[500:]))
    (folder / "a_t2.nii").rename(folder / "a_t2.nii.gz")
    brats("build-cache", *SMALL, "--out", "odd.h5")
    plain, odd = open_cache(Path("plain.h5")), open_cache(Path("odd.h5"))
    assert np.array_equal(plain.images, odd.images)
    assert np.array_equal(plain.masks, odd.masks)


def test_a_flip_of_the_axis_in_one_header_is_a_fault_not_a_flip(brats: Commands) -> None:
    folder = add_case(Path("data"), "a", labels=mask((1,)))
    edit(folder / "a_seg.nii", srow_x=[1, 0, 0, 0])
    assert "a_seg.nii" in brats("build-cache", *SMALL, code=1).err


def test_what_a_build_reads_is_not_overwritten(brats: Commands) -> None:
    """A scan, a manifest or a table of splits named by mistake as --out."""
    add_case(Path("data"), "p0", labels=mask((1,)))
    scan = Path("data/p0/p0_t1.nii")
    Path("s.csv").write_text("case,split\np0,train\n")
    for out, words in ((scan, ()), (Path("s.csv"), ("--split-file", "s.csv"))):
        before = out.read_bytes()
        said = brats("build-cache", *SMALL, "--out", out, "--overwrite", *words, code=1).err
        assert f"{out}: a file that this build reads" in said
        assert out.read_bytes() == before
