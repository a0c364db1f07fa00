"""Looking through a folder tree once: which NIfTI files, tables and Decathlon sets lie in it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from brats_cache.common.errors import Fault
from brats_cache.discovery.namings import is_nifti, parse_name

__all__ = ["DECATHLON_FOLDERS", "Tree", "walk"]

DECATHLON_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


@dataclass(kw_only=True)
class Tree:
    """What one DATA argument holds, every list in the order of the walk.

    nifti       NIfTI files outside Decathlon sets
    tables      CSV files
    decathlons  folders with a dataset.json beside imagesTr or imagesTs
    others      how many other visible files there are, by suffix
    faults      folders that cannot be read and links that lead nowhere
    """

    nifti: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    decathlons: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


def walk(data_dir: Path) -> Tree:
    """Everything of interest under `data_dir`, folders and files by name.

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
            with os.scandir(folder) as listing:
                entries = sorted((e for e in listing if _is_visible(e.name)), key=lambda e: e.name)
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
        subfolders = [entry for entry in entries if _is_folder(entry)]
        is_decathlon = _has_decathlon(entries)
        if is_decathlon:
            tree.decathlons.append(folder)
            subfolders = [entry for entry in subfolders if entry.name not in DECATHLON_FOLDERS]
        pending.extend(folder / e.name for e in reversed(subfolders) if not e.is_symlink())
        links.extend(folder / e.name for e in subfolders if e.is_symlink())
        for entry in entries:
            if not _is_folder(entry):
                _note_file(tree, folder, entry)
    return tree


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _has_decathlon(entries: list[os.DirEntry[str]]) -> bool:
    names = {entry.name for entry in entries}
    return "dataset.json" in names and not names.isdisjoint(("imagesTr", "imagesTs"))


def _note_file(tree: Tree, folder: Path, entry: os.DirEntry[str]) -> None:
    path = folder / entry.name
    if is_nifti(entry.name):
        if entry.is_symlink() and not os.path.exists(path):
            claim = parse_name(path, path.parent)
            tree.faults.append(
                Fault(
                    case=claim.case if claim else "",
                    path=path,
                    found=f"a link to {os.readlink(path)}, which is not there",
                    expected="a NIfTI file",
                )
            )
        else:
            tree.nifti.append(path)
    elif entry.name.lower().endswith(".csv") and not _is_special(path):
        tree.tables.append(path)
    else:
        tree.others[PurePath(entry.name).suffix.lower() or entry.name] += 1


def _is_special(path: Path) -> bool:
    """Whether opening `path` could wait for ever, as on a named pipe."""
    return os.path.exists(path) and not os.path.isfile(path)
