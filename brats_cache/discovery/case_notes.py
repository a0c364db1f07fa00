"""Notes: what was decided about cases that their owner may want to check, a line for each kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from brats_cache.common.text import first_few
from brats_cache.discovery.gather import Gathered
from brats_cache.discovery.group import Groups

__all__ = ["CaseNotes", "counted", "file_notes"]

_NUM_SHOWN = 3


def counted(names: Sequence[object], one: str, many: str = "") -> str:
    """Returns a count with its noun and the first names: "4 cases (a, b, c and 1 more)".

    Args:
        names: What is counted.
        one: The noun for one.
        many: The noun for several; `one` with an s where it is left out.
    """
    noun = one if len(names) == 1 else many or f"{one}s"
    return f"{len(names)} {noun} ({first_few(names, _NUM_SHOWN)})"


class CaseNotes:
    """Collects what is said of single cases, so that what is said of many is one line."""

    def __init__(self) -> None:
        self._cases: dict[str, dict[str, None]] = defaultdict(dict)  # the cases of a text, once

    def add(self, case_id: str, text: str) -> None:
        """Enters what is said of a case, as it continues "3 cases (a, b, c): "."""
        self._cases[text][case_id] = None

    def lines(self) -> list[str]:
        """Returns a line for each text, in the order in which they were first said."""
        return [f"{counted(list(cases), 'case')}: {text}" for text, cases in self._cases.items()]


def file_notes(
    gathered: Gathered, groups: Groups, twice: Sequence[str], unpacked: Sequence[str]
) -> list[str]:
    """Returns what to say of files that lie there twice or that no case has a place for.

    Args:
        gathered: All files.
        groups: The same by case.
        twice: Ids of cases that are there twice.
        unpacked: Names of files that are there with and without gzip.
    """
    notes = []
    if twice:
        notes.append(f"{len(twice)} cases are there twice with equal files: {first_few(twice, 3)}")
    if unpacked:
        files = counted(unpacked, "file")
        notes.append(f"{files} lie there as .nii and as .nii.gz with equal content: taken once")
    if groups.stray_masks:
        masks = counted(list(dict.fromkeys(m.path for m in groups.stray_masks)), "mask")
        notes.append(f"{masks} match no images and are left aside")
    if gathered.unknown:
        unknown = list(dict.fromkeys(file.path for file in gathered.unknown))
        notes.append(f"{len(unknown)} NIfTI files fit no case: {first_few(unknown, 3)}")
    return notes
