"""One thing that `brats doctor` has found out, and how all of them are shown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Check", "as_text"]

_MARKS = {"fine": "ok", "warning": "warn", "failure": "FAIL"}
_WIDTH = 80


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing about this machine.

    state  "fine"; "warning": something will not work or be slow; "failure": no training here
    fix   what a person can do about it, "" where all is fine
    """

    name: str
    found: str
    state: str = "fine"
    fix: str = ""


def as_text(findings: Sequence[Check]) -> str:
    """The findings in 80 columns, the fix of each under it, and the sum of it."""
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        start = f"{_MARKS[finding.state]:>4}  {finding.name:<{width}}  "
        lines += _wrapped(finding.found, start, " " * len(start))
        if finding.fix:
            lines += _wrapped(finding.fix, " " * len(start) + "-> ", " " * len(start) + "   ")
    states = {finding.state for finding in findings}
    if "failure" in states:
        end = "Training is impossible here until what is marked FAIL is mended."
    elif "warning" in states:
        end = "Training works here; what is marked warn will not work or be slow."
    else:
        end = "Everything is in place."
    return "\n".join([*lines, "", end])


def _wrapped(text: str, first: str, others: str) -> list[str]:
    """Words are kept whole: a path or an option that is broken cannot be copied."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
