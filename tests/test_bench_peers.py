"""scripts/bench_peers: its environment is pinned, its table and figures say what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands import ROOT

sys.path.append(str(ROOT / "scripts"))

from peers import environment, results
from peers.arguments import PEERS
from peers.builders import link_nnunet_raw
from peers.evaluation import alter
from peers.folds import FoldsJob, predict_folds, publish
from peers.job import PeerCase

from brats_cache.api import build_cache
from brats_cache.synthetic.write_phantom import write_phantom

MACHINE = {"cpu": "a CPU", "cores": 2, "memory_gb": 24, "kernel": "6.1"}
RESULT: dict[str, Any] = {
    "title": "Scans to training data",
    "date": "2026-11-28",
    "machine": MACHINE | {"brats": "0.1.0", "python": "3.11", "torch": "2.15"},
    "versions": {"monai": "1.6.1"},
    "load_average_before": 0.5,
    "settings": {"cases": "4 of scans"},
    "unit": "case",
    "shown": "seconds",
    "ways": {
        "brats": {
            "peer": "brats",
            "note": "Ours.",
            "compared": "brats",
            "rounds": [4.0, 2.0, 2.0],
            "MB a case": 90.0,
        },
        "MONAI": {
            "peer": "monai",
            "note": "Theirs.",
            "compared": "brats",
            "rounds": [1.0, 0.5, 0.25],
            "MB a case": 91.0,
        },
    },
    "columns": ["MB a case"],
    "remarks": ["Whole commands."],
}


def test_every_requirement_is_pinned_once() -> None:
    requirements = environment.REQUIREMENTS.read_text()
    lines = [line for line in requirements.splitlines() if line and not line.startswith("#")]
    pinned = environment.pinned_names(requirements)
    assert len(lines) == len(pinned)
    assert {"monai", "nnunetv2", "torchio", "surface-distance"} <= pinned
    constraints = (ROOT / "constraints.txt").read_text()
    merged = environment.pinned_names(environment.merge_constraints(constraints, requirements))
    assert not merged & pinned
    assert merged | pinned == environment.pinned_names(constraints) | pinned


def test_the_table_gives_medians_and_ratios_within_rounds() -> None:
    text = results.as_markdown({"cache": RESULT})
    assert "| **brats** | 0.5 | 1 |  | 90 |" in text
    assert "| MONAI | 2 | 4 | 4 to 8 | 91 |" in text
    for shown in ("2026-11-28", "a CPU, 2 cores", "medians of 3 rounds", "monai 1.6.1", "Theirs."):
        assert shown in text


def test_results_are_kept_beside_later_ones(tmp_path: Path) -> None:
    results.write_results(tmp_path, {"cache": RESULT})
    results.write_results(tmp_path, {**results.read_results(tmp_path), "epoch": RESULT})
    assert set(results.read_results(tmp_path)) == {"cache", "epoch"}
    for name in ("cache.svg", "epoch.svg"):
        drawn = (tmp_path / name).read_text()
        assert "MONAI" in drawn
        assert "seconds a case, less is better" in drawn


def test_an_altered_mask_is_near_the_truth_and_not_equal() -> None:
    truth = np.zeros((24, 48, 48), np.uint8)
    truth[6:18, 12:36, 12:36] = 2
    altered = alter(truth, np.random.default_rng(0))
    assert altered.shape == truth.shape
    overlap = 2 * np.count_nonzero((altered > 0) & (truth > 0))
    dice = overlap / (np.count_nonzero(altered) + np.count_nonzero(truth))
    assert 0.6 < dice < 0.99
    assert np.array_equal(altered, alter(truth, np.random.default_rng(0)))


def test_nnunet_is_handed_the_scans_by_links(tmp_path: Path) -> None:
    scans = {name: tmp_path / f"a_{name}.nii.gz" for name in ("t1", "flair", "seg")}
    for path in scans.values():
        path.write_bytes(b"scan")
    images = {name: str(scans[name]) for name in ("t1", "flair")}
    case = PeerCase(id="a", images=images, mask=str(scans["seg"]))
    link_nnunet_raw([case], tmp_path / "raw")
    dataset = tmp_path / "raw" / "Dataset001_Peers"
    assert (dataset / "imagesTr" / "a_0001.nii.gz").resolve() == scans["flair"]
    assert (dataset / "labelsTr" / "a.nii.gz").resolve() == scans["seg"]
    assert json.loads((dataset / "dataset.json").read_text())["channel_names"] == {
        "0": "t1",
        "1": "flair",
    }
    mixed = PeerCase(id="b", images=images, mask=str(tmp_path / "b.nii"))
    with pytest.raises(ValueError, match="partly"):
        link_nnunet_raw([mixed], tmp_path / "mixed")


def test_a_peer_is_trained_on_the_folds_that_lack_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each on the cases of the others, in the values of their own segmentations."""
    scans, cache, names = tmp_path / "scans", tmp_path / "cache.h5", ("flair", "t1ce")
    write_phantom(scans, num_cases=4, shape=(32, 32, 8))
    build_cache([scans], cache, modalities=names, size=32, folds=2, val_fraction=0)
    calls: list[int] = []

    def train(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        job, fold = FoldsJob.read(Path(command[-2])), int(command[-1])
        calls.append(fold)
        assert job.regions == {"wt": [1, 2, 4], "tc": [1, 4], "et": [4]}
        assert job.written == {"wt": 2, "tc": 1, "et": 4}
        assert {case.id for case in job.seen(fold)} == set(job.folds[1 - fold])
        for case in job.unseen(fold):
            publish(Path(case.mask), job, case)
        return subprocess.CompletedProcess(command, 0)

    def predict() -> Path:
        return predict_folds(
            "monai", Path("python"), cache, [scans], names, minutes=1, out=tmp_path / "out"
        )

    monkeypatch.setattr("peers.folds.subprocess.run", train)
    masks = predict()
    assert sorted(calls) == [0, 1]
    assert len(list(masks.iterdir())) == 4
    next(masks.iterdir()).unlink()
    predict()
    assert len(calls) == 3


@pytest.mark.slow
def test_a_peer_is_trained_and_scored(tmp_path: Path) -> None:
    """MONAI, by the script that compares recipes."""
    scans = tmp_path / "scans"
    write_phantom(scans, num_cases=4, shape=(64, 64, 16))
    words = [
        *(scans, "--folds", 2, "--minutes", 0.1, "--size", 64, "--recipe", "strong choose=false"),
        *("--set", "half_resolution=0", "--set", "model.encoder=resnet18", "--device", "cpu"),
        *("--peer", "monai", "--python", sys.executable, "--out", tmp_path / "out"),
    ]
    command = list(map(str, [sys.executable, ROOT / "scripts" / "accuracy", *words]))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| MONAI 2-D U-Net | 0." in done.stdout


@pytest.mark.slow
def test_all_benchmarks_run_with_the_peers_that_are_here(tmp_path: Path) -> None:
    out = tmp_path / "out"
    here = [peer for peer in PEERS if peer in ("monai", "plain")]
    words = [
        *("--python", sys.executable, "--out", out, "--peers", ",".join(here), "--rounds", 1),
        *("--cases", 2, "--shape", "64x64x16", "--size", 64, "--batch-size", 4),
        *("--epoch-slices", 4, "--epoch-batch-size", 2),
    ]
    command = list(map(str, [sys.executable, ROOT / "scripts" / "bench_peers", *words]))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = results.read_results(out)
    assert set(measured) == {"cache", "evaluation", "feeding", "epoch"}
    for result in measured.values():
        assert {"brats", "monai"} <= {way["peer"] for way in result["ways"].values()}
        assert all(min(way["rounds"]) > 0 for way in result["ways"].values())
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
