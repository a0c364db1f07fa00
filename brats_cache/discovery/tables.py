"""The tables beside the scans: grade, age and survival, and which ids of different years are one
person.

Read are `name_mapping.csv` and its kin (each row: one person's ids over the years),
`survival_data.csv`, `survival_info.csv`, `survival_evaluation.csv`, and the metadata of UCSF-PDGM
with its column of BraTS 2021 ids. A CSV file is one of these when a column is headed by BraTS ids
(`BraTS_2019_subject_ID`, `Brats17ID`, `BraTS2021`, `BraTS21 ID`); any other CSV file is left alone.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from brats_cache.common.csv_names import read_name
from brats_cache.common.errors import DataFaults, Fault, file_fault
from brats_cache.common.files import open_regular_file, read_small_file
from brats_cache.discovery.namings import year_of
from brats_cache.discovery.patients import patient_of

__all__ = ["Row", "Tables", "read_csv", "read_tables"]

_ID_COLUMN = re.compile(r"brats(?:20)?\d\d(?:subject)?(?:id)?|tcga\w*id")
_OWN_NAME = re.compile(r"name_mapping|survival_(?:data|info|evaluation)", re.IGNORECASE)
_ID = re.compile(r"(?:brats|tcga|tcia|ucsf-pdgm|upenn-gbm).*\d", re.IGNORECASE)
# Ids of the collections that BraTS took cases from, under whatever heading.
_SOURCE_ID = re.compile(
    r"(?:ucsf-pdgm|upenn-gbm|ucsd-ptgbm)-\d+\w*|tcga-[a-z0-9]{2}-[a-z0-9]{4}|patientid_\d+",
    re.IGNORECASE,
)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as spreadsheets save "Unicode text"
_EMPTY = {"", "na", "n/a", "nan", "none"}
_GRADES = {"hgg": "HGG", "lgg": "LGG"}


class Row(NamedTuple):
    """A row of a CSV file.

    Attributes:
        line: Its last line, from 1.
        cells: By column name, in lower case without anything but letters and digits. Cells are
            stripped, "" stands for an empty cell and for NA, and the apostrophe that
            `csv_names.written_name` puts before a name is taken off.
    """

    line: int
    cells: Mapping[str, str]


class _Statement(NamedTuple):
    """One fact a table states, and the file and line that state it."""

    value: str
    where: str


@dataclass(kw_only=True)
class Tables:
    """What all tables together say.

    Attributes:
        grades: "HGG" or "LGG" by case id in lower case.
        ages: Years by case id in lower case.
        survivals: The cell's own text by case id in lower case.
        patients: By patient id in lower case, the one id that stands for the person.
        faults: What is wrong, naming file and line.
    """

    grades: dict[str, str] = field(default_factory=dict)
    ages: dict[str, float] = field(default_factory=dict)
    survivals: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def read_csv(path: Path) -> list[Row]:
    """Reads the rows of a CSV file with a header, blank rows left out.

    Args:
        path: In UTF-8 with or without a byte order mark, or UTF-16 with one, with any line ends,
            quoted cells, comma, semicolon or tab.

    Raises:
        DataFaults: The file cannot be read or is no such table; the fault names file and line.
    """
    try:
        content = read_small_file(path)
        text = content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except OSError as error:
        raise file_fault(
            path, error.strerror or str(error), "a CSV file that can be read"
        ) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise file_fault(path, f"line {line}: bytes that are not UTF-8", "UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise file_fault(path, f"line {line}: a NUL character", "text in UTF-8")
    if not text.strip():
        raise file_fault(path, "an empty file", "a header and a line each")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    rows: list[Row] = []
    try:
        header = [_plain(name) for name in next(reader, [])]
        named = [name for name in header if name]
        if not named or len(set(named)) < len(named):
            raise file_fault(path, f"line 1: {','.join(header)}", "a header, each column once")
        for cells in reader:
            values = ["" if c.strip().lower() in _EMPTY else read_name(c.strip()) for c in cells]
            if not any(values):
                continue
            if len(values) < len(header) or any(values[len(header) :]):
                found = f"line {reader.line_num}: {len(values)} cells"
                raise file_fault(path, found, f"{len(header)}, as in the header")
            pairs = zip(header, values[: len(header)], strict=True)
            rows.append(Row(reader.line_num, {name: value for name, value in pairs if name}))
    except csv.Error as error:
        raise file_fault(path, f"line {reader.line_num}: {error}", "well-formed CSV") from error
    return rows


def read_tables(paths: Iterable[Path]) -> Tables:
    """Reads what the tables among `paths` say; of contradictory statements a fault.

    One person's ids are joined over all rows of all tables, by a shared id of any year or of the
    collection it was taken from. The id that stands for the person is that of the newest BraTS
    year, of several the first by name: a function of the tables alone, not of which scans are
    there. Blank and NA cells join nobody.

    Args:
        paths: CSV files.
    """
    tables = Tables()
    statements: dict[tuple[str, str], _Statement] = {}
    links: list[list[str]] = []
    for path in paths:
        try:
            rows = _rows_of(path)
        except DataFaults as error:
            tables.faults += error.faults
            continue
        for row in rows:
            ids = _ids_of(row)
            if not ids:
                if _OWN_NAME.match(path.name):  # in any other table there may be other patients
                    tables.faults.append(_fault(path, row, "no case id", "an id of BraTS or TCGA"))
                continue
            tables.faults += _enter(statements, path, row, ids)
            num_columns = sum(1 for column in row.cells if _ID_COLUMN.fullmatch(column))
            # A row of one id beside blank ones says that the person has no others.
            if num_columns > 1 or any(map(_SOURCE_ID.fullmatch, ids)):
                links.append([patient_of(case_id) for case_id in ids])
    for (kind, key), statement in statements.items():
        if kind == "grade":
            tables.grades[key] = statement.value
        elif kind == "age":
            tables.ages[key] = float(statement.value)
        else:
            tables.survivals[key] = statement.value
    tables.patients = _join(links)
    return tables


def _ids_of(row: Row) -> list[str]:
    """The ids of one person: those in columns of BraTS ids, and of other collections anywhere."""
    return [
        cell
        for column, cell in row.cells.items()
        if (_ID_COLUMN.fullmatch(column) and _ID.match(cell)) or _SOURCE_ID.fullmatch(cell)
    ]


def _rows_of(path: Path) -> list[Row]:
    """The rows of one of our tables, none of a CSV file that is about something else."""
    if not _OWN_NAME.match(path.name):
        try:
            with open_regular_file(path) as file:
                header = file.readline(65536).decode("utf-8-sig", errors="replace")
        except OSError as error:
            raise file_fault(
                path, error.strerror or str(error), "a CSV file that can be read"
            ) from None
        if not any(_ID_COLUMN.fullmatch(_plain(name)) for name in re.split("[,;\t]", header)):
            return []
    rows = read_csv(path)
    if rows and not any(_ID_COLUMN.fullmatch(column) for column in rows[0].cells):
        found = f"line 1: columns {', '.join(rows[0].cells)}"
        raise file_fault(path, found, "a column of ids such as BraTS_2020_subject_ID")
    return rows


def _enter(
    statements: dict[tuple[str, str], _Statement], path: Path, row: Row, ids: Sequence[str]
) -> list[Fault]:
    """Enter what one row says of each of its ids; the faults are what cannot be entered."""
    faults = []
    grade, age = row.cells.get("grade", ""), row.cells.get("age", "")
    if grade and grade.lower() not in _GRADES:
        faults.append(_fault(path, row, f"Grade {grade!r}", "HGG, LGG or NA", ids[0]))
    if age and not _is_age(age):
        faults.append(_fault(path, row, f"Age {age!r}", "a number of years or NA", ids[0]))
    said = {
        "grade": _GRADES.get(grade.lower(), ""),
        "age": age if _is_age(age) else "",
        "survival": row.cells.get("survivaldays") or row.cells.get("survival", ""),
    }
    for kind, value in said.items():
        for case_id in ids if value else ():
            statement = _Statement(value, f"{path} line {row.line}")
            before = statements.setdefault((kind, case_id.lower()), statement)
            if before.value != value:
                found = f"{kind} {value!r}, but {before.value!r} in {before.where}"
                faults.append(_fault(path, row, found, f"one {kind}", case_id))
    return faults


def _join(links: Iterable[Sequence[str]]) -> dict[str, str]:
    """Of patient ids that occur together, the one that stands for all, by each id in lower case."""
    parent: dict[str, str] = {}
    spelling: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for ids in links:
        for case_id in ids:
            spelling[case_id.lower()] = min(case_id, spelling.get(case_id.lower(), case_id))
            parent[root(case_id.lower())] = root(ids[0].lower())
    groups: dict[str, list[str]] = {}
    for key in spelling:
        groups.setdefault(root(key), []).append(key)
    chosen = {r: min(keys, key=lambda k: (-year_of(k), k)) for r, keys in groups.items()}
    return {key: spelling[chosen[root(key)]] for key in spelling}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _delimiter(text: str) -> str:
    return max(",;\t", key=text.split("\n", 1)[0].count)


def _is_age(text: str) -> bool:
    try:
        return 0 <= float(text) < 130
    except ValueError:
        return False


def _fault(path: Path, row: Row, found: str, expected: str, case: str = "") -> Fault:
    return Fault(case=case, path=path, found=f"line {row.line}: {found}", expected=expected)
