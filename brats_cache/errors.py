"""The faults a person can cause: each says where, what was found, what was expected, the way out.

`BratsError` is what the command line turns into one message and exit code 1. Anything else that
escapes a command is a defect of this program and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BratsError", "DataFaults", "Fault", "printable"]


def printable(text: object) -> str:
    """`text` with control characters escaped, so that a name found in a file cannot write to the
    terminal or break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


class BratsError(Exception):
    """A failure of data, disk, options or environment that a person can mend.

    The first argument is the whole message as it will be read, without a trailing newline.
    """


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One defect of one case.

    case      id of the case, or "" where the defect belongs to no single case
    path      the file or folder at fault, where there is one
    found     what is there, quoting the offending value
    expected  what should be there
    remedy    what a person can do about it
    """

    case: str
    path: Path | None
    found: str
    expected: str
    remedy: str = ""

    def __str__(self) -> str:
        where = [printable(part) for part in (self.case, self.path) if part]
        text = f"{': '.join(where)}: {printable(self.found)}; expected {printable(self.expected)}."
        return f"{text} {printable(self.remedy)}" if self.remedy else text


class DataFaults(BratsError):
    """Several defects reported together, before any long work starts."""

    def __init__(self, faults: Sequence[Fault], advice: str = "") -> None:
        """`faults` in the order they should be read; `advice` closes the message."""
        self.faults = tuple(faults)
        self.advice = advice
        num_cases = len({fault.case for fault in self.faults if fault.case})
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        if num_cases:
            count += f" in {num_cases} case{'s' if num_cases != 1 else ''}"
        lines = [f"{count}:", *(f"  {fault}" for fault in self.faults)]
        super().__init__("\n".join([*lines, advice] if advice else lines))

    def __reduce__(self) -> tuple[type[DataFaults], tuple[Sequence[Fault], str]]:
        return DataFaults, (self.faults, self.advice)  # crosses from worker to parent process
