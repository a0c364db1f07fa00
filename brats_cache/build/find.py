"""Finds the cases of a build, and checks what a manifest says of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from brats_cache.common.errors import Fault
from brats_cache.common.names import check_file_name
from brats_cache.discovery.cases import Case, Findings, find_cases
from brats_cache.discovery.manifest import read_manifest
from brats_cache.imaging.labels import SCHEMES

__all__ = ["find_build_cases"]


def find_build_cases(
    data: Sequence[Path],
    modalities: Sequence[str],
    *,
    manifest: Path | None = None,
    mask_words: Sequence[str] = (),
    has_split_file: bool = False,
) -> Findings:
    """Finds the cases that a manifest names, or those under DATA arguments.

    Args:
        data: Folders of cases; not used with a `manifest`.
        modalities: The modalities that every case must have.
        manifest: CSV file that names the files of every case.
        mask_words: Further words in file names that mark a segmentation.
        has_split_file: Whether a split file replaces the splits of the manifest.

    Returns:
        What was found. Cases whose id cannot be part of a file name, or whose cells in the manifest
        are at fault, are among the faults and not among the cases.
    """
    if manifest is None:
        findings = find_cases(data, modalities, mask_words=mask_words)
    else:
        findings = read_manifest(manifest, modalities)
    cases = [_with_scheme_name(case) for case in findings.cases]
    faults = [fault for case in cases if (fault := _id_fault(case))]
    if manifest is not None:
        faults += _scheme_faults(manifest, cases)
        if not has_split_file:
            faults += _split_faults(manifest, cases)
    bad = {fault.case for fault in faults}
    return replace(
        findings,
        cases=tuple(case for case in cases if case.id not in bad),
        faults=(*findings.faults, *faults),
    )


def _with_scheme_name(case: Case) -> Case:
    """Writes the scheme of a manifest as `SCHEMES` does; "auto" and blank cells mean none."""
    name = case.scheme.strip().lower()
    return replace(case, scheme="" if name == "auto" else name)


def _id_fault(case: Case) -> Fault | None:
    """Checks that an id can be part of a file name; predicted masks are named by ids."""
    try:
        check_file_name(case.id)
    except ValueError as error:
        return Fault(
            case=case.id,
            path=next(iter(case.images.values())).path,
            found=f"an id that cannot be a file name: {error}",
            expected="an id that masks can be called after",
        )
    return None


def _scheme_faults(manifest: Path, cases: Iterable[Case]) -> list[Fault]:
    return [
        Fault(
            case=case.id,
            path=manifest,
            found=f"column scheme: {case.scheme}",
            expected=f"one of {', '.join(SCHEMES)}, or a blank cell",
        )
        for case in cases
        if case.scheme not in ("", *SCHEMES)
    ]


def _split_faults(manifest: Path, cases: Sequence[Case]) -> list[Fault]:
    """Checks that splits, where a manifest has any, cover all cases and fit masks and patients."""
    if not any(case.split for case in cases):
        return []
    faults = []
    first_of: dict[str, Case] = {}
    for case in cases:
        first = first_of.setdefault(case.patient, case)
        if not case.split:
            found, expected = "a blank cell, so no split", "train, val or test, as in other lines"
        elif case.mask is None and case.split != "test":
            found, expected = f"{case.split}, but the case has no segmentation", "test"
        elif first.split not in ("", case.split):
            found = f"{case.split}, but {first.id} of the same patient {case.patient} is "
            found, expected = found + first.split, "one split for one patient"
        else:
            continue
        faults.append(
            Fault(case=case.id, path=manifest, found=f"column split: {found}", expected=expected)
        )
    return faults
