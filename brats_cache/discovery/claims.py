"""From folders to groups of claims, one group a case: gathering, stray masks, one file a role.

`gather` looks through every DATA argument, `group` puts together what claims to be one case, and
`choose` settles which file takes which role or says why none can.
"""

from __future__ import annotations

import filecmp
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from brats_cache.common.errors import Fault
from brats_cache.common.text import first_few
from brats_cache.discovery.decathlon import read_decathlon
from brats_cache.discovery.folders import Tree, walk
from brats_cache.discovery.namings import MASK, MODALITIES, Claim, parse_name

__all__ = ["Gathered", "Group", "choose", "gather", "group"]

_EXAMPLES = {
    "t1": "*_t1.nii.gz or *-t1n.nii.gz",
    "t1ce": "*_t1ce.nii.gz or *-t1c.nii.gz",
    "t2": "*_t2.nii.gz or *-t2w.nii.gz",
    "flair": "*_flair.nii.gz or *-t2f.nii.gz",
}


@dataclass(kw_only=True)
class Gathered:
    """Everything found under all DATA arguments, before it is judged.

    claims  of roles, in the order of the walk
    unfit   NIfTI files that fit no case
    tables  CSV files
    """

    claims: list[Claim] = field(default_factory=list)
    unfit: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Group:
    """All claims of one case id by role, its folder, and the NIfTI files to quote as found."""

    id: str
    claims: Mapping[str, Sequence[Claim]]
    folder: Path
    file_names: Sequence[str]


def gather(data: Sequence[Path]) -> Gathered:
    """What all DATA arguments hold; one that holds no case is a fault."""
    gathered = Gathered()
    for data_dir in data:
        if data_dir.is_dir():
            _gather_one(gathered, data_dir)
            continue
        found = "a file" if data_dir.exists() else "no such folder"
        gathered.faults.append(
            Fault(case="", path=data_dir, found=found, expected="a folder of cases")
        )
    return gathered


def _gather_one(gathered: Gathered, data_dir: Path) -> None:
    tree = walk(data_dir)
    sets: list[tuple[Path, tuple[str, ...]]]
    sets = [(root, ("imagesTr", "imagesTs")) for root in tree.decathlons]
    own = data_dir.absolute()
    if own.name in ("imagesTr", "imagesTs") and (own.parent / "dataset.json").is_file():
        sets, tree.nifti = [(own.parent, (own.name,))], []
    claims: list[Claim] = []
    faults = list(tree.faults)
    for root, images in sets:
        set_claims, set_faults, set_notes = read_decathlon(root, data_dir, images)
        claims += set_claims
        faults += set_faults
        gathered.notes += set_notes
    for path in tree.nifti:
        claim = parse_name(path, data_dir)
        if claim:
            claims.append(claim)
        else:
            gathered.unfit.append(path)
    if not claims and not faults:
        faults.append(_no_cases(data_dir, tree))
    gathered.claims += claims
    gathered.tables += tree.tables
    gathered.faults += faults


def _no_cases(data_dir: Path, tree: Tree) -> Fault:
    counts = [f"{count} {suffix}" for suffix, count in tree.others.most_common(3)]
    if tree.nifti:
        names = first_few([path.name for path in tree.nifti])
        counts.insert(0, f"{len(tree.nifti)} NIfTI files that name no modality ({names})")
    is_foreign = bool(tree.others) and not tree.nifti
    return Fault(
        case="",
        path=data_dir,
        found=f"no cases, only {', '.join(counts)}" if counts else "no files",
        expected="cases such as BraTS20_Training_001/BraTS20_Training_001_flair.nii",
        remedy="Unpack archives, and convert other formats to NIfTI, first." if is_foreign else "",
    )


def group(gathered: Gathered) -> list[Group]:
    """The groups in order of their ids, which are compared without letter case.

    A mask whose id has no images is no case of its own where it lies beside other cases: beside
    one case without a mask it is that case's fault (and the case is left out), else it fits none.
    Both are entered into `gathered`.
    """
    by_id: dict[str, list[Claim]] = defaultdict(list)
    names: dict[Path, list[str]] = defaultdict(list)
    ids: dict[Path, set[str]] = defaultdict(set)
    for claim in gathered.claims:
        by_id[claim.case.lower()].append(claim)
        ids[claim.path.parent].add(claim.case.lower())
    for path in dict.fromkeys([claim.path for claim in gathered.claims] + gathered.unfit):
        names[path.parent].append(path.name)
    groups = {}
    for key, claims in sorted(by_id.items()):
        roles: dict[str, list[Claim]] = {}
        for claim in claims:
            same = roles.setdefault(claim.role, [])
            if (claim.path, claim.channel) not in [(c.path, c.channel) for c in same]:
                same.append(claim)
        own = {claim.path.name for claim in claims}
        folders = dict.fromkeys(claim.path.parent for claim in claims)
        groups[key] = Group(
            id=claims[0].case,
            claims=roles,
            folder=claims[0].path.parent,
            file_names=[n for f in folders for n in names[f] if n in own or len(ids[f]) == 1],
        )
    _place_stray_masks(gathered, groups)
    return list(groups.values())


def _place_stray_masks(gathered: Gathered, groups: dict[str, Group]) -> None:
    """Take out of `groups` the masks without images that lie beside cases, as `group` describes."""
    beside: dict[Path, set[str]] = defaultdict(set)
    strays = []
    for key, one in groups.items():
        if set(one.claims) == {MASK}:
            strays.append(key)
        for role, claims in one.claims.items():
            for claim in claims if role != MASK else ():
                beside[claim.path.parent].add(key)
    for stray in [groups.pop(key) for key in strays if groups[key].folder in beside]:
        paths = [claim.path for claim in stray.claims[MASK]]
        hosts = sorted(beside[stray.folder])
        host = groups.get(hosts[0])
        if len(hosts) > 1 or host is None or MASK in host.claims:
            gathered.unfit += paths
            continue
        del groups[hosts[0]]
        gathered.faults.append(
            Fault(
                case=host.id,
                path=stray.folder,
                found=f"no segmentation of this name, but {paths[0].name}",
                expected=f"{host.id}_seg.nii.gz",
                remedy="Rename it if it belongs to this case; move it away if not.",
            )
        )


def choose(
    one: Group, modalities: Sequence[str]
) -> tuple[dict[str, Claim], tuple[Fault, ...], bool]:
    """The claim that takes each role, the faults that prevent it, and whether there were two equal
    files for a role, of which the first is taken."""
    chosen: dict[str, Claim] = {}
    clashes: dict[str, tuple[Path, Path]] = {}
    is_twice = False
    for role in (*modalities, MASK):
        claims = one.claims.get(role, ())
        for other in claims[1:]:
            pair = (claims[0].path, other.path)
            if os.path.samefile(*pair):
                continue
            is_twice = True
            # Sizes are compared first, so that only equal ones cost a reading.
            if not filecmp.cmp(*pair, shallow=False):
                clashes.setdefault(role, pair)
        if claims:
            chosen[role] = claims[0]
    missing = [name for name in modalities if name not in chosen]
    faults = [_missing(one, missing)] if missing else []
    return chosen, (*faults, *_clashes(one, clashes)), is_twice


def _missing(one: Group, missing: Sequence[str]) -> Fault:
    has = [role for role in (*MODALITIES, MASK) if role in one.claims]
    usable = [role for role in has if role != MASK]
    remedy = f"Add the files, or ask for --modalities {','.join(usable)}." if usable else ""
    return Fault(
        case=one.id,
        path=one.folder,
        found=f"no {', '.join(missing)}, only {', '.join(has)} ({first_few(one.file_names)})",
        expected="; ".join(_EXAMPLES[name] for name in missing),
        remedy=remedy,
    )


def _clashes(one: Group, clashes: Mapping[str, tuple[Path, Path]]) -> list[Fault]:
    """A fault for each role two files claim, one for all roles where the id is in two folders."""
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
