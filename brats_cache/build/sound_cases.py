"""Surveys the cases of a build, and reports or leaves out those with faults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brats_cache.build.execute import check_headers, survey_cases
from brats_cache.build.fault_list import shorten_faults
from brats_cache.build.journal import Journal
from brats_cache.build.mask_checks import brain_mask_faults
from brats_cache.build.options import BuildOptions
from brats_cache.build.schemes import detect_schemes
from brats_cache.build.shards import Shard
from brats_cache.build.survey import HeaderCheck, Survey
from brats_cache.build.workers import Mapper
from brats_cache.common.errors import BratsError, DataFaults, Fault, print_message
from brats_cache.common.progress import show_progress
from brats_cache.common.text import count_by_kind
from brats_cache.discovery.cases import Findings
from brats_cache.imaging.scan_check import MASK_OUTSIDE, PREPARING_TOOLS

__all__ = ["survey_sound_cases"]

ScanWarnings = list[tuple[str, tuple[str, ...]]]  # case id, kinds of warnings


def survey_sound_cases(
    findings: Findings,
    options: BuildOptions,
    shard: Shard,
    workers: Mapper,
    journal: Journal | None,
    *,
    skip_bad: bool,
    out: Path,
) -> tuple[list[Survey], list[HeaderCheck] | None]:
    """Checks all headers, surveys the cases of one part, and prints warnings about the scans.

    Args:
        findings: The cases that were found, and the faults met on the way.
        options: The options of the build.
        shard: The part to survey.
        workers: Runs what reads the files.
        journal: Keeps the surveys for a later build; None for a dry run.
        skip_bad: Leave out cases with faults instead of raising them.
        out: Path of the cache; a long list of cases left out is written beside it.

    Returns:
        The surveys of this part's cases without faults and, for a part of a sharded build, the
        header checks of all cases whose headers, mask and label scheme have no faults.

    Raises:
        DataFaults: Cases have faults and may not be left out.
        BratsError: There are fewer cases than parts, so that this part has none.
    """
    preparation, is_part = options.preparation, shard.is_part
    with show_progress("Headers and masks" if is_part else "Headers", "cases") as report:
        checks, header_faults = check_headers(
            findings.cases, preparation, workers, report, with_masks=is_part
        )
    if header_faults:
        _print_early_faults(header_faults, len(findings.cases))
    own = shard.share(findings.cases)
    if not own:
        raise BratsError(f"--shard {shard}: there are only {len(findings.cases)} cases.")
    scan_warnings: ScanWarnings = []
    with show_progress("Checking", "cases") as report:
        surveys, faults = survey_cases(own, preparation, workers, report, journal, scan_warnings)
    _print_warnings(checks, scan_warnings, len(own))
    _, scheme_faults = detect_schemes(checks if is_part else surveys, options.label_scheme)
    common = [*findings.faults, *(header_faults if is_part else ()), *scheme_faults]
    faults += brain_mask_faults(surveys)
    ordered = sorted(
        dict.fromkeys([*common, *faults]), key=lambda fault: (fault.case, str(fault.path or ""))
    )
    sound = _leave_out(ordered, surveys, skip_bad=skip_bad, out=out)
    if not is_part:
        return sound, None
    # All parts must agree on this list: faults that only one part's scans show do not change it.
    bad_for_all = {fault.case for fault in common}
    return sound, [check for check in checks if check.case.id not in bad_for_all]


def _print_early_faults(faults: Sequence[Fault], num_cases: int) -> None:
    num_bad = len({fault.case for fault in faults})
    print_message(
        f"{num_bad} of {num_cases} cases {'has' if num_bad == 1 else 'have'} faults; the scans are "
        "read on, to tell all faults together.",
        prefix="Note: ",
    )


def _print_warnings(
    checks: Sequence[HeaderCheck], scan_warnings: ScanWarnings, num_surveyed: int
) -> None:
    """Prints a line for each kind of doubt about headers and of warning about scans."""
    lines = count_by_kind([(check.case.id, check.doubts) for check in checks], len(checks))
    lines += count_by_kind(scan_warnings, num_surveyed)
    found = {kind for _, kinds in scan_warnings for kind in kinds}
    if MASK_OUTSIDE in found:
        lines.append(
            "such a mask may be that of another scan, or have lost its place; look at it with "
            "brats view"
        )
    if found - {MASK_OUTSIDE}:
        lines.append(
            "a model trained on these scans suits others like them alone; scans are prepared with "
            f"{PREPARING_TOOLS}"
        )
    for line in lines:
        print_message(line, prefix="Warning: ")


def _leave_out(
    faults: Sequence[Fault], surveys: Sequence[Survey], *, skip_bad: bool, out: Path
) -> list[Survey]:
    """Returns the surveys without faults, and raises or prints the faults of the others.

    With --skip-bad faulty cases are left out; a fault that belongs to no case always raises.
    """
    bad = {fault.case for fault in faults}
    sound = [survey for survey in surveys if survey.case.id not in bad]
    if not faults:
        return sound
    if not skip_bad:
        can_skip = "" not in bad and sound
        way = "Correct them" + (", or leave those cases out with --skip-bad." if can_skip else ".")
        raise DataFaults(faults, f"Nothing was written. {way}")
    if "" in bad:
        of_no_case = [fault for fault in faults if not fault.case]
        advice = (
            "Nothing was written. --skip-bad leaves out cases; these belong to none. Correct them."
        )
        raise DataFaults(of_no_case, advice)
    if not sound:
        raise DataFaults(faults, "Nothing was written: no case is without fault.")
    left_out = shorten_faults(DataFaults(faults, f"{len(sound)} cases remain."), out)
    print_message(left_out, prefix="Warning: left out for ")
    return sound
