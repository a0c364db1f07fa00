"""CSV files with names that come from other people.

A name is written so that a spreadsheet takes it as text, never as a formula.

A spreadsheet runs a cell that begins with `=`, `+`, `-` or `@`, quoted or not; some drop control
characters before they look. Names of cases and files come from other people, so such a name is
written behind an apostrophe, as spreadsheets themselves mark text. Reading takes it off again.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

__all__ = ["csv_text", "read_name", "written_name"]

_LINE_END = "\r\n"
# The wide forms are what some spreadsheets take for the ASCII ones.
_MARKED = re.compile("'*[\x00-\x1f\x7f=+@＝＋－＠-]")


def written_name(name: str) -> str:
    """Returns the cell for a name: itself, or behind an apostrophe where it could be a formula.

    >>> written_name("BraTS20_001"), written_name("=1+1"), written_name("'=1+1")
    ('BraTS20_001', "'=1+1", "''=1+1")
    """
    return f"'{name}" if _MARKED.match(name) else name


def read_name(cell: str) -> str:
    """Returns the name that `written_name` put into a cell; any other cell is its own text.

    >>> read_name("'=1+1"), read_name("=1+1"), read_name("'quoted'")
    ('=1+1', '=1+1', "'quoted'")
    """
    return cell[1:] if cell.startswith("'") and _MARKED.match(cell) else cell


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Formats rows as CSV whose lines end in a newline.

    Python's writer quotes a cell for the characters that end its own lines alone: with lines that
    end in a newline, a carriage return in a name would break its row.

    >>> csv_text([["case", "split"], ["a\\rb", "train"]])
    'case,split\\n"a\\rb",train\\n'
    """
    lines = []
    for row in rows:
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator=_LINE_END).writerow(row)
        lines.append(f"{line.getvalue().removesuffix(_LINE_END)}\n")
    return "".join(lines)
