"""Grouping: the files of one case together, and masks that belong to no images.

Ids are compared without letter case. Where folders give the ids and one name recurs with other
files in it, the folder above enters the ids.
"""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brats_cache.common.errors import Fault
from brats_cache.discovery.file_names import FileRole, begins_with
from brats_cache.discovery.folder_names import case_folder_of, case_of_folder
from brats_cache.discovery.gather import Gathered
from brats_cache.discovery.namings import MASK, naming_of
from brats_cache.discovery.patients import is_session

__all__ = ["CaseFiles", "Groups", "group"]


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """All files of one case id.

    Attributes:
        id: Id of the case.
        roles: Files by role.
        folder: The folder of its first image.
        file_names: Names of the NIfTI files in its folders, to be quoted as found.
    """

    id: str
    roles: Mapping[str, Sequence[FileRole]]
    folder: Path
    file_names: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The cases that have images, and what else there is.

    Attributes:
        cases: By id in lower case, in the order of the ids.
        stray_masks: Masks whose names give them to no case with images.
        faults: Cases whose mask has the name of another one.
    """

    cases: Mapping[str, CaseFiles]
    stray_masks: Sequence[FileRole]
    faults: Sequence[Fault]


def group(gathered: Gathered) -> Groups:
    """Puts together the files of each case.

    A mask named by its role alone belongs to the only case in its folder. A mask of another id in
    the folder of a single case without one is a fault, and the case is left out. Other masks
    without images are strays.

    Args:
        gathered: All files.
    """
    by_id: dict[str, list[FileRole]] = defaultdict(list)
    for role in _with_host_ids(_with_distinct_ids(gathered.roles)):
        by_id[role.case.lower()].append(role)
    names: dict[Path, list[str]] = defaultdict(list)
    ids: dict[Path, set[str]] = defaultdict(set)
    for key, roles in by_id.items():
        for role in roles:
            ids[role.folder].add(key)
            names[role.folder].append(role.path.name)
    for file in gathered.unknown:
        names[file.named.parent].append(file.path.name)
    cases: dict[str, CaseFiles] = {}
    strays: list[FileRole] = []
    for key, roles in sorted(by_id.items()):
        if all(role.role == MASK for role in roles):
            strays += roles
            continue
        folders = dict.fromkeys(role.folder for role in roles)
        own = {role.path.name for role in roles}
        cases[key] = CaseFiles(
            id=roles[0].case,
            roles=_by_role(roles),
            folder=next(role.folder for role in roles if role.role != MASK),
            file_names=list(
                dict.fromkeys(n for f in folders for n in names[f] if n in own or len(ids[f]) == 1)
            ),
        )
    return _judge_strays(cases, strays)


def _by_role(roles: Iterable[FileRole]) -> dict[str, list[FileRole]]:
    by_role: dict[str, list[FileRole]] = {}
    for role in roles:
        same = by_role.setdefault(role.role, [])
        if (role.path, role.channel) not in [(other.path, other.channel) for other in same]:
            same.append(role)
    return by_role


def _with_distinct_ids(roles: Sequence[FileRole]) -> list[FileRole]:
    """Prefixes the parent folder to ids that several folders share."""
    sharing: dict[tuple[str, bool], list[FileRole]] = defaultdict(list)
    for role in roles:
        sharing[role.case.lower(), role.is_named_by_folder].append(role)
    renamed: dict[int, FileRole] = {}
    for (_, is_named_by_folder), same in sharing.items():
        folders = {case_folder_of(role.folder) for role in same if role.role != MASK}
        if len(folders) < 2 or not _has_conflict(same):
            continue
        if is_named_by_folder:
            renamed |= {id(old): new for old, new in zip(same, _distinct(same), strict=True)}
        elif all(is_session(folder.name) for folder in folders):
            renamed |= {id(role): _with_session(role) for role in same}
    return [renamed.get(id(role), role) for role in roles]


def _with_session(role: FileRole) -> FileRole:
    """The role of a file named after its patient alone, with the session folder in its id."""
    folder = case_folder_of(role.folder).name
    case = f"{role.case}_{folder}" if is_session(folder) else role.case
    return replace(role, case=case, patient=role.patient or role.case)


def _distinct(same: list[FileRole]) -> list[FileRole]:
    depth, current = 0, same
    most = max(len(role.folder.absolute().parts) for role in same)
    while depth < most and _has_conflict(current):
        depth += 1
        current = [_renamed(role, depth) for role in same]
    return current


def _renamed(role: FileRole, depth: int) -> FileRole:
    named = case_of_folder(role.folder, depth)
    return replace(role, case=named.id, patient=named.patient, naming=naming_of(named.id))


def _has_conflict(roles: Iterable[FileRole]) -> bool:
    """Whether one id has different files of one role in the folders of different cases."""
    first: dict[tuple[str, str, int], FileRole] = {}
    for role in roles:
        key = (role.case.lower(), role.role, role.rank)
        other = first.setdefault(key, role)
        if case_folder_of(other.folder) == case_folder_of(role.folder):
            continue
        if not other.path.samefile(role.path) and not filecmp.cmp(
            other.path, role.path, shallow=False
        ):
            return True
    return False


def _with_host_ids(roles: Sequence[FileRole]) -> list[FileRole]:
    """Gives masks without an id to the only case in their folder."""
    images: dict[Path, dict[str, str]] = defaultdict(dict)
    for role in roles:
        if role.role != MASK:
            images[role.folder][role.case.lower()] = role.case
    settled = []
    for role in roles:
        hosts = images.get(role.folder, {})
        is_bare = role.role == MASK and role.is_named_by_folder and not role.is_misnamed
        if is_bare and len(hosts) == 1:
            case = next(iter(hosts.values()))
            role = replace(role, case=case, naming=naming_of(case))
        settled.append(role)
    return settled


def _judge_strays(cases: dict[str, CaseFiles], strays: Sequence[FileRole]) -> Groups:
    beside: dict[Path, set[str]] = defaultdict(set)
    for key, one in cases.items():
        for role, files in one.roles.items():
            for file in files if role != MASK else ():
                beside[file.folder].add(key)
    faults: dict[str, Fault] = {}
    rest = []
    for stray in strays:
        hosts = sorted(beside.get(stray.folder, ()))
        host = cases[hosts[0]] if len(hosts) == 1 else None
        is_own = host is not None and begins_with(stray.case, host.id)
        if host is None or is_own or MASK in host.roles:
            rest.append(stray)
            continue
        faults.setdefault(
            hosts[0],
            Fault(
                case=host.id,
                path=stray.folder,
                found=f"no segmentation of this name, but {stray.path.name}",
                expected=f"{host.id}_seg.nii.gz",
                remedy="Rename it if it belongs to this case; move it away if not.",
            ),
        )
    sound = {key: one for key, one in cases.items() if key not in faults}
    return Groups(cases=sound, stray_masks=rest, faults=tuple(faults.values()))
