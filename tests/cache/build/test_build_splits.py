"""Who trains and who validates, as `brats build-cache` writes it down and takes it back."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from brats_cache.format.reader import open_cache
from tests.cache.scans import (
    SMALL,
    Commands,
    add_case,
    case_of,
    mask,
    splits_of,
)


def test_the_split_is_written_for_people_and_taken_back(brats: Commands) -> None:
    names = [f"p{n}" for n in range(6)] + ["a b, c", 'the "one"', " blank"]
    for seed, name in enumerate(names):
        add_case(Path("data"), name, labels=mask((1,)), seed=seed)
    add_case(Path("data"), "unlabelled")
    brats("build-cache", *SMALL, "--folds", 3, "--val-fraction", 0.4)
    path = Path("data/brats.splits.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    cache = open_cache(Path("data/brats.h5"))
    assert {row["patient"]: row["split"] for row in rows} == splits_of(cache)
    folds = {r["patient"].decode(): r["fold"] for r in cache.cases if r["split"] != b"test"}
    assert {row["patient"]: int(row["fold"]) for row in rows if row["fold"]} == folds
    other = ("build-cache", *SMALL, "--folds", 3, "--seed", 5, "--split-file", path)
    brats(*other, "--out", "b.h5")
    pinned = open_cache(Path("b.h5"))
    assert (
        pinned.cases[["patient", "split", "fold"]].tolist()
        == cache.cases[["patient", "split", "fold"]].tolist()
    )
    assert Path("b.splits.csv").read_bytes() == path.read_bytes()
    brats("build-cache", *SMALL, "--split-file", path, "--out", "c.h5")
    assert Path("c.splits.csv").read_text().splitlines()[0] == "patient,split"
    failed = brats(
        "build-cache", *SMALL, "--folds", 2, "--split-file", path, "--out", "d.h5", code=1
    )
    assert "fold '2'; expected 0 to 1" in failed.err


def test_a_split_file_beside_the_cache_stays_as_it_is(brats: Commands) -> None:
    for n in range(4):
        add_case(Path("data"), f"p{n}", labels=mask((1,)), seed=n)
    table = Path("data/brats.splits.csv")
    lines = [f"p{n},{'val' if n == 2 else 'train'}" for n in range(5)]  # p4 is yet to come
    table.write_text("\n".join(["case,split", *lines]) + "\n")
    before = table.read_bytes()
    for words in ((), ("--overwrite",)):
        brats("build-cache", *SMALL, "--split-file", table, *words)
        assert table.read_bytes() == before
    assert splits_of(open_cache(Path("data/brats.h5")))["p2"] == "val"


def test_a_fraction_beside_a_manifest_that_splits_is_refused(brats: Commands) -> None:
    for n in range(2):
        add_case(Path("data"), f"p{n}", labels=mask((1,)), seed=n)
    brats("scan", "data", "--out", "cases.csv")
    with open("cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open("split.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        sides = zip(rows, ("train", "val"), strict=True)
        writer.writerows({**row, "split": side} for row, side in sides)
    words = ("build-cache", *SMALL, "--manifest", "split.csv")
    said = brats(*words, "--val-fraction", 0.5, code=1).err
    assert "--val-fraction 0.5: the column split of split.csv decides" in said
    brats(*words)


def test_a_table_of_splits_is_not_replaced_by_another(brats: Commands) -> None:
    for n in range(4):
        add_case(Path("data"), f"p{n}", labels=mask((1,)), seed=n)
    table = Path("data/brats.splits.csv")
    table.write_text("patient,split\nmine,train\n")
    assert "brats.splits.csv: exists" in brats("build-cache", *SMALL, code=1).err
    assert table.read_text() == "patient,split\nmine,train\n"
    assert not Path("data/brats.h5").exists()
    brats("build-cache", *SMALL, "--overwrite")
    assert "p3" in table.read_text()
    Path("data/brats.h5").unlink()
    brats("build-cache", *SMALL)  # the same table may stay


def test_one_person_of_two_years_is_on_one_side(brats: Commands) -> None:
    rows = ["Grade,BraTS_2018_subject_ID,BraTS_2020_subject_ID"]
    for n in range(8):
        old, new = f"Brats18_CBICA_A{n}_1", f"BraTS20_Training_{n:03d}"
        add_case(Path("a"), old, labels=mask(), seed=n)
        add_case(Path("b"), new, labels=mask(), seed=n)
        rows.append(f"{'HGG' if n % 2 else 'LGG'},{old},{new}")
    Path("b/name_mapping.csv").write_text("\n".join(rows))
    survival = "BraTS20ID,Age,Survival_days\nBraTS20_Training_001,60.5,ALIVE (361 days later)\n"
    Path("b/survival_info.csv").write_text(survival)
    done = brats("build-cache", "a", "b", *SMALL, "--val-fraction", 0.5)
    assert "two ids" not in done.err
    cache = open_cache(Path("data/brats.h5"))
    assert len(np.unique(cache.cases["patient"])) == 8
    assert len(np.unique(cache.cases[["patient", "split"]])) == 8
    for grade in (b"HGG", b"LGG"):
        validates = cache.cases[cache.cases["grade"] == grade]["split"] == b"val"
        assert np.count_nonzero(validates) == 4  # two of four persons, two ids each
    record = case_of(cache, "BraTS20_Training_001")
    assert (record["age"], record["survival"]) == (60.5, b"ALIVE (361 days later)")


def test_the_split_file_is_judged_before_the_scans_are_read(brats: Commands) -> None:
    folder = add_case(Path("data"), "a", labels=mask((1,)))
    (folder / "a_t1.nii").write_bytes(b"")
    Path("s.csv").write_text("case,split\nb,train\n")
    assert "no line for case a" in brats("build-cache", "--split-file", "s.csv", code=1).err
