"""Detects the label scheme of every case of a build from names and mask values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from brats_cache.build.survey import HeaderCheck, Survey
from brats_cache.common.errors import DataFaults, Fault
from brats_cache.imaging.labels import Scheme
from brats_cache.imaging.scheme_detection import detect_scheme, schemes_of_id

__all__ = ["detect_schemes"]


def detect_schemes(
    surveys: Sequence[Survey | HeaderCheck], override: str
) -> tuple[dict[str, Scheme], list[Fault]]:
    """Detects the label scheme of each case.

    Cases are judged in groups: one naming scheme under one DATA argument, and one dataset.json
    there. A case with a value that no scheme explains gets a fault of its own, and the rest of its
    group is judged without it.

    Args:
        surveys: The cases, with the values that occur in their masks.
        override: Name of the scheme of all cases that name none themselves, or "auto" to detect it.

    Returns:
        The scheme of each sound case by its id, and the faults of the others.
    """
    groups: dict[object, list[Survey | HeaderCheck]] = {}
    for survey in surveys:
        case = survey.case
        names = (case.naming, schemes_of_id(case.id))
        group = (case.scheme, names, case.data_dir, case.labels)
        groups.setdefault(group, []).append(survey)
    schemes: dict[str, Scheme] = {}
    faults: list[Fault] = []
    for members in groups.values():
        while members:
            try:
                schemes.update(_scheme_of_group(members, override))
                break
            except DataFaults as error:
                located = [_with_path(fault, members) for fault in error.faults]
            faults += located
            bad = {fault.case for fault in located}
            members = [] if "" in bad else [s for s in members if s.case.id not in bad]
    return schemes, faults


def _scheme_of_group(members: Sequence[Survey | HeaderCheck], override: str) -> dict[str, Scheme]:
    values = {
        survey.case.id: frozenset({0, *survey.label_values} if survey.case.mask else ())
        for survey in members
    }
    first = members[0].case
    scheme = detect_scheme(
        first.naming, values, dataset_labels=first.labels, override=first.scheme or override
    )
    return dict.fromkeys(values, scheme)


def _with_path(fault: Fault, members: Sequence[Survey | HeaderCheck]) -> Fault:
    """Adds the path of the case's mask, or of the group's folder, to a fault."""
    masks = {survey.case.id: survey.case.mask for survey in members}
    mask = masks.get(fault.case)
    if members[0].case.scheme:  # of the manifest, which goes before --label-scheme
        expected = fault.expected.replace("by --label-scheme", "by the manifest")
        remedy = "If the mask follows another scheme, correct the column scheme of the manifest."
        fault = replace(fault, expected=expected, remedy=remedy)
    return replace(fault, path=mask.path if mask else members[0].case.data_dir)
