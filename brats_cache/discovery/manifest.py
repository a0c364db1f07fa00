"""Manifests: a CSV table that names the files of every case, read instead of looking for cases.

    case,patient,session,t1,t1ce,t2,flair,seg,split,grade,scheme

Paths are relative to the table. `file.nii.gz#2` is volume 2 of a 4-D file, counted from 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from brats_cache.common.csv_names import csv_text, written_name
from brats_cache.common.errors import DataFaults, Fault
from brats_cache.common.names import composed, id_key
from brats_cache.discovery.cases import Case, Findings, Scan, check_modalities, one_spelling
from brats_cache.discovery.namings import MODALITIES, naming_of
from brats_cache.discovery.patients import PatientCase, patient_notes, patient_of
from brats_cache.discovery.tables import Row, read_csv

__all__ = ["MANIFEST_COLUMNS", "manifest_table", "read_manifest"]

MANIFEST_COLUMNS = ("case", "patient", "session", *MODALITIES, "seg", "split", "grade", "scheme")
_SPLITS = ("train", "val", "test")
_GRADES = ("HGG", "LGG")
_CHANNEL = re.compile(r"(?P<path>.+)#(?P<channel>[0-9]{1,6})")


def read_manifest(
    path: Path,
    modalities: Sequence[str] = MODALITIES,
    *,
    with_masks: bool = True,
    may_lack: bool = False,
) -> Findings:
    """Reads the cases of a manifest.

    Args:
        path: CSV file with a column `case` and one for each of `modalities`. The other columns of
            `MANIFEST_COLUMNS` may be left out or blank.
        modalities: Names of `MODALITIES`, in the order the images should have.
        with_masks: Whether the column `seg` matters; without, every case has no mask.
        may_lack: Whether columns and cells of some modalities may be missing, though not of all.

    Returns:
        The cases, and a fault that names line and column for each cell that cannot be used. A case
        with a fault is not among the cases.

    Raises:
        BratsError: The modalities are unknown or repeated.
    """
    check_modalities(modalities)
    try:
        rows = read_csv(path)
    except DataFaults as error:
        return Findings(cases=(), faults=error.faults, notes=())
    if may_lack and rows:
        modalities = [name for name in modalities if name in rows[0].cells] or modalities
    if faults := _column_faults(path, rows, modalities):
        return Findings(cases=(), faults=tuple(faults), notes=())
    reader = _Reader(path, modalities, with_masks, may_lack)
    cases = [case for row in rows if (case := reader.case_of(row)) is not None]
    bad = {id_key(fault.case) for fault in reader.faults}
    cases = one_spelling(case for case in cases if id_key(case.id) not in bad)
    unsure = [
        PatientCase(case.id, case.patient, _folder_of(case), case.data_dir)
        for case in cases
        if case.id not in reader.with_patient
    ]
    notes = patient_notes(unsure)
    return Findings(cases=tuple(cases), faults=tuple(reader.faults), notes=tuple(notes))


def manifest_table(cases: Sequence[Case], folder: Path, schemes: Mapping[str, str]) -> bytes:
    """Returns the manifest of some cases, as CSV in UTF-8.

    Args:
        cases: The cases, in the order of the rows.
        folder: Where the table will lie; paths are relative to it.
        schemes: Label scheme by case id, where it is known.
    """
    rows: list[Iterable[str]] = [MANIFEST_COLUMNS]
    for case in cases:
        session = case.id[len(case.patient) :] if case.id.startswith(case.patient) else ""
        files = [_cell(case.images.get(name), folder) for name in MODALITIES]
        cells = [
            case.id,
            case.patient,
            session.lstrip("_-. "),
            *files,
            _cell(case.mask, folder),
            case.split,
            case.grade,
            case.scheme or schemes.get(case.id, ""),
        ]
        rows.append(map(written_name, cells))
    return csv_text(rows).encode()


class _Reader:
    """Turns rows into cases, and collects the faults.

    Attributes:
        faults: In the order of the rows.
        with_patient: Ids of the cases whose patient the manifest tells.
    """

    def __init__(
        self, path: Path, modalities: Sequence[str], with_masks: bool, may_lack: bool
    ) -> None:
        self.faults: list[Fault] = []
        self.with_patient: set[str] = set()
        self._path = path
        self._modalities = modalities
        self._with_masks = with_masks
        self._may_lack = may_lack
        self._line_of: dict[str, int] = {}
        self._used: dict[tuple[Path, int | None], str] = {}

    def case_of(self, row: Row) -> Case | None:
        """The case of a row, None where it has no id or one that was there before."""
        cells = row.cells
        patient, session = composed(cells.get("patient", "")), composed(cells.get("session", ""))
        case_id = composed(cells.get("case", "")) or "_".join(filter(None, (patient, session)))
        if not case_id:
            self._fault(row, "", "case", "a blank cell", "an id")
            return None
        before = self._line_of.setdefault(id_key(case_id), row.line)
        if before != row.line:
            found = f"{case_id}, which is in line {before}, too"
            self._fault(row, case_id, "case", found, "one line for each case")
            return None
        if patient:
            self.with_patient.add(case_id)
        wanted = self._modalities
        if self._may_lack:
            wanted = [name for name in wanted if cells.get(name)] or wanted
        scans = {name: self._scan(row, case_id, name) for name in wanted}
        mask = None
        if self._with_masks and cells.get("seg"):
            mask = self._scan(row, case_id, "seg")
            if mask is not None and mask.channel is not None:
                found = f"{cells['seg']}, a volume of a 4-D file"
                self._fault(row, case_id, "seg", found, "a file of its own for the mask")
        split = self._one_of(row, case_id, "split", {name: name for name in _SPLITS})
        grade = self._one_of(row, case_id, "grade", {name.lower(): name for name in _GRADES})
        images = {name: scan for name, scan in scans.items() if scan is not None}
        return Case(
            id=case_id,
            patient=patient or patient_of(case_id),
            naming=naming_of(case_id),
            data_dir=self._path.parent,
            images=images,
            mask=mask,
            grade=grade,
            split=split,
            scheme=cells.get("scheme", ""),
        )

    def _scan(self, row: Row, case_id: str, column: str) -> Scan | None:
        text = row.cells.get(column, "")
        if not text:
            self._fault(row, case_id, column, "a blank cell", "the path of a NIfTI file")
            return None
        scan = self._located(text)
        if scan is None:
            found = f"{text}, which is not there"
            self._fault(row, case_id, column, found, f"a file, relative to {self._path.parent}")
            return None
        use = f"line {row.line}, column {column}"
        other = self._used.setdefault((scan.path.resolve(), scan.channel), use)
        if other != use:
            found = f"{text}, which is the file of {other}, too"
            self._fault(row, case_id, column, found, "a file of its own")
        return scan

    def _located(self, text: str) -> Scan | None:
        whole = self._path.parent / text
        match = _CHANNEL.fullmatch(text)
        try:
            if whole.is_file():
                return Scan(path=whole)
            if match and (self._path.parent / match["path"]).is_file():
                return Scan(path=self._path.parent / match["path"], channel=int(match["channel"]))
        except OSError:  # such as a name that is too long
            pass
        return None

    def _one_of(self, row: Row, case_id: str, column: str, allowed: Mapping[str, str]) -> str:
        text = row.cells.get(column, "")
        if text and text.lower() not in allowed:
            expected = f"{', '.join(allowed.values())}, or a blank cell"
            self._fault(row, case_id, column, repr(text), expected)
        return allowed.get(text.lower(), "")

    def _fault(self, row: Row, case_id: str, column: str, found: str, expected: str) -> None:
        self.faults.append(
            Fault(
                case=case_id,
                path=self._path,
                found=f"line {row.line}, column {column}: {found}",
                expected=expected,
            )
        )


def _column_faults(path: Path, rows: Sequence[Row], modalities: Sequence[str]) -> list[Fault]:
    def fault(found: str, expected: str) -> Fault:
        return Fault(case="", path=path, found=found, expected=expected)

    if not rows:
        return [fault("no line below the header", "a line for each case")]
    columns = list(rows[0].cells)
    faults = [
        fault(f"line 1: unknown column {name}", f"columns out of {', '.join(MANIFEST_COLUMNS)}")
        for name in columns
        if name not in MANIFEST_COLUMNS
    ]
    if "case" not in columns and "patient" not in columns:
        faults.append(fault("line 1: no column case", "a column of ids"))
    missing = [name for name in modalities if name not in columns]
    if missing:
        faults.append(
            fault(
                f"line 1: no column {', '.join(missing)}",
                f"columns {', '.join(modalities)}, or fewer --modalities",
            )
        )
    return faults


def _folder_of(case: Case) -> Path:
    return next(iter(case.images.values())).path.parent


def _cell(scan: Scan | None, folder: Path) -> str:
    if scan is None:
        return ""
    path = os.path.relpath(os.path.abspath(scan.path), folder.resolve())
    return path if scan.channel is None else f"{path}#{scan.channel}"
