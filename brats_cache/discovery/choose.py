"""Choosing: which file of a case takes each role, or why none can."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brats_cache.common.errors import Fault
from brats_cache.common.text import first_few
from brats_cache.discovery.file_names import FileRole
from brats_cache.discovery.group import CaseFiles
from brats_cache.discovery.namings import MASK, MODALITIES
from brats_cache.discovery.packed import is_unpacked

__all__ = ["Choice", "choose"]

_EXAMPLES = {
    "t1": "*_t1.nii.gz or *-t1n.nii.gz",
    "t1ce": "*_t1ce.nii.gz or *-t1c.nii.gz",
    "t2": "*_t2.nii.gz or *-t2w.nii.gz",
    "flair": "*_flair.nii.gz or *-t2f.nii.gz",
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The file that takes each role of a case.

    Attributes:
        files: By role.
        faults: What prevents a choice.
        is_twice: Whether a role had two equal files in different folders.
        unpacked: Names of files that are there both as .nii and as .nii.gz, with equal content.
        passed_over: For each role with files of several ranks, the chosen one and one of the rest.
    """

    files: Mapping[str, FileRole]
    faults: Sequence[Fault]
    is_twice: bool
    unpacked: Sequence[str]
    passed_over: Mapping[str, tuple[FileRole, FileRole]]


def choose(one: CaseFiles, modalities: Sequence[str]) -> Choice:
    """Chooses the file of each role.

    Args:
        one: All files of the case.
        modalities: The modalities it must have.
    """
    files: dict[str, FileRole] = {}
    clashes: dict[str, tuple[Path, Path]] = {}
    passed_over: dict[str, tuple[FileRole, FileRole]] = {}
    unpacked: list[str] = []
    is_twice = False
    for role in (*modalities, MASK):
        ranked = sorted(one.roles.get(role, ()), key=lambda file: file.rank)
        best = [file for file in ranked if file.rank == ranked[0].rank]
        for other in best[1:]:
            pair = (best[0].path, other.path)
            if os.path.samefile(*pair):
                continue
            if is_unpacked(*pair):
                unpacked.append(pair[0].name)
            # Sizes are compared first, so that only equal ones cost a reading.
            elif filecmp.cmp(*pair, shallow=False):
                is_twice = True
            else:
                clashes.setdefault(role, pair)
        if ranked:
            files[role] = best[0]
        if len(best) < len(ranked):
            passed_over[role] = (best[0], ranked[len(best)])
    missing = [name for name in modalities if name not in files]
    faults = [_missing(one, missing)] if missing else []
    return Choice(
        files=files,
        faults=(*faults, *_clashes(one, clashes)),
        is_twice=is_twice,
        unpacked=unpacked,
        passed_over=passed_over,
    )


def _missing(one: CaseFiles, missing: Sequence[str]) -> Fault:
    has = [role for role in (*MODALITIES, MASK) if role in one.roles]
    usable = [role for role in has if role != MASK]
    remedy = f"Add the files, or ask for --modalities {','.join(usable)}." if usable else ""
    return Fault(
        case=one.id,
        path=one.folder,
        found=f"no {', '.join(missing)}, only {', '.join(has)} ({first_few(one.file_names)})",
        expected="; ".join(_EXAMPLES[name] for name in missing),
        remedy=remedy,
    )


def _clashes(one: CaseFiles, clashes: Mapping[str, tuple[Path, Path]]) -> list[Fault]:
    """A fault for each role of two files, one for all roles where the id is in two folders."""
    faults: dict[object, Fault] = {}
    for role, (first, second) in clashes.items():
        if first.parent == second.parent:
            faults[role] = Fault(
                case=one.id,
                path=first.parent,
                found=f"two different files for {role}, {first.name} and {second.name}",
                expected="one",
                remedy="Move the wrong one away.",
            )
            continue
        fault = Fault(
            case=one.id,
            path=first.parent,
            found=f"one id with different files, {first} and {second}",
            expected="one case for one id",
            remedy="Rename one case, or leave one folder out.",
        )
        faults.setdefault((first.parent, second.parent), fault)
    return list(faults.values())
