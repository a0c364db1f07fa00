"""Everything that decides a cache's content decides its fingerprint, and is settled beforehand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brats_cache.build.options import BuildOptions
from brats_cache.build.plan import Plan, make_plan
from brats_cache.build.schemes import detect_schemes
from brats_cache.build.survey import Source, Survey
from brats_cache.common.errors import BratsError, DataFaults
from brats_cache.discovery.cases import Case, Scan
from brats_cache.imaging.preprocess import Normalization, Preparation

OPTIONS = BuildOptions(preparation=Preparation(modalities=("t1",), size=16))
DEPTH = 9


def survey(case_id: str, values: tuple[int, ...] = (1, 2, 4), **case: Any) -> Survey:
    folder = case.pop("data_dir", Path("data"))
    fields = {
        "patient": case_id,
        "naming": "plain",
        "mask": Scan(path=folder / f"{case_id}_seg.nii"),
        **case,
    }
    pixels = np.zeros((len(values), DEPTH), np.int32)
    pixels[:, 3:6] = 2
    return Survey(
        case=Case(
            id=case_id,
            data_dir=folder,
            images={"t1": Scan(path=folder / f"{case_id}_t1.nii")},
            **fields,
        ),
        shape=(20, 20, DEPTH),
        affine=np.diag([-1.0, -1, 1, 1]),
        codes="LPS",
        sources=(Source(name=f"{case_id}_t1.nii", num_bytes=5, checksum=7),),
        normalizations=(Normalization(center=1, scale=2),),
        brain_pixels=np.array([0, 5, 9, 9, 9, 9, 9, 5, 0], np.int32),
        label_values=values,
        label_pixels=pixels,
    )


def plan_of(surveys: list[Survey], options: BuildOptions = OPTIONS) -> Plan:
    return make_plan(surveys, [Path("data")], options)


def test_rows_follow_one_another_without_gap() -> None:
    plan = plan_of([survey("a"), survey("b"), survey("c", mask=None)])
    assert [case.first_row for case in plan.cases] == [0, 7, 14]
    assert plan.num_rows == 21
    assert plan.image_shape == (21, 1, 16, 16)
    assert plan.num_bytes == 21 * 16 * 16 * 3
    assert plan.cases[2].split == "test"


def test_canonical_pixels_are_those_of_the_source_under_other_labels() -> None:
    (case,) = plan_of([survey("a")]).cases
    assert case.canonical_pixels.sum(axis=1).tolist() == [0, 6, 6, 6, 0]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("brain", range(1, 8)),
        ("tumor", range(3, 6)),
        ("middle", [4]),
        ("all", range(9)),
        ("7:20", range(7, 9)),
        ("0:1", [0]),
    ],
)
def test_slices(rule: str, wanted: range) -> None:
    (case,) = plan_of([survey("a")], replace(OPTIONS, slices=rule)).cases
    assert case.slices.tolist() == list(wanted)


def test_the_middle_of_a_brats_volume_is_77() -> None:
    one = replace(
        survey("a", values=()),
        brain_pixels=np.ones(155, np.int32),
        label_pixels=np.zeros((0, 155), np.int32),
    )
    (case,) = plan_of([one], replace(OPTIONS, slices="middle")).cases
    assert case.slices.tolist() == [77]


def test_a_cavity_alone_is_no_tumour() -> None:
    cases = [survey("a", (4,), naming="brats2023"), survey("b", (3,), naming="brats2023")]
    plan = plan_of(cases, replace(OPTIONS, slices="tumor"))
    assert [len(case.slices) for case in plan.cases] == [0, 3]
    assert any("no slice of a" in warning for warning in plan.warnings)


def test_a_rule_that_selects_nothing_is_refused() -> None:
    with pytest.raises(BratsError, match="50:60 selects no slice"):
        plan_of([survey("a")], replace(OPTIONS, slices="50:60"))


@pytest.mark.parametrize(
    "change",
    [
        {"case": {"grade": "HGG"}},
        {"case": {"age": 60.0}},
        {"case": {"survival": "361"}},
        {"case": {"patient": "other"}},
        {"case": {"images": {"t1": Scan(path=Path("data/a_t1.nii"), channel=2)}}},
        {"survey": {"sources": (Source(name="a_t1.nii", num_bytes=5, checksum=8),)}},
        {"options": {"slices": "all"}},
        {"options": {"seed": 1}},
        {"options": {"num_folds": 2}},
        {"options": {"preparation": Preparation(modalities=("t1",), size=16, fit="pad")}},
    ],
)
def test_the_fingerprint_tells_what_decides_the_content(change: dict[str, Any]) -> None:
    def built(changed: bool) -> str:
        first = survey("a")
        if changed:
            first = replace(first, **change.get("survey", {}))
            first = replace(first, case=replace(first.case, **change.get("case", {})))
        options = replace(OPTIONS, **change.get("options", {})) if changed else OPTIONS
        return plan_of([first, survey("b")], options).fingerprint

    assert built(False) == built(False)
    assert built(True) != built(False)


def test_the_fingerprint_does_not_depend_on_where_the_scans_lie() -> None:
    here = plan_of([survey("a")])
    there = make_plan([survey("a", data_dir=Path("/other"))], [Path("/other")], OPTIONS)
    assert here.fingerprint == there.fingerprint


# Label schemes


def test_each_naming_under_each_folder_is_a_unit_of_its_own() -> None:
    surveys = [
        survey("a", (1, 2, 4)),
        survey("b", (1, 2)),  # with a, whose 4 decides
        survey("c", (1,), data_dir=Path("other")),
        survey("d", (1, 2, 4), naming="brats2013"),
    ]
    schemes, faults = detect_schemes(surveys, "auto")
    assert faults == []
    assert {name: scheme.name for name, scheme in schemes.items()} == {
        "a": "brats2017",
        "b": "brats2017",
        "c": "binary",
        "d": "brats2013",
    }


def test_one_case_with_odd_labels_does_not_spoil_the_others() -> None:
    surveys = [survey("a", (1, 2, 4)), survey("b", (1, 7)), survey("c", (1, 2, 4))]
    schemes, faults = detect_schemes(surveys, "auto")
    assert {name: scheme.name for name, scheme in schemes.items()} == {
        "a": "brats2017",
        "c": "brats2017",
    }
    (fault,) = faults
    assert (fault.case, fault.path) == ("b", Path("data/b_seg.nii"))
    with pytest.raises(DataFaults, match="b_seg"):
        plan_of(surveys)


def test_an_undecided_unit_names_its_folder() -> None:
    schemes, faults = detect_schemes(
        [survey("a", (1, 2)), survey("b", (1,), data_dir=Path("other"))], "auto"
    )
    assert set(schemes) == {"b"}
    (fault,) = faults
    assert (fault.case, fault.path) == ("", Path("data"))


# Options


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slices": "half"}, "--slices half"),
        ({"slices": "3:3"}, "A < B"),
        ({"val_fraction": -0.1}, "--val-fraction"),
        ({"label_scheme": "x"}, "--label-scheme x"),
        ({"num_folds": 1}, "--folds 1"),
        ({"preparation": Preparation(modalities=("t1",), size=8)}, "--size 8"),
        ({"preparation": Preparation(modalities=("t1",), fit="crop")}, "--fit crop"),
        ({"preparation": Preparation(modalities=("t1",), normalize="x")}, "--normalize x"),
    ],
)
def test_options_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BratsError, match=said):
        replace(OPTIONS, **change)
