"""Case ids: which public collection an id comes from, and the names of modalities and roles."""

from __future__ import annotations

import re

__all__ = ["MASK", "MODALITIES", "NAMINGS", "collection_of", "naming_of", "year_of"]

MODALITIES = ("t1", "t1ce", "t2", "flair")
MASK = "mask"
NAMINGS = ("brats2013", "brats2017", "brats2023", "msd", "plain")
# Paediatric cases (BraTS-PED-) are left out on purpose: their label values changed meaning from
# 2023 to 2024 without leaving {0, 1, 2, 3}, so their names promise no label scheme.
_FAMILIES = (
    (re.compile(r"brats_(?:2013|tcia)_pat", re.IGNORECASE), "brats2013"),
    (re.compile(r"brats(?:17|18|19|20|2021)_", re.IGNORECASE), "brats2017"),
    (re.compile(r"brats-(?:gli|met|men|ssa|goat)-", re.IGNORECASE), "brats2023"),
)
_YEARS = (
    (re.compile(r"brats_(?:2013|tcia)_pat", re.IGNORECASE), 2013),
    (re.compile(r"brats17_", re.IGNORECASE), 2017),
    (re.compile(r"brats18_", re.IGNORECASE), 2018),
    (re.compile(r"brats19_", re.IGNORECASE), 2019),
    (re.compile(r"brats20_", re.IGNORECASE), 2020),
    (re.compile(r"brats2021_", re.IGNORECASE), 2021),
    (re.compile(r"brats-[a-z]+-", re.IGNORECASE), 2023),
)
# Collections whose patients were also handed out under ids of BraTS.
_SHARED_COLLECTIONS = (
    (re.compile(r"tcga[-_.][a-z0-9]{2}[-_.][a-z0-9]{4}(?![a-z0-9])", re.IGNORECASE), "TCGA"),
    (re.compile(r"ucsf-pdgm-\d", re.IGNORECASE), "UCSF-PDGM"),
    (re.compile(r"upenn-gbm-\d", re.IGNORECASE), "UPENN-GBM"),
    (re.compile(r"ucsd-ptgbm-\d", re.IGNORECASE), "UCSD-PTGBM"),
    (re.compile(r"patientid_\d+_timepoint", re.IGNORECASE), "MU-Glioma-Post"),
)


def naming_of(case_id: str) -> str:
    """Returns the family of `NAMINGS` an id belongs to; "plain" where the id says nothing."""
    return next((name for pattern, name in _FAMILIES if pattern.match(case_id)), "plain")


def year_of(case_id: str) -> int:
    """Returns the first BraTS year that used this form of id, 0 for other ids."""
    return next((year for pattern, year in _YEARS if pattern.match(case_id)), 0)


def collection_of(case_id: str, naming: str) -> str:
    """Returns the public collection an id comes from, "" where that is unknown.

    One person may be in several of these under several ids.
    """
    if naming == "msd":
        return "MSD Task01"
    year = year_of(case_id)
    if year:
        return {2013: "BraTS 2013 to 2016", 2023: "BraTS 2023 or later"}.get(year, f"BraTS {year}")
    return next((name for pattern, name in _SHARED_COLLECTIONS if pattern.match(case_id)), "")
