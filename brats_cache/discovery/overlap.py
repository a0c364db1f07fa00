"""Overlap of public collections: one person may be in several, under an id of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from brats_cache.common.text import first_few
from brats_cache.discovery.namings import collection_of
from brats_cache.discovery.patients import patient_of

__all__ = ["overlap_notes"]


def overlap_notes(namings: Mapping[str, str], joined: Collection[str]) -> list[str]:
    """Returns a warning where cases of several collections meet without a table that joins them.

    Args:
        namings: Naming by case id.
        joined: Patients, in lower case, whose other ids a table tells.
    """
    collections = {case_id: collection_of(case_id, namings[case_id]) for case_id in namings}
    names = sorted(set(collections.values()) - {""})
    unmapped = [
        case_id
        for case_id, name in collections.items()
        if name and patient_of(case_id).lower() not in joined
    ]
    if len(names) < 2 or not unmapped:
        return []
    return [
        f"scans of {' and '.join(names)} are combined: one person may be there under two ids, and "
        "so in two splits. A table with the ids of several collections (name_mapping.csv, "
        "UCSF-PDGM-metadata.csv), saved as CSV beside the scans, tells who is who; none names "
        f"{len(unmapped)} of the cases ({first_few(unmapped, 3)})."
    ]
