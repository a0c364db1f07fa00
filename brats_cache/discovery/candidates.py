"""Candidate masks: files that could be the mask of a case that has none, though no rule says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from brats_cache.discovery.file_names import begins_with, stem_of, words_of
from brats_cache.discovery.folder_names import case_folder_of
from brats_cache.discovery.folders import NiftiFile
from brats_cache.discovery.group import CaseFiles
from brats_cache.discovery.mask_names import is_known_non_mask
from brats_cache.discovery.namings import MASK

__all__ = ["find_candidates"]


def find_candidates(
    cases: Mapping[str, CaseFiles], files: Iterable[NiftiFile]
) -> dict[str, tuple[Path, ...]]:
    """Finds the files that could be masks of cases without one.

    A file belongs to the case whose id begins its name, wherever it lies, else to the only case
    in its folder or in the nearest folder above that holds scans. Names that are known to be
    something else, such as x_ADC or x_brain_mask, are left out.

    Args:
        cases: By id in lower case.
        files: NIfTI files without a role in a case.

    Returns:
        Files by the key of the case, in the order of `files`.
    """
    in_folder: dict[Path, set[str]] = defaultdict(set)
    for key, one in cases.items():
        for role, members in one.roles.items():
            for member in members if role != MASK else ():
                in_folder[member.folder].add(key)
                in_folder[case_folder_of(member.folder)].add(key)
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        stem = stem_of(file.named.name)
        owner = _by_name(cases, stem) or _by_folder(in_folder, file.named.parent)
        if owner is None or MASK in cases[owner].roles:
            continue
        case_id = cases[owner].id
        rest = stem[len(case_id) :] if begins_with(stem, case_id) else stem
        if not is_known_non_mask(words_of(rest)):
            found[owner].append(file.path)
    return {key: tuple(paths) for key, paths in found.items()}


def _by_name(cases: Mapping[str, CaseFiles], stem: str) -> str | None:
    """The longest case id that begins a name."""
    for end in range(len(stem), 0, -1):
        if stem[:end].lower() in cases and begins_with(stem, stem[:end]):
            return stem[:end].lower()
    return None


def _by_folder(in_folder: Mapping[Path, set[str]], folder: Path) -> str | None:
    """The only case of the nearest folder with scans; none where it has several."""
    for one in (folder, *folder.parents):
        if one in in_folder:
            keys = in_folder[one]
            return next(iter(keys)) if len(keys) == 1 else None
    return None
