"""Finding cases: from folders to `Case` values, by names alone; no scan is opened.

Every file name claims a role of a case (`namings`), a Decathlon set several at once (`decathlon`).
Claims of one id are brought together over all DATA arguments (`claims`), checked against what was
asked for, and joined with what the tables say (`tables`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brats_cache.common.errors import BratsError, Fault
from brats_cache.common.text import first_few
from brats_cache.discovery.claims import choose, gather, group
from brats_cache.discovery.namings import MASK, MODALITIES, Claim, collection_of, patient_of
from brats_cache.discovery.tables import Tables, read_tables

__all__ = ["Case", "Findings", "Scan", "find_cases"]

_GRADE_FOLDERS = {"hgg": "HGG", "lgg": "LGG"}


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One file in one role.

    path     the NIfTI file
    channel  index along the 4th axis of a 4-D file, None for a 3-D file
    """

    path: Path
    channel: int | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One scan session of a patient.

    id        as spelled in its file names
    patient   one id for one person, also over BraTS years where a table joins them
    naming    "brats2013", "brats2017", "brats2023", "msd" or "plain"
    data_dir  the DATA argument that holds it
    images    the requested modalities, in the requested order
    mask      the segmentation, None where the case has none
    grade     "HGG", "LGG", or "" where nothing tells
    age       years, None where no table tells
    survival  as the table says, "361" or "ALIVE (361 days later)", "" where none tells
    labels    value and name of each label where a dataset.json tells
    split     "train", "val" or "test" where a manifest says so, else ""
    scheme    name of a label scheme where a manifest says so, else ""
    unclaimed of a case without a mask, the NIfTI files in its folder or whose name begins with its
              id that no rule understands: one of them could be its mask
    """

    id: str
    patient: str
    naming: str
    data_dir: Path
    images: dict[str, Scan]
    mask: Scan | None
    grade: str = ""
    age: float | None = None
    survival: str = ""
    labels: tuple[tuple[int, str], ...] = ()
    split: str = ""
    scheme: str = ""
    unclaimed: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The cases in order of their ids, the faults, and what a person should know besides.

    A case with a fault is not among the cases.
    """

    cases: tuple[Case, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]


def find_cases(
    data: Sequence[Path],
    modalities: Sequence[str] = MODALITIES,
    *,
    mask_words: Sequence[str] = (),
    with_masks: bool = True,
) -> Findings:
    """The cases under `data`, each with the requested `modalities`.

    data        folders of any nesting, or single case folders
    modalities  names of `MODALITIES`, in the order the images should have
    mask_words  words that mean a mask, besides the known ones
    with_masks  whether masks matter; without, every case has none and none is at fault

    Raises BratsError for an unknown or repeated modality, or where `data` is empty.
    """
    _check_modalities(modalities)
    if not data:
        raise BratsError("no DATA folder given; expected at least one folder of cases")
    gathered = gather([Path(data_dir) for data_dir in data])
    tables = read_tables(dict.fromkeys(gathered.tables))
    groups = group(gathered)
    faults = [*gathered.faults, *tables.faults]
    cases: list[Case] = []
    twice: list[str] = []
    notes = list(gathered.notes)
    for one in groups:
        chosen, case_faults, is_twice = choose(one, modalities)
        faults += case_faults
        if case_faults:
            continue
        if fault := _unprintable_name(one.id, chosen):
            faults.append(fault)
            continue
        case = _case(chosen, modalities, tables)
        cases.append(case)
        twice += [case.id] if is_twice else []
        notes += _case_notes(case, chosen)
    # A table that contradicts itself about a case, a broken link: faults found elsewhere.
    at_fault = {fault.case.lower() for fault in faults if fault.case}
    cases = sorted(
        (case for case in cases if case.id.lower() not in at_fault), key=lambda case: case.id
    )
    if twice:
        notes.append(f"{len(twice)} cases are there twice with equal files: {first_few(twice)}")
    if gathered.unfit:
        unfit = list(dict.fromkeys(gathered.unfit))
        notes.append(f"{len(unfit)} NIfTI files fit no case: {first_few(unfit)}")
    return Findings(
        cases=tuple(cases),
        faults=tuple(dict.fromkeys(faults)),
        notes=(*dict.fromkeys(notes), *_overlap_notes(cases, tables)),
    )


def _unprintable_name(case_id: str, chosen: Mapping[str, Claim]) -> Fault | None:
    """A file name that is not UTF-8 is no text, which a cache could not hold."""
    for claim in chosen.values():
        try:
            f"{case_id}{claim.path}".encode()
        except UnicodeEncodeError:
            found, expected = "a name that is not UTF-8", "UTF-8 names of files and folders"
            return Fault(case=case_id, path=claim.path, found=found, expected=expected)
    return None


def _check_modalities(modalities: Sequence[str]) -> None:
    is_known = all(name in MODALITIES for name in modalities)
    if not modalities or not is_known or len(set(modalities)) < len(modalities):
        raise BratsError(
            f"modalities {','.join(modalities) or 'none'}: expected one or more of "
            f"{','.join(MODALITIES)}, each once"
        )


def _case(chosen: Mapping[str, Claim], modalities: Sequence[str], tables: Tables) -> Case:
    first = chosen[modalities[0]]
    key = first.case.lower()
    patient = patient_of(first.case)
    # A barcode names a person, who may have no BraTS id among the scans.
    grade = tables.grades.get(key) or tables.grades.get(patient.lower(), "")
    scans = {role: Scan(path=claim.path, channel=claim.channel) for role, claim in chosen.items()}
    return Case(
        id=first.case,
        patient=tables.patients.get(patient.lower(), patient),
        naming=first.naming,
        data_dir=first.data_dir,
        images={name: scans[name] for name in modalities},
        mask=scans.get(MASK),
        grade=grade or _folder_grade(first),
        age=tables.ages.get(key),
        survival=tables.survivals.get(key, ""),
        labels=first.labels,
    )


def _case_notes(case: Case, chosen: Mapping[str, Claim]) -> list[str]:
    """What was decided about a case that its owner may want to check."""
    notes = []
    if MASK in chosen and chosen[MASK].is_misnamed:
        name = chosen[MASK].path.name
        notes.append(f"{case.id}: {name}, a known misnomer, is taken as its segmentation")
    folder_grade = _folder_grade(next(iter(chosen.values())))
    if folder_grade and folder_grade != case.grade:
        notes.append(
            f"{case.id}: {case.grade} by its table but in a folder {folder_grade}; "
            "the table is believed"
        )
    return notes


def _folder_grade(claim: Claim) -> str:
    """HGG or LGG where a folder from the file's up to the DATA argument has this name; where the
    DATA argument is the case folder itself, the folder around it counts too."""
    folder, root = claim.path.parent.absolute(), claim.data_dir.absolute()
    depth = max(len(folder.parts) - len(root.parts) + 1, 2)
    nearest_first = [part.lower() for part in folder.parts[-depth:][::-1]]
    return next((_GRADE_FOLDERS[name] for name in nearest_first if name in _GRADE_FOLDERS), "")


def _overlap_notes(cases: Sequence[Case], tables: Tables) -> list[str]:
    """A warning where cases of several public collections meet without a table that joins them."""
    collections = {case.id: collection_of(case.id, case.naming) for case in cases}
    names = sorted(set(collections.values()) - {""})
    unmapped = [
        case_id
        for case_id, name in collections.items()
        if name and patient_of(case_id).lower() not in tables.patients
    ]
    if len(names) < 2 or not unmapped:
        return []
    return [
        f"cases of {', '.join(names)} are combined, and no table with the ids of several years "
        f"(name_mapping.csv) names {len(unmapped)} of them ({first_few(unmapped)}): one person may "
        "be there under two ids, and so in two splits. Put such a table, saved as CSV, beside the "
        "scans."
    ]
