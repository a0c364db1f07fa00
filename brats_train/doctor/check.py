"""The result of one check of `brats doctor`, and how all of them are printed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Check", "format_checks"]

_MARKS = {"fine": "ok", "warning": "warn", "failure": "FAIL"}
_WIDTH = 80


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        found: What there is.
        state: "fine"; "warning", something will not work or be slow; "failure", no training here.
        fix: Suggested fix, "" where all is fine.
    """

    name: str
    found: str
    state: str = "fine"
    fix: str = ""


def format_checks(checks: Sequence[Check]) -> str:
    """Formats checks in 80 columns, each with its fix below it, and a last line that sums up."""
    width = max(len(check.name) for check in checks)
    lines: list[str] = []
    for check in checks:
        start = f"{_MARKS[check.state]:>4}  {check.name:<{width}}  "
        lines += _wrapped(check.found, start, " " * len(start))
        if check.fix:
            lines += _wrapped(check.fix, " " * len(start) + "-> ", " " * len(start) + "   ")
    states = {check.state for check in checks}
    if "failure" in states:
        end = "Training is impossible here until what is marked FAIL is fixed."
    elif "warning" in states:
        end = "Training works here; what is marked warn will not work or be slow."
    else:
        end = "Everything is in place."
    return "\n".join([*lines, "", end])


def _wrapped(text: str, first: str, others: str) -> list[str]:
    """Wraps text between words; paths and options are never broken, so they can be copied."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
