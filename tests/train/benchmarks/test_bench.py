"""The benchmarks measure what they say; the figures themselves are not asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from brats_cache.format.reader import Cache
from brats_train.benchmarks import cases as bench_cases
from brats_train.benchmarks.harness import BenchmarkReport, Throughput, Workload, measure_in_turn
from brats_train.benchmarks.loader import evenly_spread_rows
from brats_train.models.onnx_file import has_onnx
from tests.commands import SMALL_ENCODER
from tests.train.runs import call

CPU = torch.device("cpu")


def test_workloads_run_in_turn_after_a_warm_up() -> None:
    order: list[str] = []

    def workload(name: str) -> Workload:
        return Workload(name=name, run=lambda: order.append(name) or 1)  # type: ignore[func-returns-value]

    throughput = measure_in_turn([workload("a"), workload("b")], num_rounds=3, device=CPU)
    assert order == ["a", "b"] * 4
    assert {name: len(values) for name, values in throughput.by_name.items()} == {"a": 3, "b": 3}


def test_whole_commands_need_no_warm_up_and_every_round_is_told() -> None:
    rounds: list[int] = []
    measure_in_turn(
        [Workload(name="a", run=lambda: 1)],
        num_rounds=2,
        device=CPU,
        warm_up=False,
        on_round=lambda throughput: rounds.append(len(throughput.by_name["a"])),
    )
    assert rounds == [1, 2]


def test_what_is_compared_are_rounds_that_ran_side_by_side() -> None:
    """A machine that slows down by half in the middle leaves the ratio as it is."""
    speeds = Throughput(by_name={"one": (10.0, 5.0, 5.0), "two": (20.0, 10.0, 10.0)})
    assert speeds.ratio("one", "two") == 0.5
    assert (speeds.median("one"), speeds.best("one")) == (5.0, 10.0)


def test_a_report_reads_alike_for_people_and_programs() -> None:
    report = BenchmarkReport(
        name="loader",
        unit="slices",
        settings={"batch size": 8},
        throughput=Throughput(by_name={"one": (10.0, 12.0, 14.0), "two": (20.0, 24.0, 28.0)}),
        ratios=(("one", "two"),),
        figures={"wait %": 0.25},
    )
    values = json.loads(json.dumps(report.as_json(CPU)))
    assert values["speeds"] == {"one": 12.0, "two": 24.0}
    assert values["ratios"] == {"one / two": 0.5}
    text = report.as_text(CPU)
    for shown in ("batch size 8", "12 slices/s", "0.500", "0.25", torch.__version__):
        assert shown in text


@pytest.mark.parametrize("num", [3, 96, 500])
def test_rows_come_from_all_over_the_caches(cache: Cache, num: int) -> None:
    rows = evenly_spread_rows([cache], num)
    assert len(rows) == num
    splits = cache.cases["split"][cache.slices["case"][rows.row]]
    assert set(splits.tolist()) == {b"train"}
    assert rows.row[-1] > rows.row[0]


def test_the_loader_is_measured(cache_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("bench", "loader", "--cache", cache_path, "--steps", 2, "--rounds", 1, "--json")
    values = json.loads(capsys.readouterr().out)
    assert set(values["speeds"]) == {"bare copy", "feeding", "feeding + augmentation"}
    assert min(values["speeds"].values()) > 0


def test_the_step_is_measured(cache_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--batch-size", 2, "--steps", 1, "--rounds", 2, "--resident", "always")
    call(
        *("bench", "step", "--cache", cache_path, *words),
        *("--set", f"model.encoder={SMALL_ENCODER}", "--json"),
    )
    values = json.loads(capsys.readouterr().out)
    assert set(values["speeds"]) == {"pure", "synthetic", "real", "resident"}
    assert {"real / synthetic", "resident / synthetic"} <= set(values["ratios"])
    assert 0 <= values["figures"]["real: wait %"] <= 100
    assert values["figures"]["peak memory GiB"] > 0
    assert values["settings"]["network"] == f"Unet, {SMALL_ENCODER}"


@pytest.mark.slow
def test_whole_cases_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_cases, "SHAPE", (48, 48, 16))
    for what, figures in {
        "cache": {"slices a case", "source MiB a case"},
        "predict": {
            *("seconds a case", "of that in the model", "and in the rest"),
            *(("in the model, by onnxruntime",) if has_onnx() else ()),
        },
    }.items():
        words = ("--device", "cpu") if what == "predict" else ()
        call("bench", what, "--cases", 1, "--size", 64, "--rounds", 1, "--json", *words)
        values = json.loads(capsys.readouterr().out)
        assert figures <= set(values["figures"])
        assert all(value > 0 for value in values["figures"].values())
