"""File names of the Brain Imaging Data Structure: sub-01_ses-01_ce-gadolinium_T1w.nii.gz."""

from __future__ import annotations

import re
from typing import NamedTuple

from brats_cache.discovery.namings import MASK

__all__ = ["BidsName", "parse_bids"]

_PART = re.compile(r"(?P<key>[a-zA-Z]+)-(?P<value>[a-zA-Z0-9+]+)")
_SUFFIXES = {"t1w": "t1", "t1": "t1", "t2w": "t2", "t2": "t2", "flair": "flair"}
_MASK_SUFFIXES = ("dseg", "mask", "seg")
_NO_CONTRAST = ("none", "no", "pre", "without")
# What a segmentation is of, where its name says so; anything else is no tumour.
_TUMOR = re.compile(r"tumou?r|lesion|glioma|gbm|wt|manual|final|brats|expert|gtv", re.IGNORECASE)
_TISSUE = re.compile(
    r"brain|head|skull|gm|wm|csf|[a-z0-9]*aseg|tissues?|parenchyma|nawm|deepgm", re.IGNORECASE
)
_SUBJECT_KEYS = ("sub", "ses")


class BidsName(NamedTuple):
    """What a BIDS file name says.

    Attributes:
        case: Subject and session, such as "sub-01_ses-01".
        patient: The subject, such as "sub-01".
        role: A modality, `MASK`, or "" for anything else, a mask of the brain for one.
        rank: Number of entities beyond those needed; of several files of one role, those with the
            fewest are taken.
    """

    case: str
    patient: str
    role: str
    rank: int


def parse_bids(stem: str) -> BidsName | None:
    """Reads a file name as BIDS.

    Args:
        stem: The file name without .nii or .nii.gz.

    Returns:
        What the name says, None where it is not of BIDS.

    Example:
        >>> parse_bids("sub-07_ses-2_ce-gadolinium_T1w")
        BidsName(case='sub-07_ses-2', patient='sub-07', role='t1ce', rank=0)
    """
    *parts, suffix = stem.split("_")
    matches = [_PART.fullmatch(part) for part in parts]
    pairs = [(match["key"].lower(), match["value"]) for match in matches if match]
    if not pairs or len(pairs) < len(parts) or pairs[0][0] != "sub":
        return None
    entities = dict(pairs)
    own = [part for part, (key, _) in zip(parts, pairs, strict=True) if key in _SUBJECT_KEYS]
    others = {key: value for key, value in entities.items() if key not in _SUBJECT_KEYS}
    role = _role(suffix.lower(), others)
    if role is None:
        return None
    needed = role == "t1ce" or (role == MASK and bool({"desc", "label"} & set(others)))
    return BidsName("_".join(own), parts[0], role, max(len(others) - needed, 0))


def _role(suffix: str, others: dict[str, str]) -> str | None:
    """The role; "" for a mask of the brain or a tissue, None where the name does not tell."""
    if suffix in _SUFFIXES:
        role = _SUFFIXES[suffix]
        contrast = others.get("ce", "none").lower()
        return "t1ce" if role == "t1" and contrast not in _NO_CONTRAST else role
    if suffix in _MASK_SUFFIXES:
        described = [others[key] for key in ("label", "desc", "seg", "atlas") if key in others]
        if not described or any(_TUMOR.search(value) for value in described):
            return MASK
        return "" if any(_TISSUE.fullmatch(value) for value in described) else None
    return None
