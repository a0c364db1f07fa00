"""Splits: no patient on two sides, exact sizes, stable as data grows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.build.split_tables import SplitCase
from brats_cache.build.splits import assign
from brats_cache.common.errors import BratsError, DataFaults
from brats_cache.format.cache_set import check_patients
from brats_cache.format.reader import open_cache
from brats_cache.format.schema import SPLITS
from tests.cache.scans import Commands, add_case, mask


def numbered(count: int, grades: Sequence[str] = ("",), first: int = 0) -> list[SplitCase]:
    """Patients of one case each; grade by turns."""
    return [
        SplitCase(f"case{i:04d}", f"patient{i:04d}", grades[i % len(grades)], True)
        for i in range(first, first + count)
    ]


@st.composite
def cohorts(draw: st.DrawFn) -> list[SplitCase]:
    """Patients with one to three cases, some without a mask, some with a grade."""
    cohort = []
    for i in range(draw(st.integers(0, 40))):
        grade = draw(st.sampled_from(["HGG", "LGG", ""]))
        for session in range(draw(st.integers(1, 3))):
            has_mask = draw(st.integers(0, 9)) > 0
            cohort.append(SplitCase(f"case{i}-{session}", f"patient{i}", grade, has_mask))
    return cohort


def test_the_paper_split(tmp_path: Path) -> None:
    unseen = [SplitCase(f"x{i}", f"x{i}", "", False) for i in range(125)]
    assignments, warnings = assign([*numbered(369, ("HGG", "HGG", "LGG")), *unseen])
    assert Counter(a.split for a in assignments.values()) == {"train": 314, "val": 55, "test": 125}
    assert all(assignments[one.case].split == "test" for one in unseen)
    assert warnings == []
    assert {a.fold for a in assignments.values()} == {-1}


@given(cohorts(), st.floats(0, 0.99), st.integers(0, 3), st.randoms(use_true_random=False))
def test_no_patient_is_in_two_splits_and_order_does_not_matter(
    cohort: list[SplitCase], fraction: float, seed: int, random: object
) -> None:
    assignments, _ = assign(cohort, val_fraction=fraction, seed=seed)
    split_of = defaultdict(set)
    for one in cohort:
        split_of[one.patient].add(assignments[one.case].split)
        assert one.has_mask or assignments[one.case].split == "test"
    assert all(len(splits) == 1 for splits in split_of.values())
    shuffled = list(cohort)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assign(shuffled, val_fraction=fraction, seed=seed)[0] == assignments


@given(st.integers(0, 60), st.floats(0, 0.99))
def test_the_number_that_validates_is_the_rounded_fraction(count: int, fraction: float) -> None:
    assignments, _ = assign(numbered(count, ("HGG", "LGG", "")), val_fraction=fraction)
    num_val = sum(a.split == "val" for a in assignments.values())
    if not fraction or count < 2:
        assert num_val == 0
    else:
        assert num_val == min(max(round(fraction * count), 1), count - 1)


@given(st.integers(4, 120), st.integers(0, 60), st.floats(0.05, 0.6), st.integers(0, 5))
def test_grades_validate_in_proportion(
    num_hgg: int, num_lgg: int, fraction: float, seed: int
) -> None:
    cohort = [*numbered(num_hgg, ("HGG",)), *numbered(num_lgg, ("LGG",), first=1000)]
    assignments, _ = assign(cohort, val_fraction=fraction, seed=seed)
    num_val = sum(a.split == "val" for a in assignments.values())
    for grade, size in (("HGG", num_hgg), ("LGG", num_lgg)):
        got = sum(assignments[one.case].split == "val" for one in cohort if one.grade == grade)
        assert abs(got - num_val * size / len(cohort)) <= 0.5 + 1e-9


@given(st.integers(2, 80), st.integers(0, 5))
def test_one_more_patient_moves_at_most_one_other(count: int, seed: int) -> None:
    before, _ = assign(numbered(count), seed=seed)
    after, _ = assign(numbered(count + 1), seed=seed)
    assert sum(before[case] != after[case] for case in before) <= 1


@given(st.integers(5, 80), st.integers(2, 5), st.integers(0, 5))
def test_one_more_patient_moves_at_most_one_over_each_border_of_folds(
    count: int, num_folds: int, seed: int
) -> None:
    before, _ = assign(numbered(count), num_folds=num_folds, seed=seed)
    after, _ = assign(numbered(count + 1), num_folds=num_folds, seed=seed)
    assert sum(before[case].fold != after[case].fold for case in before) < num_folds


def test_the_seed_decides() -> None:
    made = [assign(numbered(30), seed=seed, num_folds=3)[0].values() for seed in range(5)]
    assert len({tuple(a.split for a in one) for one in made}) == 5
    assert len({tuple(a.fold for a in one) for one in made}) == 5
    assert assign(numbered(30)) == assign(numbered(30), seed=0)


@given(cohorts(), st.integers(2, 6))
def test_folds_are_even_in_size_and_grade(cohort: list[SplitCase], num_folds: int) -> None:
    plain, _ = assign(cohort)
    members = {one.patient: one.grade for one in cohort if plain[one.case].split != "test"}
    if len(members) < num_folds:
        with pytest.raises(BratsError, match=r"--folds.* at least one for each fold$"):
            assign(cohort, num_folds=num_folds)
        return
    assignments, _ = assign(cohort, num_folds=num_folds)
    fold_of = {}
    for one in cohort:
        assert assignments[one.case].split == plain[one.case].split
        assert (assignments[one.case].fold == -1) == (one.patient not in members)
        assert fold_of.setdefault(one.patient, assignments[one.case].fold) == (
            assignments[one.case].fold
        )
    for grades in ({"HGG", "LGG", ""}, {"HGG"}, {"LGG"}, {""}):
        sizes = [
            sum(fold_of[p] == fold for p, grade in members.items() if grade in grades)
            for fold in range(num_folds)
        ]
        assert max(sizes) - min(sizes) <= 1


def test_what_does_not_divide_goes_round() -> None:
    """Four patients of each of three grades: a fold gets one more of one grade, and so four."""
    cohort = numbered(12, ("HGG", "LGG", ""))
    assignments, _ = assign(cohort, num_folds=3)
    sizes = Counter((assignments[one.case].fold, one.grade) for one in cohort)
    assert Counter(fold for fold, _ in sizes.elements()) == {0: 4, 1: 4, 2: 4}
    # The folds of a cohort may never change: runs are compared by them.
    two_of = {fold: grade for (fold, grade), size in sizes.items() if size == 2}
    assert two_of == {0: "", 1: "HGG", 2: "LGG"}


def test_a_case_without_a_mask_takes_its_patient_into_test() -> None:
    cohort = [*numbered(10), SplitCase("followup", "patient0003", "", False)]
    assignments, (warning,) = assign(cohort, num_folds=3)
    assert assignments["case0003"].split == assignments["followup"].split == "test"
    assert assignments["case0003"].fold == -1
    assert "case0003" in warning
    assert Counter(a.split for a in assignments.values()) == {"train": 8, "val": 1, "test": 2}


def test_a_single_patient_trains_with_a_warning() -> None:
    assignments, warnings = assign(numbered(1))
    assert assignments["case0000"].split == "train"
    assert warnings == ["one patient with a segmentation: it trains, and none validates"]
    assert Counter(a.split for a in assign(numbered(2))[0].values()) == {"train": 1, "val": 1}


def test_a_case_id_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a case id occurs twice$"):
        assign([*numbered(3), *numbered(1)])


def test_a_grade_known_from_one_case_is_the_patients() -> None:
    known = [
        SplitCase(f"{i}-{session}", f"p{i}", "LGG" if i % 4 else "HGG", True)
        for i in range(40)
        for session in (0, 1)
    ]
    for unknown in ("-0", "-1"):
        partly = [
            one._replace(grade="") if one.case.endswith(unknown) and one.grade == "LGG" else one
            for one in known
        ]
        assert assign(partly, num_folds=4)[0] == assign(known, num_folds=4)[0]


@pytest.mark.parametrize(
    "options",
    [{"val_fraction": 1.0}, {"val_fraction": -0.1}, {"num_folds": 1}, {"num_folds": -2}],
)
def test_impossible_numbers_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(BratsError, match="--"):
        assign(numbered(4), **options)  # type: ignore[arg-type]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@given(cohorts(), st.sampled_from(["case", "patient"]), st.integers(0, 9))
def test_a_split_written_down_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, cohort: list[SplitCase], column: str, seed: int
) -> None:
    if not cohort:
        return
    assignments, _ = assign(cohort, seed=seed, val_fraction=0.3)
    lines = {f"{getattr(one, column)},{assignments[one.case].split}" for one in cohort}
    path = write(tmp_path_factory.mktemp("split") / "s.csv", f"{column},split", *sorted(lines))
    again, warnings = assign(cohort, split_file=path)
    assert again == assignments
    assert warnings == []


@given(cohorts(), st.integers(0, 9))
def test_a_split_of_a_manifest_is_taken_over(cohort: list[SplitCase], seed: int) -> None:
    assignments, _ = assign(cohort, seed=seed, val_fraction=0.3)
    split_of = {case.upper(): one.split for case, one in assignments.items()}
    assert assign(cohort, given=split_of) == (assignments, [])


def test_a_split_file_comes_before_a_manifest(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", "case,split", "case0000,val", "case0001,train")
    split_of = {"case0000": "test", "case0001": "test"}
    assignments, _ = assign(numbered(2), split_file=path, given=split_of)
    assert [one.split for one in assignments.values()] == ["val", "train"]


def test_folds_spare_what_the_file_calls_test(tmp_path: Path) -> None:
    lines = [f"case{i:04d},{'test' if i < 2 else 'train'}" for i in range(8)]
    path = write(tmp_path / "s.csv", "case,split", *lines)
    assignments, _ = assign(numbered(8), split_file=path, num_folds=3)
    assert [assignments[f"case{i:04d}"].fold for i in range(2)] == [-1, -1]
    assert Counter(a.fold for a in assignments.values()) == {-1: 2, 0: 2, 1: 2, 2: 2}


def test_a_line_too_many_is_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", "case,split", "case0000,VAL", "case0001,train", "other,test")
    assignments, (warning,) = assign(numbered(2), split_file=path)
    assert [a.split for a in assignments.values()] == ["val", "train"]
    assert "other" in warning


def test_names_are_found_in_any_letter_case_and_form(tmp_path: Path) -> None:
    """As after a spreadsheet, and where the scans were unpacked on a Mac."""
    cohort = [SplitCase("Jose\u0301", "J", "", True), SplitCase("case0001", "P", "", True)]
    path = write(tmp_path / "s.csv", "case,split", "JOS\u00c9,val", "Case0001,train")
    assignments, warnings = assign(cohort, split_file=path)
    assert [assignments[one.case].split for one in cohort] == ["val", "train"]
    assert warnings == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("case,split", "a1,train", "a2,train", "b,test", "A1,val"), ["line 5", "A1"]),
        (("case,split", "a1,train", "a2,train"), ["b", "no line"]),
        (("case,split", "a1,train", "a2,val", "b,test"), ["a1", "a2", "patient A"]),
        (("case,split", "a1,train", "a2,train", "b,train"), ["b", "no segmentation"]),
        (("case,split", "a1,train", "a2,dev", "b,test"), ["line 3", "dev", *SPLITS]),
        (("case,split", "a1,train", "a2,train", "b,test", "a1,val"), ["line 5", "a1"]),
        (("case,split", ",train", "a1,train", "a2,train", "b,test"), ["line 2"]),
        (("case,fold", "a1,0"), ["columns case,split"]),
        (("case,split",), ["columns case,split"]),
    ],
)
def test_a_split_file_that_cannot_be_is_refused(
    tmp_path: Path, lines: tuple[str, ...], said: list[str]
) -> None:
    cohort = [
        SplitCase("a1", "A", "", True),
        SplitCase("a2", "A", "", True),
        SplitCase("b", "B", "", False),
    ]
    path = write(tmp_path / "split.csv", *lines)
    with pytest.raises(DataFaults) as refusal:
        assign(cohort, split_file=path)
    for text in ("split.csv", *said):
        assert text in str(refusal.value)


# Several caches


@pytest.mark.parametrize("by_fold", [False, True])
def test_caches_must_agree_on_which_side_a_patient_is(brats: Commands, by_fold: bool) -> None:
    side_a = {"p0": ("train", 0), "p1": ("val", 1), "p2": ("train", 1), "p3": ("test", -1)}
    side_b = {"p1": ("train", 1), "p2": ("train", 0), "p3": ("test", -1), "p4": ("val", 1)}
    for name, sides in (("a", side_a), ("b", side_b)):
        lines = ["patient,split,fold"]
        for patient, (split, fold) in sides.items():
            lines.append(f"{patient},{split},{fold if fold >= 0 else ''}")
            labels = None if split == "test" else mask((1,))
            add_case(Path(name), patient, labels=labels, seed=len(lines))
        Path(f"{name}.csv").write_text("\n".join(lines))
        options = ("--size", 16, "--folds", 2, "--split-file", f"{name}.csv")
        brats("build-cache", name, "--out", f"{name}.h5", *options)
    first, second = open_cache(Path("a.h5")), open_cache(Path("b.h5"))
    check_patients([first, first], by_fold=by_fold)
    with pytest.raises(BratsError, match=r"a\.h5 and b\.h5 put one patient") as refusal:
        check_patients([first, second], by_fold=by_fold)
    wanted = "p2 (fold 1 and fold 0)" if by_fold else "p1 (val and train)"
    assert f"two sides: {wanted}.\n" in str(refusal.value)
    assert "--split-file" in str(refusal.value)


def test_a_cache_without_folds_cannot_join_one_by_folds(brats: Commands) -> None:
    for n in range(2):
        add_case(Path("data"), f"p{n}", labels=mask((1,)), seed=n)
    for name, folds in (("a", 2), ("b", 0)):
        brats("build-cache", "--out", f"{name}.h5", "--size", 16, "--folds", folds)
    caches = [open_cache(Path("a.h5")), open_cache(Path("b.h5"))]
    check_patients(caches)
    with pytest.raises(BratsError, match="no fold"):
        check_patients(caches, by_fold=True)
