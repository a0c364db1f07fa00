"""A set of the Medical Segmentation Decathlon: 4-D files, told apart by dataset.json."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from brats_cache.discovery.cases import find_cases


def add_decathlon(root: Path, train: tuple[str, ...], test: tuple[str, ...]) -> Path:
    description = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {
            "0": "background",
            "1": "edema",
            "2": "non-enhancing tumor",
            "3": "enhancing tumour",
        },
        "numTraining": len(train),
    }
    for folder, cases in (("imagesTr", train), ("labelsTr", train), ("imagesTs", test)):
        (root / folder).mkdir(parents=True)
        for case in cases:
            (root / folder / f"{case}.nii.gz").write_text(f"{folder} {case}")
            (root / folder / f"._{case}.nii.gz").write_text("litter")
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def test_decathlon(tmp_path: Path) -> None:
    root = add_decathlon(tmp_path / "Task01", ("BRATS_001", "BRATS_002"), ("BRATS_485",))
    found = find_cases([tmp_path], ("t1ce", "flair"))
    assert (found.faults, found.notes) == ((), ())
    assert [case.id for case in found.cases] == ["BRATS_001", "BRATS_002", "BRATS_485"]
    first, _, last = found.cases
    assert {name: scan.channel for name, scan in first.images.items()} == {"t1ce": 2, "flair": 0}
    assert first.images["t1ce"].path == root / "imagesTr" / "BRATS_001.nii.gz"
    assert first.mask is not None
    assert first.mask.path == root / "labelsTr" / "BRATS_001.nii.gz"
    assert first.mask.channel is None
    assert first.naming == "msd"
    assert first.labels[1] == (1, "edema")
    assert last.mask is None


def test_a_folder_of_decathlon_images_is_a_data_argument_too(tmp_path: Path) -> None:
    root = add_decathlon(tmp_path, ("BRATS_001",), ("BRATS_485", "BRATS_486"))
    found = find_cases([root / "imagesTs"])
    assert found.faults == ()
    assert [case.id for case in found.cases] == ["BRATS_485", "BRATS_486"]


def test_a_file_with_and_without_gzip_is_taken_once_or_refused(tmp_path: Path) -> None:
    root = add_decathlon(tmp_path, ("BRATS_001", "BRATS_002"), ())
    packed = root / "labelsTr" / "BRATS_001.nii.gz"
    packed.write_bytes(gzip.compress(b"a mask"))
    plain = packed.with_suffix("")
    plain.write_bytes(b"a mask")
    found = find_cases([tmp_path])
    assert found.faults == ()
    assert [note for note in found.notes if "taken once" in note]
    plain.write_bytes(b"a mask, corrected")
    (fault,) = find_cases([tmp_path]).faults
    assert fault.case == "BRATS_001"
    assert fault.found == "two different files, BRATS_001.nii and BRATS_001.nii.gz"


def test_a_decathlon_image_without_its_label_is_a_fault(tmp_path: Path) -> None:
    root = add_decathlon(tmp_path, ("BRATS_001", "BRATS_002"), ())
    (root / "labelsTr" / "BRATS_002.nii.gz").unlink()
    found = find_cases([tmp_path])
    assert [case.id for case in found.cases] == ["BRATS_001"]
    assert [(fault.case, fault.path) for fault in found.faults] == [
        ("BRATS_002", root / "imagesTr" / "BRATS_002.nii.gz")
    ]


@pytest.mark.parametrize(
    "content",
    [
        '{\n"modality": }',
        '{"labels": {"0": "background"}}',
        '{"modality": {"0": "CT"}, "labels": {"0": "background"}}',
        '{"modality": {"0": "FLAIR", "1": "flair"}, "labels": {"0": "background"}}',
        '{"modality": {"0": "FLAIR"}, "labels": {"background": 0}}',
        "[]",
    ],
)
def test_a_broken_dataset_json_is_one_fault(tmp_path: Path, content: str) -> None:
    root = add_decathlon(tmp_path, ("BRATS_001",), ())
    (root / "dataset.json").write_text(content)
    (fault,) = find_cases([tmp_path]).faults
    assert fault.path == root / "dataset.json"
    if content.startswith("{\n"):
        assert "line 2" in fault.found


def test_a_case_number_of_four_digits_is_no_channel(tmp_path: Path) -> None:
    add_decathlon(tmp_path, ("BRATS_9001", "BRATS_9002"), ("BRATS_9485",))
    found = find_cases([tmp_path])
    assert found.faults == ()
    assert [case.id for case in found.cases] == ["BRATS_9001", "BRATS_9002", "BRATS_9485"]
    assert found.cases[0].images["t1"].channel == 1
