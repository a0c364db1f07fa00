"""Errors that a person can cause: each names the file, what was found, what was expected, and what
to do.

The command line turns a `BratsError` into one message and exit code 1. Any other exception that
leaves a command is a defect of this program and keeps its traceback.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from brats_cache.common.text import count_of, first_few

__all__ = [
    "BratsError",
    "CacheCorruptError",
    "CacheNotFoundError",
    "CheckpointError",
    "DataFaults",
    "Fault",
    "LabelSchemeError",
    "RecipeError",
    "RunNotFoundError",
    "file_fault",
    "first_line",
    "print_message",
    "print_wrapped",
    "printable",
    "wrapped",
    "wrong_usage",
]

MAX_EQUAL_FAULTS = 3  # more are one line
MAX_NAMED = 20  # of equal faults all are named up to this number, else three
MAX_LINES = 20  # more, and faults that differ in numbers alone are one line as well
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_MIN_WIDTH = 40  # below that a hanging indent only hurts


def printable(text: object) -> str:
    """Escapes control characters, so that a name found in a file cannot control the terminal or
    break a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def first_line(error: BaseException) -> str:
    """The first line of an error's text, `printable`; its type where it has no text."""
    return printable(next(iter(str(error).strip().splitlines()), type(error).__name__))


class BratsError(Exception):
    """A failure of data, disk, options or environment that a person can put right.

    The first argument is the whole message as it will be read, without a trailing newline.

    Attributes:
        rank: Set where one of several processes failed by itself.
        is_shared: True where all processes raise the same error.
        exit_code: 1, or 2 for `wrong_usage`.
    """

    rank: int | None = None
    is_shared = False
    exit_code = 1


def wrong_usage(error: BratsError) -> BratsError:
    """Marks an error as wrong usage, exit code 2."""
    error.exit_code = 2
    return error


class CacheNotFoundError(BratsError, FileNotFoundError):
    """There is no cache file of this name."""


class CacheCorruptError(BratsError, ValueError):
    """A file is no readable cache: truncated, damaged, unfinished or something else."""


class CheckpointError(BratsError, ValueError):
    """A file is no readable checkpoint, or one that does not fit."""


class RunNotFoundError(BratsError, FileNotFoundError):
    """A folder holds no run."""


class RecipeError(BratsError, ValueError):
    """A recipe has an unknown field or a value that is not allowed."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One defect of one case.

    Attributes:
        case: Id of the case, "" where the defect belongs to no single case.
        path: The file or folder at fault, where there is one.
        found: What is there, with the offending value.
        expected: What should be there.
        remedy: What a person can do about it.
    """

    case: str
    path: Path | None
    found: str
    expected: str
    remedy: str = ""

    def __str__(self) -> str:
        what = f"{printable(self.found)}; expected {printable(self.expected)}."
        text = ": ".join([*self.names, what])
        return f"{text} {printable(self.remedy)}" if self.remedy else text

    @property
    def names(self) -> tuple[str, ...]:
        """The case and the path, where there are such, as the message has them."""
        return tuple(printable(part) for part in (self.case, self.path) if part)


class DataFaults(BratsError, ValueError):
    """Several defects of scans and tables, reported together before any long work starts."""

    def __init__(
        self, faults: Sequence[Fault], advice: str = "", num_lines: int | None = None
    ) -> None:
        """Makes one error of several faults.

        Args:
            faults: In the order of the message.
            advice: Last line of the message.
            num_lines: At most so many lines of faults, None for all; only for a message whose
                advice says where all faults are listed.
        """
        self.faults = tuple(faults)
        self.advice = advice
        self._num_lines = num_lines
        num_cases = len({fault.case for fault in self.faults if fault.case})
        count = count_of(len(self.faults), "fault")
        if num_cases:
            count += f" in {count_of(num_cases, 'case')}"
        shown = _lines_of(self.faults)
        if num_lines is not None and len(shown) > num_lines:
            shown = [*shown[:num_lines], f"and {len(shown) - num_lines} more like these"]
        lines = [f"{count}:", *(f"  {line}" for line in shown)]
        super().__init__("\n".join([*lines, advice] if advice else lines))

    @property
    def names(self) -> tuple[str, ...]:
        """What a terminal must not break: every case and path."""
        return tuple(name for fault in self.faults for name in fault.names)

    def __reduce__(self) -> tuple[type[DataFaults], tuple[Sequence[Fault], str, int | None]]:
        # An error crosses from worker to parent process.
        return type(self), (self.faults, self.advice, self._num_lines)


def file_fault(path: Path, found: str, expected: str, remedy: str = "") -> DataFaults:
    """Makes the error of one fault of a file that is of no case yet, see `Fault`."""
    return DataFaults([Fault(case="", path=path, found=found, expected=expected, remedy=remedy)])


def _lines_of(faults: Sequence[Fault]) -> list[str]:
    """A line for each fault, but one for more than three that differ in case and path alone.

    Where these are many lines, faults that differ in numbers as well, such as a distance, are one.
    """
    lines = _grouped_lines(faults, _texts)
    return lines if len(lines) <= MAX_LINES else _grouped_lines(faults, _texts_without_numbers)


def _grouped_lines(
    faults: Sequence[Fault], key_of: Callable[[Fault], tuple[str, ...]]
) -> list[str]:
    groups: dict[tuple[str, ...], list[Fault]] = {}
    for fault in faults:
        groups.setdefault(key_of(fault), []).append(fault)
    lines = []
    for members in groups.values():
        if len(members) <= MAX_EQUAL_FAULTS:
            lines += [str(fault) for fault in members]
            continue
        num_named = len(members) if len(members) <= MAX_NAMED else MAX_EQUAL_FAULTS
        names = first_few([": ".join(fault.names) for fault in members], num_named, "; ")
        first = replace(members[0], case="", path=None)
        are_equal = len({_texts(fault) for fault in members}) == 1
        count = f"{len(members)} times" if are_equal else f"{len(members)} alike, the first"
        lines.append(f"{count}: {first} ({names})")
    return lines


def _texts(fault: Fault) -> tuple[str, ...]:
    """What a fault says, without the id of its case."""
    texts = (fault.found, fault.expected, fault.remedy)
    return tuple(text.replace(fault.case, "") if fault.case else text for text in texts)


def _texts_without_numbers(fault: Fault) -> tuple[str, ...]:
    return tuple(_NUMBER.sub("0", text) for text in _texts(fault))


class LabelSchemeError(DataFaults):
    """The label scheme of masks is unknown, or their values contradict it."""


def print_message(message: object, prefix: str = "") -> None:
    """Prints a message on standard error, as `print_wrapped` does.

    Args:
        message: Text, or an error; the names of `DataFaults` are not broken.
        prefix: Put before it.
    """
    print_wrapped(f"{prefix}{message}", sys.stderr, getattr(message, "names", ()))


def print_wrapped(text: str, stream: TextIO | None = None, names: Iterable[str] = ()) -> None:
    """Prints text wrapped to the width of a terminal, unwrapped elsewhere, so that a log holds one
    line a fault.

    Args:
        text: See `wrapped`.
        stream: Where it goes; standard output by default.
        names: See `wrapped`.
    """
    stream = stream or sys.stdout
    if stream.isatty():
        text = wrapped(text, _terminal_width(stream), names)
    print(text, file=stream, flush=True)


def wrapped(text: str, width: int, names: Iterable[str] = ()) -> str:
    """Breaks text between words, with a hanging indent.

    No word is cut, however long, so that a path can be copied; nor is any of `names`. (Textwrap and
    not rich, which folds long words and knows no hanging indent.)

    Args:
        text: One or more lines.
        width: Columns of a line, at least 40.
        names: Names in the text that may hold spaces.
    """
    for name in sorted(set(names), key=len, reverse=True):
        text = text.replace(name, name.replace(" ", "\0"))
    lines = [_wrapped_line(line, max(width, _MIN_WIDTH)) for line in text.split("\n")]
    return "\n".join(lines).replace("\0", " ")


def _wrapped_line(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip(" ")))
    return textwrap.fill(
        line.strip(" "),
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def _terminal_width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # a terminal by its own word only
        return 80
