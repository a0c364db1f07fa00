"""The scripts that a person runs by hand start, and say what they cannot do."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brats_cache.format.reader import open_cache
from tests.commands import PATIENCE, ROOT, run_brats
from tests.train.runs import make_run

SCRIPTS = ROOT / "scripts"


def run_script(name: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / name), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


PYTHON = [
    path
    for path in sorted(SCRIPTS.iterdir())
    if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env python3")
]


def test_every_program_is_linted() -> None:
    """They have no suffix that ruff would know."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {f"scripts/{path.name}" for path in PYTHON if not path.suffix}
    assert wanted <= set(settings["tool"]["ruff"]["extend-include"])


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.name)
def test_what_a_program_imports_is_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No type checker reads them."""
    if path.name == "jobqueue_build_cache":
        pytest.importorskip("dask_jobqueue")  # of a cluster; no extra brings it
    monkeypatch.syspath_prepend(SCRIPTS)
    assert "main" in runpy.run_path(str(path), run_name="imported")


def test_the_pictures_of_the_readme_can_be_made_again(tmp_path: Path) -> None:
    """All but the run whose pictures they are, which takes minutes."""
    script = runpy.run_path(str(SCRIPTS / "readme_pictures"))
    labels = np.zeros((60, 60, 9), np.uint8)
    labels[8:28, 20:40, 3:6] = 1
    cut, added = (script["alter"](labels, is_cut=is_cut) for is_cut in (True, False))
    assert 0 < cut.sum() < labels.sum() < added.sum()
    assert (added[30:] == 2).any()
    assert not labels[30:].any(), "on the other side"
    picture = np.full((500, 1800, 3), 90, np.uint8)
    picture[:50, :200] = 255, 77, 109
    script["save"](Image.fromarray(picture), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.size == (900, 250)
        assert saved.convert("RGB").getpixel((20, 10)) == pytest.approx((255, 77, 109), abs=6)


def test_gpu_check_measures_nothing_without_a_gpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = run_script("gpu_check", "--out", tmp_path / "results")
    assert done.returncode == 1
    assert "no CUDA device: nothing was measured" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of one small case."""
    folder = tmp_path_factory.mktemp("scripts")
    scans, cache = folder / "scans", folder / "one.h5"
    run_brats("phantom", scans, "--cases", 1, "--test-cases", 0, "--shape", "32x32x8")
    run_brats("build-cache", scans, "--out", cache, "--size", 32, "--workers", 1)
    return cache


def test_a_learning_curve_finds_the_power_law_it_was_made_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    curve = runpy.run_path(str(SCRIPTS / "learning_curve"))
    numbers = np.array([3, 6, 12, 24])
    assert curve["power_law"](numbers, 0.8 * numbers**-0.4) == pytest.approx((0.8, 0.4))


def test_show_case_draws_a_case(cache: Path, tmp_path: Path) -> None:
    figure = tmp_path / "case.png"
    done = run_script("show_case", cache, "--case", "BraTS20_Training_001", "--out", figure)
    assert done.returncode == 0, done.stderr
    assert figure.read_bytes().startswith(b"\x89PNG")
    missing = run_script("show_case", cache, "--case", "nobody", "--out", figure)
    assert missing.returncode == 1
    assert "nobody" in missing.stderr


def test_a_cold_cache_is_read_with_and_without_prefetching(cache: Path) -> None:
    done = run_script("bench_cold_cache", cache, "--rounds", 1, "--steps", 1, "--json")
    assert done.returncode == 0, done.stderr
    speeds = json.loads(done.stdout)["speeds"]
    assert set(speeds) == {"disk, in order", "prefetching", "no prefetching"}
    assert min(speeds.values()) > 0


def slurm_script(name: str, folder: Path, *words: object, **variables: str) -> list[str]:
    """Runs a SLURM script with programs that only print their words; the words of the last."""
    for program in ("brats", "srun", "scontrol"):
        (folder / program).write_text('#!/bin/sh\necho "${0##*/} $@"\n')
        (folder / program).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **variables}
    command = ["bash", str(SCRIPTS / name), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("tasks", ["8", "1"])
def test_a_part_of_a_cache_is_the_same_when_submitted_alone(tmp_path: Path, tasks: str) -> None:
    variables = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": tasks}
    words = slurm_script("slurm_build_cache.sh", tmp_path, "scans", tmp_path / "out", **variables)
    assert words[words.index("--shard") + 1] == "3/8"
    assert "#SBATCH --array=1-8\n" in (SCRIPTS / "slurm_build_cache.sh").read_text()


def test_a_training_that_is_queued_again_goes_on(tmp_path: Path) -> None:
    """Of folds, too, and where nothing was saved yet: --resume begins a run where there is none."""
    variables = {"SLURM_JOB_NODELIST": "n1", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "1"}
    variables |= {"SLURM_JOB_ID": "7", "CACHE": "a.h5 b.h5", "RUN": str(tmp_path / "run")}
    words = slurm_script("slurm_train.sh", tmp_path, **variables)
    options = ["--resume", "--cache", "a.h5", "--cache", "b.h5"]
    assert words[words.index("train") :] == ["train", "--run-dir", str(tmp_path / "run"), *options]


def test_the_dockerfiles_steps_are_understood() -> None:
    done = run_script("check_dockerfile", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert 'ENTRYPOINT ["brats"]' in done.stdout


@pytest.mark.slow
def test_unfamiliar_scans_counts_warnings_and_false_alarms(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    run_brats("phantom", scans, "--cases", 6, "--test-cases", 0, "--shape", "32x32x16")
    done = run_script("unfamiliar_scans", scans, "--folds", 3, "--size", 32)
    assert done.returncode == 0, done.stderr
    assert "| untouched | 6 | 0 |" in done.stdout
    assert "| a modality doubled | 36 | 36 | 36 |" in done.stdout


@pytest.mark.slow
def test_expected_dice_compares_candidates(cache: Path, tmp_path: Path) -> None:
    """What it computes by itself for the product is what eval tells."""
    run = make_run(tmp_path / "run", open_cache(cache), tta=True)
    done = run_script("expected_dice", "--run", run, "--split", "train")
    assert done.returncode == 0, done.stderr
    run_brats("eval", "--run", run, "--split", "train", "--device", "cpu")
    summary = json.loads((run / "eval" / "train" / "summary.json").read_text())
    error = summary["regions"]["wt"]["expected_dice"]["mean_absolute_error"]["value"]
    (line,) = (line for line in done.stdout.splitlines() if "agreement x sureness" in line)
    assert float(line.split("|")[3]) == pytest.approx(error, abs=0.01)
