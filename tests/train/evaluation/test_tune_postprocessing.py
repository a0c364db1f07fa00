"""The choice of post-processing: what is measured, what is chosen, and that it is used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from brats_cache.format.reader import Cache
from brats_train.evaluation.tune_postprocessing import (
    MIN_COMPONENT_SHARES,
    THRESHOLDS,
    CaseCurves,
    choose_postprocessing,
    estimate_choice_seconds,
    measure_cases,
    most_cases_within,
    record_postprocessing,
)
from brats_train.inference.ensemble import load_ensemble
from brats_train.models.postprocessing import Postprocessing, RegionRule
from brats_train.runtime.distributed import World
from tests.train.runs import call, make_run

REGIONS = ("wt", "tc", "et")
SCHEME_LABELS = {"wt": (1, 2, 4), "tc": (1, 4), "et": (4,)}
WORLD = World(rank=0, size=1, device=torch.device("cpu"))


def summary_of(run: Path, split: str = "val") -> dict:
    return json.loads((run / "eval" / split / "summary.json").read_text())


def test_the_choice_takes_as_many_cases_as_there_is_time_for(tmp_path: Path, cache: Cache) -> None:
    num_cases = int((cache.cases["split"] == b"val").sum())
    times = [estimate_choice_seconds([cache], None, 0.1, n) for n in range(1, num_cases + 1)]
    assert times == sorted(times)
    assert times[-1] == estimate_choice_seconds([cache], None, 0.1)
    assert most_cases_within(times[-1], [cache], None, 0.1) is None
    assert most_cases_within(times[-1] - 0.01, [cache], None, 0.1) == num_cases - 1
    assert most_cases_within(times[0] - 0.01, [cache], None, 0.1) == 0
    ensemble = load_ensemble([make_run(tmp_path / "r", cache) / "best.pt"], WORLD.device)
    measured = measure_cases([cache], None, ensemble, WORLD, lambda done, total: None, 1)
    assert len({case for case, _ in measured}) == 1


def test_what_was_chosen_is_used_and_can_be_overruled(tmp_path: Path, cache: Cache) -> None:
    run = make_run(tmp_path / "r", cache)
    ensemble = load_ensemble([run / "best.pt"], WORLD.device)
    told: list[tuple[float, int]] = []
    measured = measure_cases(
        [cache], None, ensemble, WORLD, lambda done, total: told.append((done, total))
    )
    num_cases = int((cache.cases["split"] == b"val").sum())
    assert told == sorted(told)
    assert {done for done, _ in told if done % 1 == 0} == set(range(num_cases + 1))
    assert any(0 < done < 1 for done, _ in told), "a single case can take minutes"
    assert {total for _, total in told} == {num_cases}
    chosen = choose_postprocessing(measured, ["wt"], Postprocessing())
    record_postprocessing(run / "best.pt", chosen)
    call("eval", "--run", run, "--device", "cpu")
    summary = summary_of(run)
    assert Postprocessing.unpack(summary["postprocessing"]) == chosen
    rule = chosen.rule("wt")
    at = THRESHOLDS.index(rule.threshold), MIN_COMPONENT_SHARES.index(rule.min_component_share)
    dice = [curves.dice[(int(chosen.tta), *at)] for curves in measured.values()]
    assert summary["regions"]["wt"]["dice"]["mean"] == pytest.approx(np.mean(dice))
    assert summary["slice_threshold"] == 0.5
    call("eval", "--run", run, "--threshold", 0.125, "--no-tta", "--device", "cpu")
    used = Postprocessing.unpack(summary_of(run)["postprocessing"])
    assert (used.rule("wt").threshold, used.tta) == (0.125, False)


def curves(dice: np.ndarray, voxels: int = 1000, *, is_absent: bool = False) -> CaseCurves:
    shape = (2, len(THRESHOLDS), len(MIN_COMPONENT_SHARES))
    return CaseCurves(
        dice=np.broadcast_to(dice, shape), voxels=np.full(shape, voxels), is_absent=is_absent
    )


def test_each_region_gets_the_rule_that_is_best_for_it() -> None:
    by_threshold = np.array(THRESHOLDS)[None, :, None]
    measured = {
        ("a", "wt"): curves(1 - by_threshold),
        ("a", "tc"): curves(by_threshold),
        # A few voxels of ET in a case that has none, and more of them in one that has.
        ("a", "et"): curves(np.zeros((2, 1, 1)), 60, is_absent=True),
        ("b", "et"): curves(np.full((2, 1, 1), 0.8), 600),
    }
    chosen = choose_postprocessing(measured, ("wt", "tc", "et"), Postprocessing())
    assert chosen.rule("wt") == RegionRule(threshold=THRESHOLDS[0])
    assert chosen.rule("tc") == RegionRule(threshold=THRESHOLDS[-1])
    assert chosen.rule("et") == RegionRule(min_voxels=100)
    assert not chosen.tta


def test_what_gains_next_to_nothing_is_not_chosen() -> None:
    flips = np.array([0.8, 0.8005])[:, None, None]
    sizes = np.linspace(0, 0.001, len(MIN_COMPONENT_SHARES))[None, None]
    for gain, is_chosen in ((0.0, False), (0.05, True)):
        measured = {("a", "wt"): curves(flips + sizes + gain * np.array([0, 1])[:, None, None])}
        chosen = choose_postprocessing(measured, ("wt",), Postprocessing())
        assert chosen == Postprocessing(tta=is_chosen, rules={"wt": RegionRule()})
