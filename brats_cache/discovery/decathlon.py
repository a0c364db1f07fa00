"""Task01 of the Medical Segmentation Decathlon: four modalities in one 4-D file, told apart by
dataset.json.

    Task01_BrainTumour/dataset.json
                       imagesTr/BRATS_001.nii.gz   (X, Y, Z, 4)
                       labelsTr/BRATS_001.nii.gz   (X, Y, Z)
                       imagesTs/BRATS_485.nii.gz
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_cache.common.errors import DataFaults, Fault
from brats_cache.discovery.namings import MASK, Claim, is_nifti, modality_of

__all__ = ["read_decathlon"]


@dataclass(frozen=True, kw_only=True)
class _Description:
    """What dataset.json says: the modality of each channel, and value and name of each label."""

    channels: tuple[str, ...]
    labels: tuple[tuple[int, str], ...]
    num_training: int | None


def read_decathlon(
    root: Path, data_dir: Path, images: Sequence[str] = ("imagesTr", "imagesTs")
) -> tuple[list[Claim], list[Fault], list[str]]:
    """Claims of the cases in the `images` folders of a Decathlon set, with faults and notes.

    A training image without a label, a label without an image, and a dataset.json that does not
    say what the channels and labels are, are faults.
    """
    try:
        description = _describe(root / "dataset.json")
    except DataFaults as error:
        return [], list(error.faults), []
    claims: list[Claim] = []
    faults: list[Fault] = []
    notes: list[str] = []
    for folder in images:
        scans = _files(root / folder)
        masks = _files(root / folder.replace("images", "labels"))
        unpaired = set(masks) - set(scans)
        if folder == "imagesTr":
            unpaired |= set(scans) - set(masks)
            if description.num_training not in (None, len(scans)):
                notes.append(
                    f"{root / 'dataset.json'}: numTraining is {description.num_training}, "
                    f"imagesTr holds {len(scans)}"
                )
        faults += [_unpaired(root, folder, case, scans, masks) for case in sorted(unpaired)]
        for case in sorted(set(scans) - unpaired):
            claims += _claims(case, scans[case], masks.get(case), data_dir, description)
    return claims, faults, notes


def _claims(
    case: str, scan: Path, mask: Path | None, data_dir: Path, description: _Description
) -> list[Claim]:
    common: dict[str, Any] = {
        "case": case,
        "data_dir": data_dir,
        "naming": "msd",
        "labels": description.labels,
    }
    claims = [
        Claim(role=role, path=scan, channel=channel, **common)
        for channel, role in enumerate(description.channels)
    ]
    return claims + ([Claim(role=MASK, path=mask, **common)] if mask else [])


def _files(folder: Path) -> dict[str, Path]:
    """The visible NIfTI files of a folder by stem; nothing where the folder is not there."""
    if not folder.is_dir():
        return {}
    names = [n for n in os.listdir(folder) if is_nifti(n) and not n.startswith(".")]
    return {name[: name.lower().rindex(".nii")]: folder / name for name in sorted(names)}


def _unpaired(
    root: Path, folder: str, case: str, scans: dict[str, Path], masks: dict[str, Path]
) -> Fault:
    labels = folder.replace("images", "labels")
    has, lacks = (folder, labels) if case in scans else (labels, folder)
    path = scans.get(case) or masks[case]
    return Fault(
        case=case,
        path=path,
        found=f"a file in {has} and none in {lacks}",
        expected=str(root / lacks / path.name),
        remedy="Unpack the archive again, or move the file out of the set.",
    )


def _describe(path: Path) -> _Description:
    """Read dataset.json; raises DataFaults naming the file, and the line where one is at fault."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise _broken(path, f"line {error.lineno}: {error.msg}", "JSON") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(path, str(error), "JSON in UTF-8") from error
    content = content if isinstance(content, dict) else {}
    channels = _channels(path, content.get("modality"))
    labels = content.get("labels")
    if not isinstance(labels, dict) or not all(value.isdecimal() for value in labels):
        expected = '"labels" with a name for each value, such as {"0": "background"}'
        raise _broken(path, f'"labels": {json.dumps(labels)}', expected)
    num_training = content.get("numTraining")
    return _Description(
        channels=channels,
        labels=tuple(sorted((int(value), str(name)) for value, name in labels.items())),
        num_training=num_training if isinstance(num_training, int) else None,
    )


def _channels(path: Path, modality: object) -> tuple[str, ...]:
    expected = '"modality" with one of FLAIR, T1w, t1gd, T2w for each of "0", "1", …, each once'
    fault = _broken(path, f'"modality": {json.dumps(modality)}', expected)
    if not isinstance(modality, dict) or set(modality) != {str(i) for i in range(len(modality))}:
        raise fault
    channels = [modality_of(str(modality[str(i)])) for i in range(len(modality))]
    known = tuple(channel for channel in channels if channel is not None)
    if not known or len(set(known)) < len(channels):
        raise fault
    return known


def _broken(path: Path, found: str, expected: str) -> DataFaults:
    return DataFaults([Fault(case="", path=path, found=found, expected=expected)])
