"""`brats build-cache` understands what people have: names, labels, geometry, numbers, slices."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_cache.discovery.cases import find_cases
from brats_cache.format.reader import open_cache
from tests.cache.scans import (
    LPS,
    NEW,
    OLD,
    SMALL,
    Commands,
    add_case,
    add_msd,
    case_of,
    image,
    mask,
    rows_of,
    write,
)

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
