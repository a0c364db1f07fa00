"""Gathering: every file under all DATA arguments, with the role that its name gives it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from brats_cache.common.errors import Fault
from brats_cache.common.text import first_few
from brats_cache.discovery.datasets import IMAGE_FOLDERS, read_dataset
from brats_cache.discovery.file_names import FileRole, parse_name
from brats_cache.discovery.folders import NiftiFile, Tree, walk
from brats_cache.discovery.namings import MASK

__all__ = ["Gathered", "gather"]

_NAME_THE_FOLDER = "Put the scans there, or name the folder where they are."
_NAME_ITS_FOLDER = "Name the folder of the scans; unpack archives first."
_TEXTS = {".md", ".txt"}  # such as the page of the folder data/


@dataclass(kw_only=True)
class Gathered:
    """Everything found under all DATA arguments, before it is judged.

    Attributes:
        roles: Files with a role, in the order of the walk.
        unknown: NIfTI files whose names tell no role.
        tables: CSV files.
        faults: What cannot be read.
        notes: What a person should know besides.
    """

    roles: list[FileRole] = field(default_factory=list)
    unknown: list[NiftiFile] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gather(
    data: Sequence[Path], *, mask_words: Collection[str] = (), with_masks: bool = True
) -> Gathered:
    """Finds what all DATA arguments hold; one that holds no case is a fault.

    Args:
        data: The DATA arguments.
        mask_words: Words besides the known ones that mean a mask, as `plain_word` gives them.
        with_masks: Whether masks matter; without, they are passed over.
    """
    gathered = Gathered()
    for data_dir in data:
        if data_dir.is_dir():
            _gather_one(gathered, data_dir, mask_words, with_masks)
            continue
        is_file = data_dir.exists()
        gathered.faults.append(
            Fault(
                case="",
                path=data_dir,
                found="a file" if is_file else "no such folder",
                expected="a folder of cases",
                remedy=_NAME_ITS_FOLDER if is_file else _NAME_THE_FOLDER,
            )
        )
    return gathered


def _gather_one(
    gathered: Gathered, data_dir: Path, mask_words: Collection[str], with_masks: bool
) -> None:
    tree = walk(data_dir)
    datasets: list[tuple[Path, tuple[str, ...]]]
    datasets = [(root, IMAGE_FOLDERS) for root in tree.datasets]
    own = data_dir.absolute()
    if own.name in IMAGE_FOLDERS and (own.parent / "dataset.json").is_file():
        datasets, tree.nifti = [(own.parent, (own.name,))], []
    roles: list[FileRole] = []
    has_role = False
    faults = [fault for fault in tree.faults if with_masks or not _is_mask(fault.path, data_dir)]
    for root, folders in datasets:
        dataset = read_dataset(root, data_dir, folders, with_masks=with_masks)
        roles += dataset.roles
        faults += dataset.faults
        gathered.notes += dataset.notes
    for path, named in tree.nifti:
        role = parse_name(path, data_dir, named=named, mask_words=mask_words)
        if role is None:
            gathered.unknown.append(NiftiFile(path, named))
            continue
        has_role = True
        if with_masks or role.role != MASK:
            roles.append(role)
    if not roles and not has_role and not faults:
        faults.append(_no_cases(data_dir, tree))
    gathered.roles += roles
    gathered.tables += tree.tables
    gathered.faults += faults


def _is_mask(path: Path | None, data_dir: Path) -> bool:
    role = parse_name(path, data_dir) if path else None
    return role is not None and role.role == MASK


def _no_cases(data_dir: Path, tree: Tree) -> Fault:
    counts = [f"{count} {suffix}" for suffix, count in tree.others.most_common(3)]
    if tree.nifti:
        names = first_few([file.named.name for file in tree.nifti], 3)
        counts.insert(0, f"{len(tree.nifti)} NIfTI files that name no modality ({names})")
    remedy = _NAME_THE_FOLDER
    if tree.nifti:
        remedy = (
            "Rename them, or name each file in a manifest (docs/data.md); files of nnU-Net such as "
            "case_0000.nii.gz need the dataset.json beside imagesTr."
        )
    elif set(tree.others) - _TEXTS:
        remedy = "Unpack archives, and convert other formats to NIfTI, first."
    return Fault(
        case="",
        path=data_dir,
        found=f"no cases, only {', '.join(counts)}" if counts else "no files",
        expected="cases such as BraTS20_Training_001/BraTS20_Training_001_flair.nii",
        remedy=remedy,
    )
