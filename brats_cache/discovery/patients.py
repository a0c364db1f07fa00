"""Patients: which ids are scan sessions of one person, and where that cannot be told."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from brats_cache.common.text import first_few
from brats_cache.discovery.namings import collection_of, naming_of

__all__ = ["PatientCase", "is_container", "is_session", "patient_notes", "patient_of"]

# In each family what follows the patient counts or names the scan sessions.
_FAMILY = re.compile(
    r"(?P<patient>brats_(?:2013|tcia)_pat\w+?|brats1[789]_[^_]+_[^_]+|brats-[a-z-]+-\d+"
    r"|upenn-gbm-\d+|ucsd-ptgbm-\d+|rhuh(?:-gbm)?-\d+)[_-]\d+"
    r"|(?P<letter>\d{6})[a-z]"  # UCSF brain metastases: 100101A, 100101B
    r"|(?P<bids>sub-[a-z0-9]+)_ses-[a-z0-9]+(?:_.*)?",
    re.IGNORECASE,
)
_TCGA = re.compile(r"tcga[-_.]([a-z0-9]{2})[-_.]([a-z0-9]{4})(?![a-z0-9])", re.IGNORECASE)
# The table of UCSF-PDGM writes 004 where its files have 0004; follow-ups end in _FU016d.
_UCSF = re.compile(r"ucsf-pdgm-(\d+)(?:[_-]fu\w*)?(?:_nifti)?", re.IGNORECASE)
_DATE = r"(?:19|20)\d\d(?P<d>[-._]?)(?:0[1-9]|1[0-2])(?P=d)(?:0[1-9]|[12]\d|3[01])"
_SESSION_NAME = (
    r"(?:(?:ses|sess|session|week|wk|month|day|year|visit|tp|time|time[-_ ]?point|fu"
    r"|follow[-_ ]?up|exam|scan|study|baseline|pre[-_ ]?op|post[-_ ]?op)[-_ ]?\d+[a-z]?(?:-\d+)?"
    r"|ses-[a-z0-9]+|follow[-_ ]?up|baseline|(?:pre|post|intra)[-_ ]?op(?:erative)?"
    r"|pre[-_ ]?treatment|post[-_ ]?treatment)"
)
_SESSION = re.compile(rf"{_SESSION_NAME}|{_DATE}", re.IGNORECASE)
_WITH_SESSION = re.compile(
    rf"(?P<patient>.+?)[-_. ](?:(?P<word>{_SESSION_NAME})|{_DATE})", re.IGNORECASE
)
# Names that stand for no person: a folder of cases, or the word that is before every number.
_CONTAINER = re.compile(
    r"(?:patients?|subjects?|sub|cases?|brain|mri?|glioma|gbm|hgg|lgg|data|datasets?|images?|imgs?"
    r"|nifti|nii|scans?|train(?:ing)?|val(?:idation)?|test(?:ing)?|raw|derivatives|imaging|new"
    r"|(?:site|cent(?:er|re)|cohort|batch|part|fold|split|release|group|set|year|brats|v)[-_ ]?\d*"
    r"|(?:brats|fets|task|dataset|ucsf|upenn|tcga|ucsd|rhuh|lumiere|mu-glioma|msd).*)",
    re.IGNORECASE,
)
_MOST_SESSIONS = 10  # mean number of ids under one stem from which it is no person but a site
_MOST_IN_FOLDER = 20


class PatientCase(NamedTuple):
    """One case as far as its patient matters.

    Attributes:
        id: Id of the case.
        patient: Id of its patient.
        folder: The folder of the case.
        data_dir: The DATA argument that holds it.
    """

    id: str
    patient: str
    folder: Path
    data_dir: Path


def patient_of(case_id: str) -> str:
    """Returns the patient that a case id names.

    Args:
        case_id: As in the names of the files.

    Returns:
        The id without what names the scan session, a TCGA barcode and an id of UCSF-PDGM in their
        own spelling, or the id itself where it has no such structure.

    Example:
        >>> patient_of("UCSF-PDGM-0391_FU016d"), patient_of("PatientID_0003_Timepoint_1")
        ('UCSF-PDGM-0391', 'PatientID_0003')
    """
    if barcode := _TCGA.match(case_id):
        return f"TCGA-{barcode[1]}-{barcode[2]}".upper()
    if number := _UCSF.fullmatch(case_id):
        return f"UCSF-PDGM-{int(number[1]):04d}"
    if family := _FAMILY.fullmatch(case_id):
        return family["patient"] or family["letter"] or family["bids"]
    session = _WITH_SESSION.fullmatch(case_id)
    if session is None:
        return case_id
    stem = session["patient"]
    # A date alone says less than the word session: "Patient_20190304" names no person.
    has_number = any(character.isdigit() for character in stem)
    is_person = not _CONTAINER.fullmatch(stem) if session["word"] else has_number
    return stem if is_person else case_id


def is_session(name: str) -> bool:
    """Whether a folder's name is that of a scan session, such as week-000, ses-01 or a date."""
    return _SESSION.fullmatch(name) is not None


def is_container(name: str) -> bool:
    """Whether a folder's name tells that it holds many patients, such as train or BraTS2021."""
    return _CONTAINER.fullmatch(name) is not None


def patient_notes(cases: Iterable[PatientCase]) -> list[str]:
    """Returns a warning where different patients could be one person, by their names or folders.

    Args:
        cases: All cases.
    """
    unsure = [case for case in cases if not _has_rule(case)]
    groups = [*_sharing_stem(unsure), *_sharing_folder(unsure)]
    shared = [group for group in groups if len({case.patient for case in group}) > 1]
    if not shared:
        return []
    ids = dict.fromkeys(case.id for group in shared for case in group)
    examples = [f"{group[0].id} and {group[1].id}" for group in shared]
    return [
        f"{len(ids)} cases count as different patients though their ids share a stem or a folder "
        f"({first_few(examples, 3)}): if these are scans of one person, some could train and "
        "others validate. Say who is who in the column `patient` of a manifest; brats scan DATA "
        "--out cases.csv writes one, --manifest cases.csv takes it."
    ]


def _has_rule(case: PatientCase) -> bool:
    """Whether the patient is known by the rule of a public set."""
    known = naming_of(case.id) != "plain" or collection_of(case.id, "") != ""
    return known or _FAMILY.fullmatch(case.id) is not None


def _sharing_stem(cases: Sequence[PatientCase]) -> list[list[PatientCase]]:
    """Groups whose ids differ in the last word alone, where a stem can be a person."""
    by_id = {case.id: case for case in cases}
    groups: dict[str, list[PatientCase]] = defaultdict(list)
    for case in cases:
        match = re.fullmatch(r"(.*\d.*?)(?:[-_. ][^-_. ]+|(?<=\d)[a-z])", case.id, re.IGNORECASE)
        if match:
            groups[match[1]].append(case)
    for stem, group in groups.items():
        if stem in by_id:
            group.insert(0, by_id[stem])
    num_ids = sum(map(len, groups.values()))
    if not groups or num_ids / len(groups) > _MOST_SESSIONS:
        return []
    return [group for group in groups.values() if len(group) > 1]


def _sharing_folder(cases: Sequence[PatientCase]) -> list[list[PatientCase]]:
    """Groups of cases whose own folders lie in one folder that can be a person's."""
    groups: dict[Path, list[PatientCase]] = defaultdict(list)
    for case in cases:
        parent = case.folder.absolute().parent
        roots = (case.data_dir.absolute(), *case.data_dir.absolute().parents)
        if parent not in roots and not is_container(parent.name):
            groups[parent].append(case)
    if len(groups) < 2:
        return []
    return [
        group
        for group in groups.values()
        if len({case.folder for case in group}) > 1 and len(group) <= _MOST_IN_FOLDER
    ]
