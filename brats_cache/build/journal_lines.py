"""The lines of a journal: JSON with a checksum.

    {"done":3,"checksum":"...","boot":"..."} TAB CHECKSUM

Every line ends with the xxh3_64 of its JSON, 16 hex digits after a tab. A line that is torn or
damaged, or of another form, counts as not written. So no damage to a journal changes a cache.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import xxhash

from brats_cache.build.journal_records import SURVEY_FORM
from brats_cache.build.writer import Layout
from brats_cache.common.json_form import has_form

__all__ = ["JournalState", "format_line", "parse_lines"]

_CASE_FORM = {"scans": [[object]], "split": str, "fold": int, "label scheme": str}
_PLAN_FORM = {
    "fingerprint": str,
    "options": {str: object},
    "shard": str,
    "data_dirs": [str],
    "cases": {str: _CASE_FORM},
}
_FORMS = {  # of each kind of line, by its first key
    "build": {"build": {str: object}},
    "survey": {"survey": str, "files": [[object]], "content": SURVEY_FORM},
    "plan": {"plan": _PLAN_FORM, "layout": {field.name: int for field in fields(Layout)}},
    "done": {"done": int, "checksum": str, "boot": str},
}
_CHECKSUM = re.compile("[0-9a-f]{16}")


@dataclass(kw_only=True)
class JournalState:
    """The content of a journal; of two lines about one thing the later counts.

    Attributes:
        head: See `describe_preparation`; empty for a journal without a first line.
        surveys: Files and content of each survey, by case id.
        plan: Description of the build, with its layout; empty before rows are written.
        done: Checksum of the rows and boot of the system, by the index of the case in the plan.
        num_bytes: End of the last line that is of use.
    """

    head: dict[str, Any] = field(default_factory=dict)
    surveys: dict[str, dict[str, Any]] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    done: dict[int, dict[str, Any]] = field(default_factory=dict)
    num_bytes: int = 0


def parse_lines(content: bytes) -> JournalState:
    """Parses the complete and undamaged lines of a journal; ignores the others."""
    state = JournalState()
    position = 0
    for line in content.splitlines(keepends=True):
        position += len(line)
        record = _record(line)
        if record is not None and _take(state, record):
            state.num_bytes = position
    return state


def format_line(record: Mapping[str, Any]) -> bytes:
    """Formats the line of a record: JSON, a tab, its checksum, a newline."""
    text = json.dumps(record, separators=(",", ":")).encode()
    return text + _checksum_end(text)


def _take(state: JournalState, record: dict[str, Any]) -> bool:
    """Applies a line to the state; False if it is of another form or not usable."""
    kind = next(iter(record), "")
    if kind not in _FORMS or not has_form(record, _FORMS[kind]):
        return False
    if kind == "build":
        state.head = record["build"]
    elif not state.head:
        return False
    elif kind == "survey":
        state.surveys[record.pop("survey")] = record
    elif kind == "plan":
        state.plan = {**record["plan"], "layout": record["layout"]}
        state.done = {}
    elif not state.plan or not _CHECKSUM.fullmatch(record["checksum"]):
        return False
    else:
        state.done[record["done"]] = record
    return True


def _record(line: bytes) -> dict[str, Any] | None:
    """Parses a line of `format_line`; None for a damaged one."""
    text, tab, _ = line.rpartition(b"\t")
    if not tab or line != text + _checksum_end(text):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _checksum_end(text: bytes) -> bytes:
    return b"\t" + xxhash.xxh3_64_hexdigest(text).encode() + b"\n"
