"""Two processes and one: the same run, the same scores; and what happens when one of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from brats_train.models import checkpoint
from brats_train.training.run_dir import RunDir
from tests.commands import LAUNCHER, PATIENCE, SMALL_ENCODER, children_of, run_brats
from tests.train import frozen
from tests.train.frozen import frozen_batchnorm
from tests.train.runs import call

FROZEN = Path(frozen.__file__)
SMALL = (
    *("--encoder-weights", "none", "--set", f"model.encoder={SMALL_ENCODER}"),
    *("--set", "rows=tumor"),
    *("--epochs", "2", "--batch-size", "25", "--lr", "1e-3", "--amp", "off", "--deterministic"),
    *("--device", "cpu"),  # one GPU would not do for two ranks
)
# The phantoms have 55 training slices with tumour, so that the last batch holds a single one.
ALL_ELSE = (
    *("--batch-size", "27", "--epochs", "1", "--set", "context=1"),
    *("--set", "augment.window=0.5", "--set", "half_resolution=0.5"),
    *("--set", "loss.overlap=batch"),
)


def torchrun(script: Path, *words: object, nproc: int, options: tuple[str, ...] = ()) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*start, f"--nproc-per-node={nproc}", *options, str(script), *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


@pytest.mark.parametrize("settings", [(), ALL_ELSE])
def test_one_rank_and_two_follow_the_same_way(
    cache_path: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """With batch norm at rest nothing but rounding tells the world sizes apart; the last batch of
    an epoch is odd, so that the ranks hold unequal parts of it, or holds a single sample."""
    runs = [tmp_path / "1", tmp_path / "2"]
    commands = [
        ("train", "--cache", cache_path, "--run-dir", path, *SMALL, *settings) for path in runs
    ]
    with frozen_batchnorm():
        call(*commands[0])
    done = subprocess.run(
        torchrun(FROZEN, *commands[1], nproc=2),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = RunDir(runs[1]).read_metrics()[-1]["epoch"]
    assert done.stdout.count(f"epoch   {last:g}/{last:g}") == 1  # one rank speaks
    one, two = (RunDir(path).read_metrics() for path in runs)
    for ours, theirs in zip(one, two, strict=True):
        for name in ("train_loss", "train_iou_loss", "val_loss", "val_iou_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
    # AdamW divides a gradient by its own size, so where that is nothing but rounding a single
    # weight may go either way; all together they may not.
    ours, theirs = (flat_weights(path / "last.pt") for path in runs)
    assert torch.linalg.norm(ours - theirs) < 2e-3 * torch.linalg.norm(ours)


@pytest.mark.slow
def test_two_ranks_train_all_folds_into_one_run(cache_path: Path, tmp_path: Path) -> None:
    words = ("train", "--cache", cache_path, "--run-dir", tmp_path / "cv", *SMALL)
    words = (*words, "--fold", "all", "--epochs", "1", "--set", "choose=true")
    command = torchrun(LAUNCHER, *words, nproc=2)
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Choosing the post-processing") == 1
    assert len(list((tmp_path / "cv").glob("fold?/best.pt"))) == 3


@pytest.mark.kills
def test_a_killed_rank_brings_the_run_back(cache_path: Path, tmp_path: Path) -> None:
    """Under --max-restarts the run goes on by itself, in the same folder."""
    words = ("train", "--cache", cache_path, *SMALL, "--epochs", "6", "--save-minutes", "0")
    command = torchrun(LAUNCHER, *words, nproc=2, options=("--max-restarts=1",))
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        latest = tmp_path / "runs" / "latest" / "last.pt"
        wait_for(latest.exists, process)
        victim = children_of(process.pid)[-1]
        os.kill(victim, signal.SIGKILL)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output
    assert "Going on at epoch" in output
    assert len(list((tmp_path / "runs").iterdir())) == 2  # the run and `latest`
    rows = RunDir(tmp_path / "runs" / "latest").read_metrics()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]


@pytest.mark.kills
def test_ctrl_c_saves_and_says_how_to_go_on(cache_path: Path, tmp_path: Path) -> None:
    words = ("train", "--cache", cache_path, "--run", "r", *SMALL, "--epochs", "500")
    process = subprocess.Popen(
        [sys.executable, str(LAUNCHER), *map(str, words)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for((tmp_path / "r" / "metrics.csv").exists, process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert "brats train --resume --run-dir r" in output
    held = checkpoint.load(tmp_path / "r" / "last.pt")["position"]
    done = run_brats(*("train", "--resume", "--run", "r", "--max-minutes", "0.01"), cwd=tmp_path)
    assert f"Going on at epoch {held['epoch'] + 1}, step {held['step']}" in done.stdout


def flat_weights(path: Path) -> torch.Tensor:
    """All parameters of a checkpoint's model in one vector, float64."""
    model = checkpoint.load_network(path)[1]
    return torch.cat([parameter.detach().double().flatten() for parameter in model.parameters()])


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(PATIENCE * 20):
        if condition():
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE} s")


def two_ranks_at_work(cache_path: Path, folder: Path, output: int) -> subprocess.Popen[str]:
    """A torchrun of a training that has finished an epoch and has hundreds left."""
    words = ("train", "--cache", cache_path, *SMALL, "--epochs", "500")
    process = subprocess.Popen(
        torchrun(LAUNCHER, *words, nproc=2),
        cwd=folder,
        env=environment(),
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for((folder / "runs" / "latest" / "metrics.csv").exists, process)
    except BaseException:
        process.kill()
        raise
    return process


@pytest.mark.kills
def test_a_warning_to_torchrun_saves_the_run(cache_path: Path, tmp_path: Path) -> None:
    """What a cluster does before its time is over: SIGTERM to the one process that it knows."""
    process = two_ranks_at_work(cache_path, tmp_path, subprocess.PIPE)
    try:
        process.terminate()
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert output.count("Interrupted and saved") == 1, output
    held = checkpoint.load(tmp_path / "runs" / "latest" / "last.pt")["position"]
    assert held["epoch"] >= 1


@pytest.mark.slow
@pytest.mark.kills
def test_processes_do_not_outlive_a_torchrun_that_is_killed(
    cache_path: Path, tmp_path: Path
) -> None:
    # No pipe: the ranks write on when torchrun no longer lives, and a full one would stop them.
    process = two_ranks_at_work(cache_path, tmp_path, subprocess.DEVNULL)
    ranks = children_of(process.pid)
    assert len(ranks) == 2
    process.kill()
    process.communicate()
    for _ in range(600):  # a minute, far sooner than their epochs would be over
        if not any(Path(f"/proc/{rank}/cmdline").exists() for rank in ranks):
            break
        time.sleep(0.1)
    else:
        for rank in ranks:
            os.kill(rank, signal.SIGKILL)
        raise AssertionError("a process outlived its torchrun")
