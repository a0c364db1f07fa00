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
from brats_cache.discovery.packed import is_unpacked

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
        scans, packed = _files(root / folder)
        masks, packed_masks = (
            _files(root / folder.replace("images", "labels")) if with_masks else ({}, {})
        )
        packed |= packed_masks
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
            images = [scans[case]] if channels is None else channels[case].values()
            _compare_packed(case, [*images, *filter(None, [masks.get(case)])], packed, found)
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


def _files(folder: Path) -> tuple[dict[str, Path], dict[Path, Path]]:
    """The visible NIfTI files of a folder by stem; nothing where the folder is not there.

    Returns:
        The files, and for each that lies there twice, as .nii and as .nii.gz, the other one.
    """
    files, packed = dict[str, Path](), dict[Path, Path]()
    names = os.listdir(folder) if folder.is_dir() else []
    for name in sorted(n for n in names if is_nifti(n) and not n.startswith(".")):
        kept = files.setdefault(stem_of(name), folder / name)
        if kept.name != name:
            packed[kept] = folder / name
    return files, packed


def _compare_packed(
    case: str, files: Iterable[Path], packed: Mapping[Path, Path], found: DatasetCases
) -> None:
    """A note for a file that lies there with and without gzip, a fault where they differ."""
    for file in files:
        if (other := packed.get(file)) is None:
            continue
        if is_unpacked(file, other):
            found.notes.append(f"{other} has the content of {file.name}: taken once")
        else:
            found.faults.append(
                Fault(
                    case=case,
                    path=file,
                    found=f"two different files, {file.name} and {other.name}",
                    expected="one file",
                    remedy="Move one of them out of the set.",
                )
            )


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
