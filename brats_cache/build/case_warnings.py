"""Warnings of one kind about many cases, told in one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from brats_cache.common.text import first_few
from brats_cache.imaging.scan_check import PREPARING_TOOLS

__all__ = ["CaseWarnings"]

NUM_NAMED = 3


class CaseWarnings:
    """Collects which cases a kind of warning applies to."""

    def __init__(self) -> None:
        self._cases: dict[str, list[str]] = {}

    def add(self, case: str, kinds: Iterable[str]) -> None:
        """Notes that each of `kinds` applies to a case."""
        for kind in kinds:
            self._cases.setdefault(kind, []).append(case)

    def lines(self, num_cases: int, *, are_scans: bool) -> Sequence[str]:
        """A line for each kind: how many of `num_cases` cases, and the first of them.

        Args:
            num_cases: Number of all cases.
            are_scans: Whether the warnings are about how scans look, which tools can prepare.
        """
        lines = [
            f"{kind}: {len(cases)} of {num_cases} cases ({first_few(sorted(cases), NUM_NAMED)})"
            for kind, cases in sorted(self._cases.items())
        ]
        if lines and are_scans:
            lines.append(
                "a model trained on these scans suits others like them alone; scans are prepared "
                f"with {PREPARING_TOOLS}"
            )
        return lines
