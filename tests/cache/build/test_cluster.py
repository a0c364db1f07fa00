"""All parts of a cache built on a cluster are those that are built by themselves, whatever dies."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster

from brats_cache.build import cluster
from brats_cache.format.reader import open_cache
from tests.cache.builds import Build, journal_of
from tests.cache.scans import SHAPE, SMALL, Commands, add_case, mask, write
from tests.commands import PATIENCE

LARGE = (128, 128, 40)  # large enough that something can happen while one is written
NUM_PARTS = 3
OPTIONS = ("--shards", NUM_PARTS, "--scheduler", "local")


def parts_of(out: Path) -> list[Path]:
    return [out.with_name(f"{out.stem}-{n}-of-{NUM_PARTS}.h5") for n in range(1, NUM_PARTS + 1)]


def wait_until_done(running: Build, part: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while journal_of(part)["done"] < count:
        assert running.process.poll() is None, running.end().said
        assert time.monotonic() < deadline
        time.sleep(0.002)


def holder_of(path: Path) -> int:
    """The process that has a file open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path:
                return int(link.parts[2])
        except OSError:
            continue
    raise AssertionError(f"nobody has {path} open")


@pytest.mark.kills
@pytest.mark.slow
def test_a_killed_worker_and_an_interrupt_change_no_byte(brats: Commands, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    for seed in range(5 * NUM_PARTS):
        add_case(scans, f"p{seed}", labels=mask((1,), LARGE), seed=seed, shape=LARGE)
    out, alone = tmp_path / "together.h5", parts_of(tmp_path / "alone.h5")
    for number, path in enumerate(alone, 1):
        brats("build-cache", scans, "--out", path, "--shard", f"{number}/{NUM_PARTS}")
    parts = parts_of(out)
    running = Build(out, scans, *OPTIONS, "--workers", NUM_PARTS)
    wait_until_done(running, parts[0], 1)
    os.killpg(running.process.pid, signal.SIGINT)  # what Ctrl-C sends
    ended = running.end()
    assert ended.code == 130, ended.said
    assert "The same command goes on" in ended.said
    assert "Traceback" not in ended.said
    assert running.leaves_nobody()
    assert not parts[0].exists()
    running = Build(out, scans, *OPTIONS, "--workers", NUM_PARTS)
    wait_until_done(running, parts[0], journal_of(parts[0])["done"] + 1)
    os.kill(holder_of(parts[0].with_name(f"{parts[0].name}.journal")), signal.SIGKILL)
    ended = running.end()
    assert ended.code == 0, ended.said
    assert f"part 1/3 ({parts[0]}): taken over from a lost worker" in ended.said
    assert "Traceback" not in ended.said
    assert "Checking" not in ended.said, "the scans are not read again for the survey"
    assert running.leaves_nobody()
    assert [path.read_bytes() for path in parts] == [path.read_bytes() for path in alone]
    tables = [path.with_suffix(".splits.csv") for path in (*parts, *alone)]
    assert [path.read_bytes() for path in tables[:3]] == [path.read_bytes() for path in tables[3:]]
    assert sorted(tmp_path.glob("together*")) == sorted([*parts, *tables[:3]])


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local cluster of threads, which starts at once."""

    def start(num_workers: int) -> LocalCluster:
        options = {"silence_logs": logging.CRITICAL, "dashboard_address": None}
        return LocalCluster(num_workers, 1, processes=False, **options)

    monkeypatch.setattr(cluster, "_local_cluster", start)


def add_people() -> None:
    for seed in range(5):
        add_case(Path("data"), f"p{seed}", labels=mask((1, 2, 4)), seed=seed)


@pytest.mark.usefixtures("threads")
def test_finished_parts_are_skipped(brats: Commands) -> None:
    add_people()
    said = brats("build-cache", *SMALL, *OPTIONS).out
    assert "data/brats-{1..3}-of-3.h5" in said
    assert "--cache %s ' data/brats-*-of-3.h5" in said
    parts = parts_of(Path("data/brats.h5"))
    times = [path.stat().st_mtime_ns for path in parts]
    assert "identical" in brats("build-cache", *SMALL, *OPTIONS).out
    said = brats("build-cache", *SMALL, *OPTIONS, "--seed", 7, "--folds", 2, code=1).err
    assert "brats-1-of-3.h5: exists and differs" in said
    before = parts[1].read_bytes()
    parts[1].unlink()
    brats("build-cache", *SMALL, *OPTIONS)
    assert parts[1].read_bytes() == before
    assert [path.stat().st_mtime_ns for path in parts[::2]] == times[::2]
    assert not list(Path("data").glob("*.journal"))
    brats("build-cache", *SMALL, "--shard", "2/3")  # the same files as by hand
    assert [open_cache(path).shard for path in parts] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.usefixtures("threads")
def test_faults_of_all_parts_are_one_message_and_nothing_is_written(brats: Commands) -> None:
    add_people()
    write(Path("data/p0/p0_t1.nii"), np.zeros(SHAPE, np.int16))
    write(Path("data/p4/p4_seg.nii"), np.full(SHAPE, 9, np.uint8))
    said = brats("build-cache", *SMALL, *OPTIONS, "--out", "new/x.h5", code=1).err
    assert "p0: data/p0/p0_t1.nii" in said
    assert "p4: data/p4/p4_seg.nii" in said
    assert not Path("new").exists()
    brats("build-cache", *SMALL, *OPTIONS, "--skip-bad", "--dry-run")
    brats("build-cache", *SMALL, *OPTIONS, "--skip-bad")
    ids = [open_cache(path).cases["id"].tolist() for path in parts_of(Path("data/brats.h5"))]
    assert ids == [[b"p1"], [b"p2"], [b"p3"]]


@pytest.mark.usefixtures("threads")
def test_workers_that_see_another_world_are_refused(
    brats: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_people()
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "__version__", "0.0.1")
        assert "has brats-unet 0.0.1" in brats("build-cache", *SMALL, *OPTIONS, code=1).err
    for place, reason in (
        (cluster.Place(folder=Path("/elsewhere"), witness=None), "this command in /elsewhere"),
        (cluster.Place(folder=None, witness=Path("/no/such.journal")), "all machines share"),
    ):
        monkeypatch.setattr("brats_cache.build.cluster_job.Place", lambda place=place, **_: place)
        assert reason in brats("build-cache", *SMALL, *OPTIONS, code=1).err
    assert not list(Path("data").glob("brats*"))


def test_what_cannot_begin_says_so(brats: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    add_people()
    words = ("build-cache", "--shards", 3)
    assert "go together" in brats(*words, code=2).err
    assert "go together" in brats("build-cache", "--scheduler", "local", code=2).err
    said = brats(*words, "--scheduler", "local", "--shard", "1/3", code=2).err
    assert "choose one" in said
    said = brats(*words, "--scheduler", "tcp://node1:8786", "--workers", 2, code=2).err
    assert "workers of its own" in said
    said = brats("build-cache", "--shards", 6, "--scheduler", "local", code=1).err
    assert "there are only 5 cases" in said
    assert "no scheduler answers" in brats(*words, "--scheduler", "tcp://nowhere", code=1).err
    assert not list(Path("data").glob("brats*"))
    for module in ("brats_cache.build.cluster", "brats_cache.build.cluster_job"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = brats(*words, "--scheduler", "local", code=1).err
    assert "distributed is not installed" in said
    assert "pip install -e '.[cluster]'" in said
