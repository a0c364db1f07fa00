"""Looking through a folder tree once: which NIfTI files, tables and data sets lie in it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

from brats_cache.common.errors import Fault
from brats_cache.common.names import composed
from brats_cache.discovery.file_names import is_nifti, parse_name

__all__ = ["DATASET_FOLDERS", "NiftiFile", "Tree", "walk"]

DATASET_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


class NiftiFile(NamedTuple):
    """A NIfTI file and the path whose name tells what it is.

    Attributes:
        path: The file.
        named: The same, or a folder named like a scan that holds this file alone, as in the copy
            of BraTS 2021 on Kaggle: BraTS2021_00000_flair.nii/00000057_brain_flair.nii.
    """

    path: Path
    named: Path


@dataclass(kw_only=True)
class Tree:
    """What one DATA argument holds, every list in the order of the walk.

    Attributes:
        nifti: NIfTI files outside data sets with a dataset.json.
        tables: CSV files.
        datasets: Folders with a dataset.json beside imagesTr or imagesTs.
        others: How many other visible files there are, by suffix.
        faults: Folders that cannot be read and links that lead nowhere.
    """

    nifti: list[NiftiFile] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    datasets: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


def walk(data_dir: Path) -> Tree:
    """Finds everything of interest under `data_dir`, folders and files by name.

    Hidden entries and what macOS leaves behind (`._name`, `__MACOSX`) are passed over. Links to
    folders are followed once all real folders are done, each folder once, so a loop ends and a
    folder is known by its own name rather than by a link's.
    """
    tree = Tree()
    seen: set[tuple[int, int]] = set()
    pending, links = [data_dir], list[Path]()
    while pending or links:
        folder = pending.pop() if pending else links.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = _visible_entries(folder)
        except OSError as error:
            tree.faults.append(
                Fault(
                    case="",
                    path=folder,
                    found=f"{error.strerror or error}",
                    expected="a folder that can be read",
                )
            )
            continue
        if folder != data_dir and _add_wrapped_scan(tree, folder, entries):
            continue
        subfolders = [entry for entry in entries if _is_folder(entry)]
        if _has_dataset(entries):
            tree.datasets.append(folder)
            subfolders = [entry for entry in subfolders if entry.name not in DATASET_FOLDERS]
        pending.extend(folder / e.name for e in reversed(subfolders) if not e.is_symlink())
        links.extend(folder / e.name for e in subfolders if e.is_symlink())
        for entry in entries:
            if not _is_folder(entry):
                _add_file(tree, folder, entry)
    return tree


def _visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as listing:
        return sorted((e for e in listing if _is_visible(e.name)), key=lambda e: e.name)


def _add_wrapped_scan(tree: Tree, folder: Path, entries: list[os.DirEntry[str]]) -> bool:
    """Enters the one file of a folder that is named like a scan of its parent's case."""
    role = parse_name(folder, folder)
    is_wrapper = role is not None and is_nifti(folder.name)
    if not is_wrapper:  # also BraTS2021_00000/BraTS2021_00000_flair/00000057_brain_flair.nii
        entries = [entry for entry in entries if is_nifti(entry.name)]
        is_of_case = role is not None and role.case == composed(folder.absolute().parent.name)
        if not is_of_case or len(entries) != 1:
            return False
    if not entries:
        return False
    if len(entries) == 1 and entries[0].is_file():
        tree.nifti.append(NiftiFile(folder / entries[0].name, folder))
    else:
        tree.faults.append(
            Fault(
                case="",
                path=folder,
                found=f"a folder named like a scan that holds {len(entries)} files",
                expected="one NIfTI file in it",
                remedy="Move the others away, or unpack the archive again.",
            )
        )
    return True


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _has_dataset(entries: list[os.DirEntry[str]]) -> bool:
    names = {entry.name for entry in entries}
    return "dataset.json" in names and not names.isdisjoint(("imagesTr", "imagesTs"))


def _add_file(tree: Tree, folder: Path, entry: os.DirEntry[str]) -> None:
    path = folder / entry.name
    if is_nifti(entry.name):
        if entry.is_symlink() and not os.path.exists(path):
            role = parse_name(path, path.parent)
            tree.faults.append(
                Fault(
                    case=role.case if role else "",
                    path=path,
                    found=f"a link to {os.readlink(path)}, which is not there",
                    expected="a NIfTI file",
                )
            )
        else:
            tree.nifti.append(NiftiFile(path, path))
    elif entry.name.lower().endswith(".csv") and not _is_special(path):
        tree.tables.append(path)
    else:
        tree.others[PurePath(entry.name).suffix.lower() or entry.name] += 1


def _is_special(path: Path) -> bool:
    """Whether opening `path` could wait for ever, as on a named pipe."""
    return os.path.exists(path) and not os.path.isfile(path)
