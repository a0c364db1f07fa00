"""Finding cases: from folders to `Case` values, by names alone; no scan is opened.

`gather` lists the files of all DATA arguments with the role that each name gives (`file_names`),
`group` puts those of one case together, `choose` decides between files of one role, and `tables`
adds what CSV files say.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brats_cache.common.errors import BratsError, Fault
from brats_cache.common.names import id_key
from brats_cache.discovery.candidates import find_candidates
from brats_cache.discovery.case_notes import CaseNotes, file_notes
from brats_cache.discovery.choose import Choice, choose
from brats_cache.discovery.file_names import FileRole, begins_with, plain_word, stem_of
from brats_cache.discovery.folder_names import case_folder_of
from brats_cache.discovery.folders import NiftiFile
from brats_cache.discovery.gather import gather
from brats_cache.discovery.group import CaseFiles, Groups, group
from brats_cache.discovery.namings import MASK, MODALITIES, collection_of
from brats_cache.discovery.overlap import overlap_notes
from brats_cache.discovery.patients import PatientCase, patient_notes, patient_of
from brats_cache.discovery.tables import Tables, read_tables

__all__ = ["Case", "Findings", "Scan", "check_modalities", "find_cases", "one_spelling"]

_GRADE_FOLDERS = {"hgg": "HGG", "lgg": "LGG"}


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One file in one role.

    Attributes:
        path: The NIfTI file.
        channel: Index along the 4th axis of a 4-D file, None for a 3-D file.
    """

    path: Path
    channel: int | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One scan session of a patient.

    Attributes:
        id: As spelled in its file names.
        patient: One id for one person, also over BraTS years where a table joins them.
        naming: "brats2013", "brats2017", "brats2023", "msd" or "plain".
        data_dir: The DATA argument that holds it, or the folder of its manifest.
        images: The requested modalities, in the requested order.
        mask: The segmentation, None where the case has none.
        grade: "HGG", "LGG", or "" where nothing tells.
        age: Years, None where no table tells.
        survival: As the table says, "361" or "ALIVE (361 days later)", "" where none tells.
        labels: Value and name of each label where a dataset.json tells.
        split: "train", "val" or "test" where a manifest says so, else "".
        scheme: Name of a label scheme where a manifest says so, else "".
        unclaimed: Of a case without a mask, the NIfTI files that lie in its folder or whose name
            begins with its id, that no naming rule understands and that are not known to be
            something else: one of them could be its mask.
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
    """What was found.

    Attributes:
        cases: In order of their ids, without those that have a fault.
        faults: What is wrong.
        notes: What a person should know besides.
        stray_masks: Masks that match no images; without those whose names begin with the id of a
            case, such as a second segmentation of it in another folder.
    """

    cases: tuple[Case, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    stray_masks: tuple[Path, ...] = ()


def find_cases(
    data: Sequence[Path],
    modalities: Sequence[str] | None = MODALITIES,
    *,
    mask_words: Sequence[str] = (),
    with_masks: bool = True,
    may_lack: bool = False,
) -> Findings:
    """Finds the cases under `data`, each with the requested `modalities`.

    Args:
        data: Folders of any nesting, or single case folders.
        modalities: Names of `MODALITIES`, in the order the images should have. None takes what
            each case has.
        mask_words: Words in file names that mean a mask, besides the known ones.
        with_masks: Whether masks matter; without, every case has none and none is at fault.
        may_lack: Whether a case may lack some of the modalities, though not all.

    Raises:
        BratsError: A modality is unknown or repeated, or `data` is empty.
    """
    if modalities is not None:
        check_modalities(modalities)
    if not data:
        raise BratsError("no DATA folder given; expected at least one folder of cases")
    words = frozenset(filter(None, map(plain_word, mask_words)))
    folders = [Path(data_dir) for data_dir in data]
    gathered = gather(folders, mask_words=words, with_masks=with_masks)
    tables = read_tables(dict.fromkeys(gathered.tables))
    groups = group(gathered)
    faults = [*gathered.faults, *groups.faults, *tables.faults]
    strays = [NiftiFile(stray.path, stray.path) for stray in groups.stray_masks]
    unknown = [*gathered.unknown, *strays] if with_masks else []
    candidates = find_candidates(groups.cases, unknown)
    cases: list[Case] = []
    folder_of: dict[str, Path] = {}
    twice: list[str] = []
    unpacked: list[str] = []
    case_notes = CaseNotes()
    for key, one in groups.cases.items():
        wanted = modalities or MODALITIES
        if modalities is None or may_lack:
            wanted = [name for name in wanted if name in one.roles] or wanted
        choice = choose(one, wanted)
        faults += choice.faults
        if choice.faults:
            continue
        if fault := _unprintable_name(one, choice):
            faults.append(fault)
            continue
        case = _case(choice.files, wanted, tables, candidates.get(key, ()))
        cases.append(case)
        folder_of[case.id] = case_folder_of(one.folder)
        twice += [case.id] if choice.is_twice else []
        unpacked += choice.unpacked
        _note(case_notes, case, choice)
    # A table that contradicts itself about a case, a broken link: faults found elsewhere.
    at_fault = {fault.case.lower() for fault in faults if fault.case}
    cases = one_spelling(case for case in cases if case.id.lower() not in at_fault)
    people = [PatientCase(c.id, c.patient, folder_of[c.id], c.data_dir) for c in cases]
    notes = [
        *gathered.notes,
        *case_notes.lines(),
        *file_notes(gathered, groups, twice, unpacked),
        *overlap_notes({c.id: c.naming for c in cases}, tables.patients),
        *patient_notes(people),
    ]
    return Findings(
        cases=tuple(cases),
        faults=tuple(dict.fromkeys(faults)),
        notes=tuple(dict.fromkeys(notes)),
        stray_masks=_unowned_masks(groups, cases),
    )


def one_spelling(cases: Iterable[Case]) -> list[Case]:
    """Returns cases in order of their ids, those of one patient with one spelling of its id.

    Ids that differ in letter case alone, as `Pat01_week-1` and `pat01_week-2`, are one patient.
    """
    ordered = sorted(cases, key=lambda case: case.id)
    spelling: dict[str, str] = {}
    for case in ordered:
        spelling.setdefault(id_key(case.patient), case.patient)
    return [replace(case, patient=spelling[id_key(case.patient)]) for case in ordered]


def _unowned_masks(groups: Groups, cases: Sequence[Case]) -> tuple[Path, ...]:
    """The masks without images whose names do not begin with the id of a case either."""
    ids = {case.id.lower() for case in cases}
    paths = dict.fromkeys(stray.path for stray in groups.stray_masks)
    return tuple(path for path in paths if not _begins_with_any(stem_of(path.name), ids))


def _begins_with_any(name: str, ids: Collection[str]) -> bool:
    ends = range(len(name), 0, -1)
    return any(name[:end].lower() in ids and begins_with(name, name[:end]) for end in ends)


def check_modalities(modalities: Sequence[str]) -> None:
    """Refuses modalities that are unknown, repeated or none.

    Args:
        modalities: Names.

    Raises:
        BratsError: They are not different names of `MODALITIES`.
    """
    is_known = all(name in MODALITIES for name in modalities)
    if not modalities or not is_known or len(set(modalities)) < len(modalities):
        raise BratsError(
            f"modalities {','.join(modalities) or 'none'}: expected one or more of "
            f"{','.join(MODALITIES)}, each once"
        )


def _unprintable_name(one: CaseFiles, choice: Choice) -> Fault | None:
    """A fault where a name cannot be text, which a cache could not hold."""
    for file in choice.files.values():
        try:
            f"{one.id}{file.path}".encode()
        except UnicodeEncodeError:
            return _locale_fault(file.path) or Fault(
                case=one.id,
                path=file.path,
                found="a name that is not UTF-8",
                expected="UTF-8 names of files and folders",
            )
    return None


def _locale_fault(path: Path) -> Fault | None:
    """The locale's fault, the same for every case, where the name itself is good UTF-8."""
    encoding = sys.getfilesystemencoding()
    try:
        name = os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return None
    first = next(part for part in Path(name).parts if not part.isascii())
    return Fault(
        case="",
        path=None,
        found=f"a locale whose encoding, {encoding}, cannot express the name {first}",
        expected="a UTF-8 locale",
        remedy="Set LC_ALL=C.UTF-8, or PYTHONUTF8=1; the files are in order.",
    )


def _case(
    files: Mapping[str, FileRole],
    modalities: Sequence[str],
    tables: Tables,
    unclaimed: tuple[Path, ...],
) -> Case:
    first = files[modalities[0]]
    key = first.case.lower()
    patient = _patient(first)
    # A barcode names a person, who may have no BraTS id among the scans.
    grade = tables.grades.get(key) or tables.grades.get(patient.lower(), "")
    scans = {role: Scan(path=file.path, channel=file.channel) for role, file in files.items()}
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
        unclaimed=unclaimed,
    )


def _patient(file: FileRole) -> str:
    """The patient by the rule for the id, else by the folder above a session."""
    by_id = patient_of(file.case)
    has_rule = file.naming != "plain" or collection_of(file.case, "") or by_id != file.case
    return by_id if has_rule else file.patient or by_id


def _note(notes: CaseNotes, case: Case, choice: Choice) -> None:
    mask = choice.files.get(MASK)
    if mask is not None and mask.is_misnamed:
        notes.add(case.id, f"{mask.path.name}, a known misnomer, is taken as the segmentation")
    if mask is not None and mask.rank == 2:
        notes.add(case.id, "an automatic segmentation is taken as the mask, for want of another")
    for role, (chosen, other) in choice.passed_over.items():
        if role == MASK:
            taken, left = _without_id(chosen), _without_id(other)
            notes.add(case.id, f"several masks; {taken} is taken, {left} is not")
        elif chosen.rank < 0:
            notes.add(case.id, "scans corrected for the bias field are taken before the others")
        else:
            notes.add(case.id, f"several files for {role}; the one of the plainest name is taken")
    folder_grade = _folder_grade(next(iter(choice.files.values())))
    if folder_grade and folder_grade != case.grade:
        notes.add(
            case.id,
            f"{case.grade} by the table but in a folder {folder_grade}; the table is believed",
        )


def _without_id(file: FileRole) -> str:
    name = file.path.name
    return name[len(file.case) :].lstrip("_-. ") if name.startswith(file.case) else name


def _folder_grade(file: FileRole) -> str:
    """HGG or LGG where a folder from the file's up to the DATA argument has this name; where the
    DATA argument is the case folder itself, the folder around it counts too."""
    folder, root = file.path.parent.absolute(), file.data_dir.absolute()
    depth = max(len(folder.parts) - len(root.parts) + 1, 2)
    nearest_first = [part.lower() for part in folder.parts[-depth:][::-1]]
    return next((_GRADE_FOLDERS[name] for name in nearest_first if name in _GRADE_FOLDERS), "")
