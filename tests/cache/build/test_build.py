"""A build can be stopped at any moment, in any way: the same command goes on, and the file is the
one that would have come of it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
import xxhash

from brats_cache.build import execute as build
from brats_cache.build import journal as journal_module
from brats_cache.build import output_checks
from brats_cache.build import write_case as rows
from brats_cache.build.journal import Journal, file_states
from brats_cache.build.journal_lines import parse_lines
from brats_cache.build.survey import LoadedCase
from brats_cache.discovery.cases import Case, Scan, find_cases
from brats_cache.format.reader import open_cache
from brats_cache.imaging.preprocess import Preparation
from tests.cache.builds import Build, journal_of
from tests.cache.scans import Commands, add_case, image, mask, write

SMALL = ("--size", 16, "--workers", 1)
SHAPE = (160, 160, 40)
NUM_CASES = 10


def add_cases(data: Path, count: int) -> None:
    for seed in range(count):
        add_case(data, f"p{seed}", labels=mask((1,)), seed=seed)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases large enough that something can happen while one is being read."""
    data = tmp_path_factory.mktemp("scans")
    for seed in range(NUM_CASES):
        add_case(data, f"case{seed}", labels=mask((1,), SHAPE), seed=seed, shape=SHAPE)
    return data


@pytest.mark.kills
def test_every_way_of_stopping_ends_in_the_same_file(scans: Path, tmp_path: Path) -> None:
    whole = []
    for workers in (1, 2, 4):
        out = tmp_path / f"{workers}.h5"
        assert Build(out, scans, "--workers", workers).end().code == 0
        whole.append(sha256(out))
    assert len(set(whole)) == 1
    out = tmp_path / "stopped.h5"
    for kind, count in (("build", 1), ("survey", 4), ("plan", 1), ("done", 1), ("done", 3)):
        running = Build(out, scans, "--workers", 2)
        running.wait_until(kind, count)
        running.kill(group=count % 2 == 0)
        assert running.end().code == -signal.SIGKILL
        assert running.leaves_nobody()
        assert not out.exists()
    done = journal_of(out)["done"]
    running = Build(out, scans, "--workers", 2)
    running.wait_until("done", done + 1)
    os.killpg(running.process.pid, signal.SIGINT)  # what Ctrl-C sends
    ended = running.end()
    assert ended.code == 130
    assert "The same command goes on" in ended.said
    assert "Traceback" not in ended.said
    assert running.leaves_nobody()
    done = journal_of(out)["done"]
    running = Build(out, scans, "--workers", 1)
    running.wait_until("done", done + 1)
    os.kill(running.workers()[0], signal.SIGKILL)
    ended = running.end()
    assert ended.code == 1
    assert "case" in ended.said.split("Error: ")[1].split(":")[0]
    assert "the worker process died at this case (signal 9)" in ended.said
    assert "goes on with it" in ended.said
    assert f"Resuming: {done} of {NUM_CASES} cases are done." in ended.said
    assert Build(out, scans, "--workers", 2).end().code == 0
    assert sha256(out) == whole[0]
    assert sorted(path.name for path in tmp_path.glob("stopped*")) == [
        "stopped.h5",
        "stopped.splits.csv",
    ]


@pytest.fixture
def stopped(brats: Commands, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six cases in data/, of which a build that failed at its fourth has done three."""
    add_cases(Path("data"), 6)
    real = rows.write_case
    with monkeypatch.context() as patch:

        def fail_at_the_fourth(task: rows.WriteTask) -> int:
            if task.case.id == "p3":
                raise rows.BratsError("p3: the disk fell off.")
            return real(task)

        patch.setattr("brats_cache.build.execute.write_case", fail_at_the_fourth)
        said = brats("build-cache", *SMALL, code=1).err
    assert "the same command goes on" in said
    out = Path("data/brats.h5")
    assert journal_of(out)["done"] == 3
    assert not out.exists()
    return out


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The cases that are surveyed and written from now on."""
    seen: dict[str, list[str]] = {"surveyed": [], "written": []}
    survey, real = build.load_case, build.write_case

    def surveying(case: Case, preparation: Preparation) -> LoadedCase:
        seen["surveyed"].append(case.id)
        return survey(case, preparation)

    def writing(task: rows.WriteTask) -> int:
        seen["written"].append(task.case.id)
        return real(task)

    monkeypatch.setattr(build, "load_case", surveying)
    monkeypatch.setattr(build, "write_case", writing)
    return seen


def test_what_is_done_is_not_repeated(
    brats: Commands, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(monkeypatch)
    os.utime("data/p4/p4_t1.nii", (1, 1))  # touched, not changed
    said = brats("build-cache", *SMALL).err
    assert "Resuming: 3 of 6 cases are done." in said
    assert seen == {"surveyed": ["p4"], "written": ["p3", "p4", "p5"]}
    brats("build-cache", *SMALL, "--out", "straight.h5")
    assert sha256(stopped) == sha256(Path("straight.h5"))


def test_a_torn_last_line_is_ignored(
    brats: Commands, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = stopped.with_name("brats.h5.journal")
    content = journal.read_bytes()
    for torn in (content[:-5], content + b'{"done": 3, "chec', content + bytes(300)):
        journal.write_bytes(torn)
        assert parse_lines(torn).num_bytes <= len(content)
    seen = counted(monkeypatch)
    brats("build-cache", *SMALL)
    assert seen["written"] == ["p3", "p4", "p5"]


def test_marks_that_a_crash_of_the_machine_outlived_are_not_believed(
    brats: Commands, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it, rows that the disk never got are zeros."""
    partial = stopped.with_name("brats.h5.partial")
    monkeypatch.setattr(journal_module, "_boot_id", lambda: "the system started anew")
    with h5py.File(partial) as file:
        offset = file["images"].id.get_offset()
        num_rows = len(file["images"]) // 6
    with partial.open("r+b") as raw:
        raw.seek(offset + num_rows * 4 * 16 * 16 * 2)  # the rows of p1
        raw.write(bytes(4096))
    seen = counted(monkeypatch)
    assert "Resuming: 2 of 6" in brats("build-cache", *SMALL).err
    assert seen == {"surveyed": [], "written": ["p1", "p3", "p4", "p5"]}
    brats("verify", stopped)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--size", 32), "size: 16 then, 32 now"),
        (("--normalize", "none"), "normalize: zscore then, none now"),
        (("--slices", "all"), "slices: brain then, all now"),
        (("--seed", 3), "seed: 0 then, 3 now"),
        (("--folds", 2), "num_folds: 0 then, 2 now"),
    ],
)
def test_other_options_are_refused_and_named(
    brats: Commands, stopped: Path, options: tuple[object, ...], said: str
) -> None:
    before = sha256(stopped.with_name("brats.h5.partial"))
    refusal = brats("build-cache", *SMALL, *options, code=1).err
    assert said in refusal
    assert "--overwrite" in refusal
    assert sha256(stopped.with_name("brats.h5.partial")) == before
    brats("build-cache", *SMALL)  # and the first ones still go on


def test_other_scans_are_refused_and_named(brats: Commands, stopped: Path) -> None:
    kept = Path("data/p0/p0_t2.nii").read_bytes()
    write(Path("data/p0/p0_t2.nii"), image(77))
    said = brats("build-cache", *SMALL, code=1).err
    assert "p0: p0/p0_t2.nii has changed" in said
    Path("data/p0/p0_t2.nii").write_bytes(kept)
    shutil.move("data/p5", "p5")
    assert "p5: among the scans then, not now" in brats("build-cache", *SMALL, code=1).err
    shutil.move("p5", "data/p5")
    add_case(Path("data"), "p9", labels=mask((1,)))
    assert "p9: among the scans now, not then" in brats("build-cache", *SMALL, code=1).err
    done = brats("build-cache", *SMALL, "--overwrite")
    assert "Resuming" not in done.err
    assert len(open_cache(stopped).cases) == 7


def test_scans_that_were_moved_are_told_from_those_that_changed(
    brats: Commands, stopped: Path
) -> None:
    """Their names are in the cache, whose tables have been laid out for the old ones."""
    shutil.move("data/p5", "data/deeper/p5")
    said = brats("build-cache", *SMALL, code=1).err
    assert "p5: deeper/p5/p5_t1.nii now, p5/p5_t1.nii then" in said
    brats("build-cache", *SMALL, "--overwrite")
    brats("verify", "--sources", stopped)


def test_a_survey_is_of_a_channel_and_of_a_folder(brats: Commands, stopped: Path) -> None:
    """The same files in other roles, or below another DATA, are surveyed again."""
    preparation = Preparation(modalities=("t1", "t1ce", "t2", "flair"))
    (case,) = find_cases([Path("data/p0")]).cases
    journal = Journal(stopped.with_name("other.h5"), preparation, start_anew=False)
    loaded = build.load_case(case, preparation)
    journal.add_survey(loaded.survey, file_states(case))
    journal.close()
    journal = Journal(stopped.with_name("other.h5"), preparation, start_anew=False)
    assert journal.find_survey(case) is not None
    assert journal.find_survey(replace(case, data_dir=Path("data"))) is None
    images = {**case.images, "t1": Scan(path=case.images["t1"].path, channel=0)}
    assert journal.find_survey(replace(case, images=images)) is None
    swapped = {**case.images, "t1": case.images["t2"], "t2": case.images["t1"]}
    assert journal.find_survey(replace(case, images=swapped)) is None
    journal.close()


def test_a_dry_run_needs_no_room_for_what_is_there(
    brats: Commands, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_checks, "DISK_MARGIN", 1 << 60)
    assert "Nothing was written" in brats("build-cache", *SMALL, "--dry-run").out
    said = brats("build-cache", *SMALL, "--dry-run", "--out", "other.h5", code=1).err
    assert "the disk has" in said


def test_a_new_folder_that_another_uses_hides_no_error(
    brats: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_cases(Path("data"), 2)

    def beside(case: Case, preparation: Preparation) -> LoadedCase:
        Path("new/other.h5.journal").touch()
        raise rows.BratsError("p0: the disk fell off.")

    monkeypatch.setattr(build, "load_case", beside)
    said = brats("build-cache", *SMALL, "--out", "new/brats.h5", code=1).err
    assert "the disk fell off" in said
    assert [path.name for path in Path("new").iterdir()] == ["other.h5.journal"]


def test_overwriting_can_be_resumed_too(
    brats: Commands, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(monkeypatch)
    brats("build-cache", *SMALL, "--overwrite")
    assert seen["written"] == ["p3", "p4", "p5"]


def test_a_scan_that_changes_during_the_build_is_noticed(
    brats: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_cases(Path("data"), 2)
    real = rows.write_case

    def change_first(task: rows.WriteTask) -> int:
        if task.case.id == "p1":
            write(Path("data/p1/p1_flair.nii"), image(99))
        return real(task)

    monkeypatch.setattr("brats_cache.build.execute.write_case", change_first)
    said = brats("build-cache", *SMALL, code=1).err
    assert "p1: data/p1/p1_flair.nii: a scan that has changed since it was checked" in said
    assert not Path("data/brats.h5").exists()


def test_one_build_at_a_time(brats: Commands) -> None:
    add_cases(Path("data"), 1)
    with open("data/brats.h5.journal", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another build" in brats("build-cache", *SMALL, code=1).err
    brats("build-cache", *SMALL)


@pytest.mark.parametrize("name", ["LOCAL_RANK", "TORCHELASTIC_RUN_ID"])
def test_under_torchrun_it_is_refused(
    brats: Commands, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    add_cases(Path("data"), 1)
    monkeypatch.setenv(name, "0")
    assert "--shard I/N" in brats("build-cache", *SMALL, code=1).err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> None:
    with (disk / "other").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_a_full_disk_is_met_before_and_during_a_build(
    brats: Commands, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_cases(Path("data"), 6)
    out = small_disk / "brats.h5"
    words = ("build-cache", *SMALL, "--out", out)
    assert "the disk has" in brats("build-cache", "--size", 128, "--out", out, code=1).err
    monkeypatch.setattr(output_checks, "DISK_MARGIN", -(1 << 40))  # as if it filled up later
    assert "cannot reserve" in brats("build-cache", "--size", 128, "--out", out, code=1).err
    assert list(small_disk.iterdir()) == []
    real = build.load_case

    def fill_first(case: Case, preparation: Preparation) -> LoadedCase:
        if case.id == "p1":
            fill(small_disk)
        return real(case, preparation)

    with monkeypatch.context() as patch:
        patch.setattr(build, "load_case", fill_first)
        said = brats(*words, code=1).err
    assert "brats.h5.journal: cannot be written" in said
    assert [path.name for path in small_disk.iterdir()] == ["other"]
    (small_disk / "other").unlink()
    brats(*words)
    brats("verify", out)


def test_a_build_killed_at_its_very_end_leaves_nothing_to_do(
    brats: Commands, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = stopped.with_name("brats.h5.journal")
    monkeypatch.setattr(journal_module.Journal, "remove", journal_module.Journal.close)
    brats("build-cache", *SMALL)
    assert journal.exists()
    assert stopped.with_name("brats.splits.csv").exists()
    assert "is identical" in brats("build-cache", *SMALL).out
    assert not journal.exists()


def test_the_journal_is_lines_of_json_and_checksum(stopped: Path) -> None:
    lines = stopped.with_name("brats.h5.journal").read_bytes().splitlines()
    parts = [line.split(b"\t") for line in lines]
    assert all(xxhash.xxh3_64_hexdigest(text).encode() == checksum for text, checksum in parts)
    kinds = [next(iter(json.loads(text))) for text, _ in parts]
    assert kinds == ["build", *["survey"] * 6, "plan", *["done"] * 3]
