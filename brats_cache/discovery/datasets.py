"""Data sets with a dataset.json: their cases, each training image with its label."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from brats_cache.common.errors import DataFaults, Fault
from brats_cache.discovery.dataset_json import read_dataset_json
from brats_cache.discovery.decathlon import decathlon_roles
from brats_cache.discovery.file_names import FileRole, is_nifti, stem_of
from brats_cache.discovery.nnunet import group_channels, nnunet_roles

__all__ = ["IMAGE_FOLDERS", "DatasetCases", "read_dataset"]

IMAGE_FOLDERS = ("imagesTr", "imagesTs")


@dataclass(kw_only=True)
class DatasetCases:
    """What a data set holds.

    Attributes:
        roles: A file in a role of a case, each.
        faults: What is wrong with cases, or with dataset.json.
        notes: What a person should know besides.
    """

    roles: list[FileRole] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_dataset(
    root: Path,
    data_dir: Path,
    folders: Sequence[str] = IMAGE_FOLDERS,
    *,
    with_masks: bool = True,
) -> DatasetCases:
    """Reads the cases of a Decathlon set or of a raw folder of nnU-Net.

    Args:
        root: The folder of dataset.json.
        data_dir: The DATA argument that holds it.
        folders: Which of `IMAGE_FOLDERS` to read.
        with_masks: Whether labels matter; without, none is looked for.

    Returns:
        The cases; a training image without a label, a label without an image, and a dataset.json
        that does not say what channels and labels are, are faults.
    """
    found = DatasetCases()
    path = root / "dataset.json"
    try:
        description = read_dataset_json(path)
    except DataFaults as error:
        found.faults += error.faults
        return found
    for folder in folders:
        scans = _files(root / folder)
        masks = _files(root / folder.replace("images", "labels")) if with_masks else {}
        channels = group_channels(scans, description)
        cases = scans if channels is None else channels
        unpaired = set(masks) - set(cases)
        if folder == "imagesTr":
            if with_masks:
                unpaired |= set(cases) - set(masks)
            if description.num_training not in (None, len(cases)):
                found.notes.append(
                    f"{path}: numTraining is {description.num_training}, "
                    f"imagesTr holds {len(cases)}"
                )
        found.faults += _unpaired(root, folder, unpaired, cases, masks)
        for case in sorted(set(cases) - unpaired):
            if channels is None:
                found.roles += decathlon_roles(
                    case, scans[case], masks.get(case), data_dir, description
                )
                continue
            roles, faults = nnunet_roles(
                case, channels[case], masks.get(case), data_dir, description
            )
            found.roles += roles
            found.faults += faults
    return found


def _files(folder: Path) -> dict[str, Path]:
    """The visible NIfTI files of a folder by stem; nothing where the folder is not there."""
    if not folder.is_dir():
        return {}
    names = [n for n in os.listdir(folder) if is_nifti(n) and not n.startswith(".")]
    return {stem_of(name): folder / name for name in sorted(names)}


def _unpaired(
    root: Path,
    folder: str,
    cases: Iterable[str],
    scans: Mapping[str, object],
    masks: Mapping[str, Path],
) -> list[Fault]:
    """A fault for each of `cases`, which have an image or a label alone."""
    labels = folder.replace("images", "labels")
    faults = []
    for case in sorted(cases):
        has, lacks = (folder, labels) if case in scans else (labels, folder)
        scan = scans.get(case)
        path = masks[case] if case in masks else root / folder / f"{case}.nii.gz"
        if isinstance(scan, Path):
            path = scan
        faults.append(
            Fault(
                case=case,
                path=path,
                found=f"a file in {has} and none in {lacks}",
                expected=str(root / lacks / path.name),
                remedy="Unpack the archive again, or move the file out of the set.",
            )
        )
    return faults
