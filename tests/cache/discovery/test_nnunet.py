"""Raw folders of nnU-Net: a file a channel, names and labels as dataset.json tells them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brats_cache.discovery.cases import find_cases
from brats_cache.imaging.scheme_detection import detect_scheme
from tests.cache.discovery.trees import add_files

V1 = {
    "modality": {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing", "3": "enhancing"},
}
V2 = {
    "channel_names": {"0": "Flair", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"background": 0, "NCR": 1, "ED": 2, "ET": 3},
    "file_ending": ".nii.gz",
}


def add_nnunet(root: Path, description: dict[str, Any], num_channels: int = 4) -> Path:
    """Two training cases and one test case."""
    for case in ("case_A1", "case_A2"):
        names = [f"imagesTr/{case}_{index:04d}.nii.gz" for index in range(num_channels)]
        add_files(root, *names, f"labelsTr/{case}.nii.gz")
    add_files(root, *(f"imagesTs/case_B1_{index:04d}.nii.gz" for index in range(num_channels)))
    (root / "dataset.json").write_text(json.dumps(description))
    return root


@pytest.mark.parametrize(
    ("description", "scheme", "flair"),
    [(V1, "msd", "case_A1_0003.nii.gz"), (V2, "brats2023", "case_A1_0000.nii.gz")],
)
def test_both_versions(
    tmp_path: Path, description: dict[str, Any], scheme: str, flair: str
) -> None:
    root = add_nnunet(tmp_path / "Dataset137_X", description)
    found = find_cases([tmp_path])
    assert (found.faults, found.notes) == ((), ())
    assert [case.id for case in found.cases] == ["case_A1", "case_A2", "case_B1"]
    first, _, last = found.cases
    assert first.images["flair"].path == root / "imagesTr" / flair
    assert first.images["flair"].channel is None
    assert first.mask is not None
    assert first.mask.path == root / "labelsTr" / "case_A1.nii.gz"
    assert last.mask is None
    values = {first.id: frozenset(range(4))}
    assert detect_scheme(first.naming, values, dataset_labels=first.labels).name == scheme
    assert [case.id for case in find_cases([root / "imagesTs"]).cases] == ["case_B1"]


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3],
          "enhancing tumor": [3]}, "msd"),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3],
          "enhancing tumor": 3}, "brats2023"),
        ({"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": [3], "RC": [4]}, "brats2024"),
        ({"background": 0, "whole tumor": [1, 2, 4], "tumor core": [1, 4],
          "enhancing tumor": [4]}, "brats2017"),
    ],
)  # fmt: skip
def test_regions_tell_what_their_values_mean(
    tmp_path: Path, labels: dict[str, Any], scheme: str
) -> None:
    add_nnunet(tmp_path, {**V2, "labels": labels})
    case = find_cases([tmp_path]).cases[0]
    values = {case.id: frozenset(value for value, _ in case.labels)}
    assert detect_scheme(case.naming, values, dataset_labels=case.labels).name == scheme


@pytest.mark.parametrize("name", ["tumor", "whole tumor", "lesion"])
def test_a_single_label_for_any_tumor_is_left_to_the_values(tmp_path: Path, name: str) -> None:
    add_nnunet(tmp_path, {**V2, "labels": {"background": 0, name: 1}})
    case = find_cases([tmp_path]).cases[0]
    values = {case.id: frozenset({0, 1})}
    assert detect_scheme(case.naming, values, dataset_labels=case.labels).name == "binary"


def test_other_channels_are_left_aside(tmp_path: Path) -> None:
    names = {"0": "ADC", "1": "T1", "2": "T1CE", "3": "T2", "4": "FLAIR"}
    add_nnunet(tmp_path, {**V2, "channel_names": names}, num_channels=5)
    case = find_cases([tmp_path]).cases[0]
    assert case.images["t1"].path.name == "case_A1_0001.nii.gz"


def test_a_missing_channel_and_a_missing_label_are_faults_that_name_them(tmp_path: Path) -> None:
    root = add_nnunet(tmp_path, V2)
    (root / "imagesTr" / "case_A1_0002.nii.gz").unlink()
    (root / "labelsTr" / "case_A2.nii.gz").unlink()
    found = find_cases([tmp_path])
    assert [case.id for case in found.cases] == ["case_B1"]
    faults = {fault.case: fault for fault in found.faults}
    assert set(faults) == {"case_A1", "case_A2"}
    assert "_0000, _0001, _0003" in faults["case_A1"].found
    assert "labelsTr" in faults["case_A2"].found
    assert len(find_cases([tmp_path], with_masks=False).cases) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"file_ending": ".nrrd"},
        {"channel_names": {"0": "CT"}},
        {"channel_names": {"1": "T1", "2": "T2"}},
        {"labels": {"background": "zero"}},
        {"labels": {"background": 0, "whole tumor": ["1"]}},
    ],
)
def test_a_dataset_json_that_says_no_channels_or_labels_is_one_fault(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    add_nnunet(tmp_path, {**V2, **changed})
    (fault,) = find_cases([tmp_path]).faults
    assert fault.path == tmp_path / "dataset.json"
    assert next(iter(changed)) in fault.found


def test_without_dataset_json_the_way_out_is_told(tmp_path: Path) -> None:
    add_files(tmp_path, *(f"case_A1_000{index}.nii.gz" for index in range(4)))
    (fault,) = find_cases([tmp_path]).faults
    assert "dataset.json" in fault.remedy
    assert "manifest" in fault.remedy
