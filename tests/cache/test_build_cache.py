"""`brats build-cache` as a person meets it: understood or refused with a reason, nothing lost."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_cache.cases import find_cases
from brats_cache.store import Cache, open_cache
from tests.cache.scans import (
    LPS,
    NEW,
    OLD,
    SHAPE,
    Commands,
    add_case,
    edit,
    image,
    mask,
    write,
)
from tests.commands import LAUNCHER

SMALL = ("--size", 16, "--workers", 1)
MSD_JSON = {
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {
        "0": "background",
        "1": "edema",
        "2": "non-enhancing tumor",
        "3": "enhancing tumour",
    },
    "numTraining": 2,
}


def case_of(cache: Cache, case_id: str) -> Any:
    (index,) = np.flatnonzero(cache.cases["id"] == case_id.encode())
    return cache.cases[index]


def rows_of(cache: Cache, case_id: str) -> slice:
    record = case_of(cache, case_id)
    return slice(record["first_row"], record["first_row"] + record["rows"])


def splits_of(cache: Cache) -> dict[str, str]:
    return {
        patient.decode(): split.decode()
        for patient, split in zip(cache.cases["patient"], cache.cases["split"], strict=True)
    }


def add_msd(root: Path, labels: dict[str, str] | None = None) -> None:
    for number in (1, 2):
        data = np.stack([image(seed) for seed in range(4)], axis=-1)
        write(root / "imagesTr" / f"BRATS_{number:03d}.nii.gz", data)
        write(root / "labelsTr" / f"BRATS_{number:03d}.nii.gz", mask((1, 2, 3)))
    write(root / "imagesTs" / "BRATS_485.nii.gz", data)
    description = {**MSD_JSON, **({"labels": labels} if labels else {})}
    (root / "dataset.json").write_text(json.dumps(description))


# Names and labels, end to end


def test_collections_under_every_naming_meet_in_one_cache(brats: Commands) -> None:
    add_case(Path("b15"), "brats_2013_pat0003_1", labels=mask((1, 2, 3, 4)))
    add_case(Path("b20"), "BraTS20_Training_001", labels=mask((1, 2, 4)), suffix=".nii.gz")
    folder = add_case(Path("b20"), "BraTS20_Training_355")
    write(folder / "W39_1998.09.19_Segm.nii", mask((1, 2, 4)))
    for session in ("100", "101"):
        add_case(Path("b24"), f"BraTS-GLI-00005-{session}", roles=NEW, labels=mask((1, 2, 3, 4)))
    add_case(Path("own"), "site 4-017", labels=mask((1,)))
    add_case(Path("own"), "ünï", labels=mask((1,)))
    add_msd(Path("Task01"))
    done = brats("build-cache", "b15", "b20", "b24", "own", "Task01", *SMALL, "--folds", 2)
    assert "W39_1998.09.19_Segm.nii" in done.err
    assert "one person may be there under two ids" in done.err
    cache = open_cache(Path("data/brats.h5"))
    schemes = {r["id"].decode(): r["label_scheme"].decode() for r in cache.cases}
    assert schemes == {
        "brats_2013_pat0003_1": "brats2013",
        "BraTS20_Training_001": "brats2017",
        "BraTS20_Training_355": "brats2017",
        "BraTS-GLI-00005-100": "brats2024",
        "BraTS-GLI-00005-101": "brats2024",
        "site 4-017": "binary",
        "ünï": "binary",
        "BRATS_001": "msd",
        "BRATS_002": "msd",
        "BRATS_485": "msd",
    }
    sessions = [case_of(cache, f"BraTS-GLI-00005-{n}") for n in (100, 101)]
    assert len({(s["patient"], s["split"], s["fold"]) for s in sessions}) == 1
    assert case_of(cache, "BRATS_485")["split"] == b"test"
    wanted = {"BRATS_001": {1: 2, 2: 1, 3: 3}, "BraTS20_Training_355": {1: 1, 2: 2, 4: 3}}
    for case_id, table in wanted.items():
        counts = cache.slices[rows_of(cache, case_id)]["label_pixels"].sum(axis=0)
        native = case_of(cache, case_id)["native_voxel_counts"]
        assert {int(v): int(n) for v, n in enumerate(native) if n and v} == dict.fromkeys(table, 6)
        assert {label for label in range(1, 5) if counts[label]} == set(table.values())
    # FLAIR is channel 0 of the file, and the fourth of the four asked for.
    # Channel 0 of the file is FLAIR, which is the last of the modalities asked for.
    flair = image(0).T[3].astype(np.float64)
    low = cache.images[rows_of(cache, "BRATS_001")][2, 3].astype(np.float64)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(flair)[None, None], (16, 16), mode="bilinear"
    ).numpy()
    inside = (slice(5, 11), slice(5, 11))
    assert np.corrcoef(low[inside].ravel(), wanted[0, 0][inside].ravel())[0, 1] > 0.999


@pytest.mark.parametrize(
    ("case", "values", "options", "said"),
    [
        ("BraTS20_Training_001", (1, 2, 3), (), "--label-scheme brats2013"),
        ("own", (1, 2, 3), (), "brats2023 (BraTS 2023"),
        ("own", (1, 2), (), "cannot tell the label scheme"),
        ("own", (1, 2, 9), (), "No scheme"),
        ("BraTS-GLI-00005-100", (1, 2, 4), (), "brats2024 or brats2017"),
        ("own", (1, 2, 4), ("--label-scheme", "binary"), "by --label-scheme"),
    ],
)
def test_labels_that_are_not_clear_are_refused(
    brats: Commands,
    case: str,
    values: tuple[int, ...],
    options: tuple[str, ...],
    said: str,
) -> None:
    add_case(Path("data"), case, labels=mask(values))
    failed = brats("build-cache", *SMALL, *options, code=1)
    assert said in failed.err
    assert "1 fault" in failed.err
    assert os.listdir("data") == [case]


def test_a_scheme_can_be_given(brats: Commands) -> None:
    add_case(Path("data"), "own", labels=mask((1, 2, 3)))
    brats("build-cache", *SMALL, "--label-scheme", "msd")
    assert open_cache(Path("data/brats.h5")).cases["label_scheme"].tolist() == [b"msd"]


def test_two_decathlons_under_one_folder_keep_their_own_labels(brats: Commands) -> None:
    add_msd(Path("data/one"))
    names = {"0": "background", "1": "necrosis", "2": "edema", "3": "enhancing tumor"}
    add_msd(Path("data/two"), names)
    for path in sorted(Path("data/two").rglob("BRATS*")):
        path.rename(path.with_name(path.name.replace("BRATS_", "BRATS_9")))
    brats("build-cache", *SMALL)
    cache = open_cache(Path("data/brats.h5"))
    assert case_of(cache, "BRATS_001")["label_scheme"] == b"msd"
    assert case_of(cache, "BRATS_9001")["label_scheme"] == b"brats2023"


# Geometry


@pytest.mark.parametrize("codes", ["RAS", "PIL", "SAR", "LPI"])
def test_the_cache_of_a_reoriented_copy_is_the_same(
    brats: Commands,
    real_data: Path,
    codes: str,
) -> None:
    source = real_data / "lgg" / "TCGA_HT_7684_19950816"
    for path in source.glob("*.nii*"):
        made = nib.load(path)
        there = nib.orientations.axcodes2ornt(codes)
        turn = nib.orientations.ornt_transform(nib.io_orientation(made.affine), there)
        copy = Path("copy") / source.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        nib.save(made.as_reoriented(turn), copy)
    options = ("--modalities", "t1,flair", "--size", 128)
    brats("build-cache", source, "--out", "a.h5", *options)
    brats("build-cache", "copy", "--out", "b.h5", *options)
    first, second = open_cache(Path("a.h5")), open_cache(Path("b.h5"))
    assert second.cases["orientation"].tolist() == [codes.encode()]
    assert len(first.images) > 15
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.masks, second.masks)
    assert first.masks.any()
    assert np.array_equal(first.slices, second.slices)


def test_files_of_a_case_must_lie_on_one_grid(brats: Commands) -> None:
    folder = add_case(Path("data"), "a", labels=mask((1,)))
    near = LPS + np.random.default_rng(0).normal(0, 1e-5, (4, 4)) * [[1], [1], [1], [0]]
    write(folder / "a_t2.nii", image(5), near)
    brats("build-cache", *SMALL, "--dry-run")
    write(folder / "a_t2.nii", image(5), LPS @ np.diag([1, 1, 1.1, 1]))
    assert "mm elsewhere" in brats("build-cache", *SMALL, code=1).err
    write(folder / "a_t2.nii", image(5), np.diag([1.0, 1, 1, 1]))
    assert "axes stored as RAS" in brats("build-cache", *SMALL, code=1).err
    write(folder / "a_t2.nii", image(5, (12, 14, 6)))
    assert "12 x 14 x 6 voxels; expected 14 x 12 x 6" in brats("build-cache", *SMALL, code=1).err


def test_padding_reproduces_the_voxels_of_a_real_case(
    brats: Commands,
    real_data: Path,
) -> None:
    folder = real_data / "lgg" / "TCGA_HT_7684_19950816"
    options = ("--modalities", "t1,flair", "--normalize", "none", "--fit", "pad", "--size", 288)
    brats("build-cache", folder, "--out", "a.h5", *options, "--slices", "all")
    cache = open_cache(Path("a.h5"))
    window = (slice(None), slice(16, 272), slice(16, 272))
    for channel, role in enumerate(("t1", "flair")):
        (path,) = folder.glob(f"*_{role}.nii*")
        native = np.transpose(nib.load(path).get_fdata(), (2, 1, 0))
        assert np.array_equal(cache.images[:, channel][window], native)
        assert np.count_nonzero(cache.images[:, channel]) == np.count_nonzero(native)
    (path,) = folder.glob("*_seg.nii*")
    truth = np.transpose(nib.load(path).get_fdata(), (2, 1, 0))
    assert np.array_equal(cache.masks[:, 0][window] == 2, truth == 1)  # binary: held as oedema


def test_padding_is_refused_where_it_does_not_fit(brats: Commands) -> None:
    add_case(Path("data"), "a", labels=mask((1,), (20, 12, 6)), shape=(20, 12, 6))
    said = brats("build-cache", *SMALL, "--fit", "pad", code=1).err
    assert "slices of 12 x 20 pixels" in said
    assert "16 x 16" in said
    assert os.listdir("data") == ["a"]


# Numbers


def test_a_real_case_agrees_with_an_independent_reference(
    brats: Commands,
    real_data: Path,
) -> None:
    folder = real_data / "brats2021" / "BraTS2021_00006"
    brats("build-cache", folder, "--out", "a.h5", "--slices", "70:81")
    cache = open_cache(Path("a.h5"))
    assert cache.slices["z"].tolist() == list(range(70, 81))
    load: Callable[[str], np.ndarray] = lambda role: nib.load(  # noqa: E731
        next(folder.glob(f"*_{role}.nii*"))
    ).get_fdata()
    volumes = np.stack([load(role) for role in OLD])
    brain = (volumes != 0).any(axis=0)
    for volume in volumes:
        volume[brain] = (volume[brain] - volume[brain].mean()) / volume[brain].std()
    slices = torch.from_numpy(volumes[..., 70:81].transpose(3, 0, 2, 1).copy())
    wanted = torch.nn.functional.interpolate(slices, (256, 256), mode="bilinear").numpy()
    error = np.abs(cache.images.astype(np.float64) - wanted)
    assert (error <= 2.0**-11 * np.abs(wanted) + 4e-6).all()
    truth = np.array([0, 1, 2, 0, 3])[load("seg").astype(int)][..., 70:81].transpose(2, 1, 0)
    place = (2 * np.arange(256) + 1) * 240 // 512
    assert np.array_equal(cache.masks[:, 0], truth[:, place][:, :, place])
    statistics = cache.cases[0]
    raw = load("t2")[(np.stack([load(role) for role in OLD]) != 0).any(axis=0)]
    assert statistics["center"][2] == pytest.approx(raw.mean(), rel=1e-12)
    assert statistics["scale"][2] == pytest.approx(1 / raw.std(), rel=1e-12)
    assert statistics["native_voxel_counts"][1:].tolist() == [25506, 85957, 0, 26448]


@pytest.mark.parametrize(
    ("folder", "modalities", "schemes"),
    [
        ("brats2015", "flair,t1ce", {"brats2013": 4}),
        ("brats2021", "t1,t1ce,t2,flair", {"brats2017": 1}),
        ("brats2023", "t1,t1ce,t2,flair", {"brats2023": 1}),
        ("lgg", "t1,t1ce,flair", {"binary": 12}),
        ("", "flair,t1ce", {"brats2013": 4, "brats2017": 1, "brats2023": 1, "binary": 12}),
    ],
)
def test_the_real_folders_alone_and_together(
    brats: Commands,
    real_data: Path,
    folder: str,
    modalities: str,
    schemes: dict[str, int],
) -> None:
    cases = find_cases([real_data / folder], modalities.split(",")).cases
    assert len(cases) == sum(schemes.values())
    if folder in ("brats2015", ""):  # reading all of it again would take seconds and tell no more
        keep = {"brats_2013_pat0003_1", "BraTS2021_00006", "BraTS-GLI-00000-000"}
        chosen = [case for case in cases if case.id in keep or case.id.startswith("TCGA_HT")]
        data = [next(iter(case.images.values())).path.parent for case in chosen]
    else:
        data = [real_data / folder]
    done = brats(
        "build-cache", *data, "--out", "a.h5", "--modalities", modalities, "--slices", "middle",
        "--size", 64,
    )  # fmt: skip
    cache = open_cache(Path("a.h5"))
    assert {name.decode() for name in cache.cases["label_scheme"]} == set(schemes)
    assert "is complete" in done.out
    for record in cache.cases:
        assert cache.slices["z"][record["first_row"]] == record["native_shape"][2] // 2


# Slices


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("brain", [1, 2, 3, 4]),
        ("tumor", [2, 3]),
        ("middle", [3]),
        ("all", [0, 1, 2, 3, 4, 5]),
        ("2:4", [2, 3]),
        ("4:99", [4, 5]),
    ],
)
def test_the_slices_that_are_kept(brats: Commands, rule: str, wanted: list[int]) -> None:
    add_case(Path("data"), "a", labels=mask((1,)))
    brats("build-cache", *SMALL, "--slices", rule)
    assert open_cache(Path("data/brats.h5")).slices["z"].tolist() == wanted


# Faults: together, before anything is written


def break_many(data: Path) -> dict[str, str]:
    """Cases with one fault each, by id, and what must be said of it."""
    add_case(data, "BraTS20_Training_001", labels=mask())
    add_case(data, "BraTS20_Training_002", labels=mask())
    lacking = add_case(data, "BraTS20_Training_003", labels=mask())
    (lacking / "BraTS20_Training_003_t1ce.nii").unlink()
    cut = add_case(data, "BraTS20_Training_004", labels=mask()) / "BraTS20_Training_004_t2.nii"
    cut.write_bytes(cut.read_bytes()[:-9])
    other = add_case(data, "BraTS20_Training_005")
    write(other / "BraTS20_Training_005_seg.nii", mask((1,), (14, 12, 7)))
    add_case(data, "BraTS20_Training_006", labels=mask((1, 7)))
    holes = add_case(data, "BraTS20_Training_007", labels=mask())
    values = image(3).astype(np.float32)
    values[5, 5, :2], values[6, 5, 1] = np.nan, np.inf
    write(holes / "BraTS20_Training_007_flair.nii", values)
    half = add_case(data, "BraTS20_Training_008") / "BraTS20_Training_008_seg.nii"
    write(half, np.full(SHAPE, 0.5, np.float32))
    packed = add_case(data, "BraTS20_Training_009", labels=mask(), suffix=".nii.gz")
    bits = bytearray((packed / "BraTS20_Training_009_t1.nii.gz").read_bytes())
    bits[-60] ^= 1
    (packed / "BraTS20_Training_009_t1.nii.gz").write_bytes(bits)
    empty = add_case(data, "BraTS20_Training_010", labels=mask())
    for role in OLD:
        write(empty / f"BraTS20_Training_010_{role}.nii", image(0) * 0)
    (data / "BraTS20_Training_011_t1.nii").symlink_to("nowhere.nii")
    return {
        "003": "no t1ce, only t1, t2, flair, mask",
        "004": "a truncated file",
        "005": "14 x 12 x 7 voxels; expected 14 x 12 x 6",
        "006": "its mask holds 7",
        "007": "2 NaN and 1 infinite voxels in flair",
        "008": "values that are no label (0.5)",
        "009": "gzip data",
        "010": "no voxel that is not zero",
        "011": "a link to nowhere.nii",
    }


def test_all_faults_are_told_together_and_nothing_is_written(brats: Commands) -> None:
    faults = break_many(Path("data"))
    before = sorted(Path().rglob("*"))
    said = brats("build-cache", *SMALL, code=1).err
    lines = [line for line in said.splitlines() if line.startswith("  BraTS20_Training_")]
    assert len(lines) == len(faults)
    for number, words in faults.items():
        (line,) = (text for text in lines if text.startswith(f"  BraTS20_Training_{number}: "))
        assert words in line
        assert "data/BraTS20_Training_" in line
    assert "9 faults in 9 cases" in said
    assert "--skip-bad" in said
    assert sorted(Path().rglob("*")) == before


def test_skip_bad_goes_on_without_them_and_its_split_can_be_pinned(brats: Commands) -> None:
    faults = break_many(Path("data"))
    said = brats("build-cache", *SMALL, "--skip-bad").err
    assert all(words in said for words in faults.values())
    cache = open_cache(Path("data/brats.h5"))
    assert cache.cases["id"].tolist() == [b"BraTS20_Training_001", b"BraTS20_Training_002"]
    shutil.copy("data/brats.splits.csv", "pinned.csv")
    again = ("build-cache", *SMALL, "--split-file", "pinned.csv", "--out", "b.h5")
    brats(*again, "--skip-bad")
    assert splits_of(open_cache(Path("b.h5"))) == splits_of(cache)


def test_several_faults_of_one_case_are_all_told(brats: Commands) -> None:
    folder = add_case(Path("data"), "a")
    (folder / "a_t1.nii").write_bytes(b"")
    write(folder / "a_t2.nii", np.full(SHAPE, np.nan, np.float32))
    write(folder / "a_seg.nii", np.full(SHAPE, -1, np.int16))
    said = brats("build-cache", *SMALL, code=1).err
    assert "3 faults in 1 case" in said
    for name in ("a_t1.nii", "a_t2.nii", "a_seg.nii"):
        assert f"data/a/{name}: " in said
    assert "no case is without fault" in brats("build-cache", *SMALL, "--skip-bad", code=1).err


def test_a_fault_of_a_4d_file_is_told_once(brats: Commands) -> None:
    add_msd(Path("data"))
    path = Path("data/imagesTr/BRATS_001.nii.gz")
    path.write_bytes(path.read_bytes()[:-50])
    assert "1 fault in 1 case" in brats("build-cache", *SMALL, code=1).err


def test_what_belongs_to_no_case_cannot_be_skipped(brats: Commands) -> None:
    add_case(Path("data"), "a", labels=mask((1,)))
    Path("data/name_mapping.csv").write_text("Grade,BraTS_2020_subject_ID\nHGG\n")
    for data in (("data",), ("data", "typo")):
        said = brats("build-cache", *data, *SMALL, "--skip-bad", code=1).err
        assert "these belong to none" in said
    assert "no such folder" in said
    assert "name_mapping.csv" in said


def test_a_contradictory_grade_is_that_cases_fault(brats: Commands) -> None:
    for number in "12":
        add_case(Path("data"), f"BraTS20_Training_00{number}", labels=mask())
    rows = "HGG,BraTS20_Training_001\nLGG,BraTS20_Training_001\nLGG,BraTS20_Training_002\n"
    Path("data/name_mapping.csv").write_text("Grade,BraTS_2020_subject_ID\n" + rows)
    assert "line 3" in brats("build-cache", *SMALL, code=1).err
    brats("build-cache", *SMALL, "--skip-bad")
    cache = open_cache(Path("data/brats.h5"))
    assert cache.cases[["id", "grade"]].tolist() == [(b"BraTS20_Training_002", b"LGG")]


def test_a_background_that_is_not_zero_draws_a_warning(brats: Commands) -> None:
    folder = add_case(Path("data"), "a", labels=mask((1,)))
    write(folder / "a_t1.nii", image(1), scl_slope=1, scl_inter=-1024)
    assert "no voxel is zero in a" in brats("build-cache", *SMALL).err


def test_negative_and_fractional_values_are_no_fault(brats: Commands) -> None:
    folder = add_case(Path("data"), "a", labels=mask((1,)).astype(np.float64) + 5e-4)
    write(folder / "a_t1.nii", image(1) - 400)
    write(folder / "a_t2.nii", (image(1) / 7).astype(np.float64)[..., None])
    brats("build-cache", *SMALL)
    cache = open_cache(Path("data/brats.h5"))
    assert np.isfinite(cache.images).all()
    assert (cache.images[:, 0] < 0).any()


# Splits


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


# What exists, wrong usage, death half way


def test_what_exists_is_not_replaced_unasked(brats: Commands) -> None:
    add_case(Path("data"), "a", labels=mask((1,)))
    add_case(Path("data"), "b", labels=mask((1,)))
    out = Path("data/brats.h5")
    brats("build-cache", *SMALL)
    content, stamp = out.read_bytes(), out.stat().st_mtime_ns
    assert "is identical" in brats("build-cache", *SMALL, code=1).err
    said = brats("build-cache", "--size", 32, "--seed", 4, code=1).err
    assert "size: 16 there, 32 now" in said
    add_case(Path("data"), "c", labels=mask((1,)))
    assert "c: among the scans now" in brats("build-cache", *SMALL, code=1).err
    assert (out.read_bytes(), out.stat().st_mtime_ns) == (content, stamp)
    brats("build-cache", *SMALL, "--overwrite")
    assert len(open_cache(out).cases) == 3


def test_a_file_that_is_no_cache_is_refused_at_once(brats: Commands) -> None:
    add_case(Path("data"), "a", labels=mask((1,)))
    Path("notes.txt").write_text("precious")
    said = brats("build-cache", *SMALL, "--out", "notes.txt", code=1).err
    assert "no cache this program can read" in said
    assert Path("notes.txt").read_text() == "precious"
    assert "Checking" not in said


def test_data_that_is_not_there_or_holds_nothing(brats: Commands) -> None:
    assert "data: no such folder" in brats("build-cache", code=1).err
    Path("data").mkdir()
    assert "no files" in brats("build-cache", code=1).err
    Path("data/notes.txt").touch()
    assert "no cases" in brats("build-cache", code=1).err
    assert os.listdir("data") == ["notes.txt"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--modalities", "foo"), "t1, t1ce, t2, flair"),
        (("--modalities", "t1,t1"), "different"),
        (("--modalities", ""), "--modalities"),
        (("--slices", "some"), "A:B"),
        (("--slices", "9:3"), "A < B"),
        (("--size", "4"), "16"),
        (("--size", "big"), "--size"),
        (("--fit", "crop"), "pad"),
        (("--normalize", "minmax"), "percentile"),
        (("--label-scheme", "brats2022"), "brats2023"),
        (("--val-fraction", "1"), "--val-fraction"),
        (("--val-fraction", "nan"), "--val-fraction"),
        (("--folds", "1"), "--folds 1"),
        (("--folds", "-3"), "--folds -3"),
        (("--workers", "0"), "--workers"),
        (("--split-file", "absent.csv"), "absent.csv"),
        (("--split-file", "here.csv", "--val-fraction", "0.15"), "leave --val-fraction out"),
        (("--out", "folder"), "folder"),
        (("--frobnicate",), "--frobnicate"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    brats: Commands,
    options: tuple[str, ...],
    said: str,
) -> None:
    Path("folder").mkdir()
    Path("here.csv").write_text("case,split\n")
    assert said in brats("build-cache", *options, code=2).err


def test_a_dry_run_says_it_all_and_writes_nothing(brats: Commands) -> None:
    add_case(Path("data"), "a", labels=mask((1,)))
    before = sorted(Path().rglob("*"))
    done = brats("build-cache", *SMALL, "--dry-run", "--out", "deep/er/b.h5")
    assert "1 case" in done.out
    assert "binary (1 case)" in done.out
    assert sorted(Path().rglob("*")) == before


def test_a_disk_that_is_too_small_is_told_before_writing(
    brats: Commands,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_case(Path("data"), "a", labels=mask((1,)))
    usage = shutil._ntuple_diskusage(1, 1, 1000)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "1000 bytes free" in brats("build-cache", *SMALL, code=1).err
    assert os.listdir("data") == ["a"]


def test_names_from_a_hostile_disk(brats: Commands) -> None:
    data = Path("my data/x\u202e/new\nline")
    add_case(data, "a\tb", labels=mask((1,)))
    add_case(data, "-dash", labels=mask((1,)))
    (data / "loop").symlink_to(".")
    (data / "x.nii").mkdir()
    done = brats("build-cache", "my data", *SMALL, "--out", "my data/out.h5")
    assert "\u202e" not in done.out + done.err
    assert "\t" not in done.out
    assert "--cache 'my data/out.h5'" in done.out
    shown = json.loads(brats("info", "--json", "my data/out.h5").out)
    assert [case["id"] for case in shown["cases"]] == ["-dash", "a\tb"]


def test_a_name_that_is_no_text_is_refused(brats: Commands) -> None:
    add_case(Path("data"), os.fsdecode(b"caf\xe9"), labels=mask((1,)))
    said = brats("build-cache", *SMALL, code=1).err
    assert "a name that is not UTF-8" in said
    assert r"caf\udce9" in said


def test_a_build_killed_half_way_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    for n in range(12):
        shape = (200, 200, 40)
        add_case(tmp_path / "data", f"p{n}", roles=("t1",), labels=mask((1,), shape), shape=shape)
    out = tmp_path / "data" / "brats.h5"
    words = [sys.executable, LAUNCHER, "build-cache", "--modalities", "t1", "--workers", "1"]
    process = subprocess.Popen(
        words, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(out.parent.glob("*brats.h5*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(out.parent.glob("*brats.h5*"))
    assert not out.exists()
    assert not out.with_name("brats.splits.csv").exists()
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert open_cache(out).masks.any()


def test_gzip_members_and_plain_bytes_under_the_other_name(brats: Commands) -> None:
    folder = add_case(Path("data"), "a", labels=mask((1,)))
    brats("build-cache", *SMALL, "--out", "plain.h5")
    for role in ("t1", "seg"):
        raw = (folder / f"a_{role}.nii").read_bytes()
        (folder / f"a_{role}.nii").write_bytes(gzip.compress(raw[:500]) + gzip.compress(raw[500:]))
    (folder / "a_t2.nii").rename(folder / "a_t2.nii.gz")
    brats("build-cache", *SMALL, "--out", "odd.h5")
    plain, odd = open_cache(Path("plain.h5")), open_cache(Path("odd.h5"))
    assert np.array_equal(plain.images, odd.images)
    assert np.array_equal(plain.masks, odd.masks)


def test_a_flip_of_the_axis_in_one_header_is_a_fault_not_a_flip(brats: Commands) -> None:
    folder = add_case(Path("data"), "a", labels=mask((1,)))
    edit(folder / "a_seg.nii", srow_x=[1, 0, 0, 0])
    assert "a_seg.nii" in brats("build-cache", *SMALL, code=1).err
