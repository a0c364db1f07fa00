"""A build never takes labelled data for unlabelled data, nor a brain for a tumour, in silence."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from brats_cache.build import job
from brats_cache.format.reader import open_cache
from brats_train.cli.main import main
from tests.cache.scans import (
    LPS,
    OLD,
    SHAPE,
    SMALL,
    Commands,
    add_case,
    image,
    mask,
    splits_of,
    write,
)

DATA = Path("data")


def brain(seed: int = 0) -> np.ndarray:
    return (image(seed) > 0).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("p0_contour.nii", np.uint8), ("p0_roi-v2.nii", np.float32), ("outline.nii", np.int16)],
)
def test_a_file_that_could_be_the_mask_is_a_fault(
    brats: Commands, name: str, dtype: type[np.generic]
) -> None:
    """Whatever it is called; the message says how to make it the mask, and both ways work."""
    add_case(DATA, "p1", labels=mask((1,)))
    folder = add_case(DATA, "p0")
    write(folder / name, mask((1,)).astype(dtype))
    said = brats("build-cache", *SMALL, code=1).err
    assert name in said
    assert "--mask-word" in said
    assert "brats scan" in said
    assert not Path("data/brats.h5").exists()
    # Left out as a whole, never its mask alone.
    brats("build-cache", *SMALL, "--skip-bad", "--out", "one.h5")
    assert open_cache("one.h5").cases["id"].tolist() == [b"p1"]


def test_a_word_makes_it_the_mask(brats: Commands) -> None:
    for case in ("p0", "p1"):
        write(add_case(DATA, case) / f"{case}_contour.nii", mask((1,)))
    brats("build-cache", *SMALL, "--mask-word", "contour")
    assert open_cache("data/brats.h5").cases["has_mask"].all()


@pytest.mark.parametrize(
    "values",
    [
        image(9),  # a scan
        np.random.default_rng(0).random((14, 12, 6)).astype(np.float32),  # a map
        brain(),  # the brain
        mask((1, 2), (7, 12, 6)),  # another grid
    ],
)
def test_what_could_be_no_mask_is_none(brats: Commands, values: np.ndarray) -> None:
    add_case(DATA, "p1", labels=mask((1,)))
    write(add_case(DATA, "p0") / "p0_something.nii", values)
    brats("build-cache", *SMALL)
    assert splits_of(open_cache("data/brats.h5"))["p0"] == "test"


def test_a_mask_on_a_shifted_grid_is_none_of_this_case(brats: Commands) -> None:
    add_case(DATA, "p1", labels=mask((1,)))
    shifted = LPS.copy()
    shifted[0, 3] += 5
    write(add_case(DATA, "p0") / "p0_something.nii", mask((1,)), shifted)
    brats("build-cache", *SMALL)


def test_a_candidate_may_order_its_axes_otherwise_or_lack_a_place_in_space(
    brats: Commands,
) -> None:
    add_case(DATA, "p2", labels=mask((1,)))
    flipped = np.diag([1.0, 1, 1, 1])
    flipped[:2, 3] = -(SHAPE[0] - 1), 239 - (SHAPE[1] - 1)
    write(add_case(DATA, "p0") / "p0_something.nii", mask((1,))[::-1, ::-1], flipped)
    write(add_case(DATA, "p1") / "p1_something.nii", mask((1,)), np.eye(4))
    said = brats("build-cache", *SMALL, code=1).err
    assert "p0_something.nii" in said
    assert "p1_something.nii" in said


def test_a_damaged_file_that_could_be_the_mask_is_a_fault(brats: Commands) -> None:
    add_case(DATA, "p1", labels=mask((1,)))
    path = write(add_case(DATA, "p0") / "p0_something.nii.gz", mask((1,)))
    path.write_bytes(path.read_bytes()[:-20])
    said = brats("build-cache", *SMALL, code=1).err
    assert "p0: data/p0/p0_something.nii.gz: " in said


@pytest.mark.parametrize("size", [1.0, 0.7])
def test_a_brain_mask_is_no_tumour(brats: Commands, size: float) -> None:
    for number in range(3):
        labels = brain(number)
        labels[: int((1 - size) * 10) + 2] = 0
        add_case(DATA, f"p{number}", labels=labels, seed=number)
    said = brats("build-cache", *SMALL, code=1).err
    assert "not of the brain" in said
    assert "p0_seg.nii" in said


def test_one_large_tumour_among_small_ones_is_a_tumour(brats: Commands) -> None:
    large = brain()
    large[:5] = 0
    add_case(DATA, "p0", labels=large)
    for number in (1, 2):
        add_case(DATA, f"p{number}", labels=mask((1,)), seed=number)
    brats("build-cache", *SMALL)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("{}_Tumour-Outline.nii", "Tumour-Outline"),
        ("{}_contour-final.nii", "contour-final"),
        ("outline.nii", "outline"),
        ("{}-manual roi 2.nii", "'manual roi 2'"),
    ],
)
def test_the_word_that_the_message_names_is_the_right_one(
    brats: Commands, name: str, word: str
) -> None:
    for case in ("k1", "k2", "k3"):
        write(add_case(DATA, case) / name.format(case), mask((1, 2, 4)))
    said = brats("build-cache", *SMALL, code=1).err
    assert f"--mask-word {word}," in said
    brats("build-cache", *SMALL, "--mask-word", word.strip("'"))
    assert open_cache("data/brats.h5").cases["has_mask"].all()


def test_a_candidate_that_came_after_a_survey_is_seen(
    brats: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that goes on looks at new files of unchanged cases."""
    for number in range(2):
        add_case(DATA, f"p{number}", labels=mask((1,)) if number else None, seed=number)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "make_plan", crash)
        with pytest.raises(SystemExit):
            main(["build-cache", *map(str, SMALL)])
    assert Path("data/brats.h5.journal").exists()
    write(DATA / "p0" / "p0_outline.nii", mask((1,)))
    assert "p0_outline.nii" in brats("build-cache", *SMALL, code=1).err


def test_a_brain_mask_in_scans_with_a_skull_is_no_tumour(brats: Commands) -> None:
    """There the brain is less than half of the voxels that are not 0; its volume tells."""
    size = np.diag([-8.0, -8, 8, 1])  # 0.5 ml a voxel
    shape = (24, 24, 20)
    for number in range(3):
        head = image(number, shape)
        inner = np.zeros(shape, np.uint8)
        inner[6:18, 6:18, 5:16] = 1
        add_case(DATA, f"p{number}", labels=inner, shape=shape, affine=size, seed=number)
        assert np.count_nonzero(inner) < 0.25 * np.count_nonzero(head)
    said = brats("build-cache", *SMALL, code=1).err
    assert "a mask of 811 ml" in said
    assert "not of the brain" in said


def test_a_manifest_names_files_splits_and_schemes(brats: Commands) -> None:
    """Whatever they are called; what it says of split and scheme holds."""
    columns = ["case", "patient", *OLD, "seg", "split", "scheme"]
    lines = []
    for number, split in enumerate(("train", "val", "train", "test")):
        files = {role: write(Path(f"in/{number}/x{role}.nii"), image(number)) for role in OLD}
        seg = write(Path(f"in/{number}/result.nii"), mask((1, 3)))
        lines.append(
            {
                **{role: path.relative_to("in") for role, path in files.items()},
                "case": f"c{number}",
                "patient": f"someone{number}",
                "seg": "" if split == "test" else seg.relative_to("in"),
                "split": split,
                "scheme": "" if split == "test" else "brats2023",
            }
        )
    with open("in/table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)
    brats("build-cache", *SMALL, "--manifest", "in/table.csv", "--out", "m.h5")
    cache = open_cache("m.h5")
    assert splits_of(cache) == {
        "someone0": "train",
        "someone1": "val",
        "someone2": "train",
        "someone3": "test",
    }
    assert set(cache.cases["label_scheme"][:3].tolist()) == {b"brats2023"}
    said = brats("build-cache", "data", *SMALL, "--manifest", "in/table.csv", code=2).err
    assert "leave DATA out" in said


def test_a_manifest_that_splits_some_cases_alone_is_refused(brats: Commands) -> None:
    header = "case,t1,seg,split\n"
    for number in range(2):
        write(Path(f"in/{number}.nii"), image(number))
        write(Path(f"in/{number}m.nii"), mask((1,)))
    Path("in/t.csv").write_text(header + "a,0.nii,0m.nii,train\nb,1.nii,1m.nii,\n")
    words = ("build-cache", *SMALL, "--manifest", "in/t.csv", "--modalities", "t1", "--out", "m.h5")
    said = brats(*words, code=1).err
    assert "b" in said
    assert "no line for case b" in said or "no split" in said


def test_a_scheme_that_the_data_set_never_had_is_told(brats: Commands) -> None:
    for number in range(2):
        labels = mask((1, 2, 3, 4))
        add_case(DATA, f"BraTS-PED-0000{number}-000", labels=labels, seed=number)
    said = brats("build-cache", *SMALL, "--label-scheme", "brats2024").err
    assert "BraTS-PED-00000-000" in said
    assert "--label-scheme" in said
    assert "--label-scheme" not in brats("build-cache", *SMALL, "--out", "auto.h5").err
