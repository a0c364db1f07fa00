"""A cache under its final name is whole on the disk, whatever moment the power fails at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cache.scans import Commands, add_case, mask

Event = tuple[str, str]  # what, of which file
PARTIAL, JOURNAL = "brats.h5.partial", "brats.h5.journal"


def record(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """The calls of the system from now on that decide what outlives a crash."""
    events: list[Event] = []

    def of_descriptor(what: str) -> None:
        real: Callable[..., Any] = getattr(os, what)

        def call(descriptor: int, *arguments: Any) -> Any:
            done = real(descriptor, *arguments)
            name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
            is_plan = what == "write" and b'{"plan"' in arguments[0]
            events.append(("plan" if is_plan else what, name))
            return done

        monkeypatch.setattr(os, what, call)

    def replace(one: Path, other: Path) -> None:
        rename(one, other)
        events.append(("rename", Path(other).name))

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        events.append(("unlink", path.name))

    for what in ("write", "pwrite", "fsync"):
        of_descriptor(what)
    rename, unlink = os.replace, Path.unlink
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(Path, "unlink", unlinked)
    return events


def last(events: list[Event], event: Event) -> int:
    """Where an event stands for the last time."""
    assert event in events, f"no {event} in {events}"
    return max(index for index, one in enumerate(events) if one == event)


@pytest.fixture
def events(brats: Commands, monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """The calls of a build of two cases into the folder held/."""
    for seed in range(2):
        add_case(Path("input"), f"d{seed}", labels=mask((1,)), seed=seed)
    Path("held").mkdir()
    with monkeypatch.context() as patch:
        recorded = record(patch)
        out = "held/brats.h5"
        brats("build-cache", "input", "--size", 16, "--workers", 1, "--out", out)
    return recorded


def test_a_cache_is_synced_before_it_gets_its_name_and_its_folder_after(
    events: list[Event],
) -> None:
    order = [
        last(events, ("pwrite", PARTIAL)),
        last(events, ("fsync", PARTIAL)),
        last(events, ("rename", "brats.splits.csv")),
        last(events, ("rename", "brats.h5")),
        last(events, ("fsync", "held")),
        last(events, ("unlink", JOURNAL)),
    ]
    assert order == sorted(order)
    splits, cache = order[2], order[3]
    assert ("fsync", "held") in events[splits:cache]


def test_the_reserved_file_is_synced_before_the_plan_is_noted_and_that_before_rows(
    events: list[Event],
) -> None:
    plan = last(events, ("plan", JOURNAL))
    assert ("fsync", PARTIAL) in events[:plan]
    first_row = events.index(("pwrite", PARTIAL), plan)
    assert ("fsync", JOURNAL) in events[plan:first_row]
