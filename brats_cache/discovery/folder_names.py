"""Case ids from folders, for files that are named by their role alone, such as t1.nii.gz."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from brats_cache.common.names import composed
from brats_cache.discovery.patients import is_container, is_session

__all__ = ["FolderCase", "case_folder_of", "case_of_folder"]

# Folders inside a case: they are not its name.
_INSIDE_CASE = re.compile(
    r"(?:\d+[_-])?(?:nifti|nii|anat|anatomy|anatomical|mri?|images?|imgs?|scans?|raw|native"
    r"|registered|reg|preproc(?:essed)?|processed|structural|seg|segm|segmentations?|masks?"
    r"|labels?|atlas|skull[_-]?strip(?:ped)?|t1(?:ce|c|gd|n|w)?|ct1|t2w?|flair|t2[_-]?flair)"
    r"|vsd\.brain.*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d{1,2}")
# Above a folder such as 0 or 1, which could also number the patients.
_PERSON = re.compile(
    r"(?:patient(?:_?id)?|pat|pt|p|subject|subj|sub|case|id)[-_ ]?\d+|[a-z_-]*\d{3,}", re.IGNORECASE
)


class FolderCase(NamedTuple):
    """The case that a folder is.

    Attributes:
        id: Name of the folder, with the folder above where it is a session.
        patient: The patient where the folder above tells, else "".
    """

    id: str
    patient: str


def case_folder_of(folder: Path) -> Path:
    """Returns the folder of the case: `folder`, or the one above folders such as anat or nifti."""
    return next(_named(folder), folder)


def case_of_folder(folder: Path, depth: int = 0) -> FolderCase:
    """Returns the id that a folder gives its case.

    Args:
        folder: The folder of a file, however deep inside the case.
        depth: How many folders more enter the id, for names that recur.

    Example:
        >>> case_of_folder(Path("/data/Patient-007/week-012/anat"))
        FolderCase(id='Patient-007_week-012', patient='Patient-007')
    """
    names = [composed(named.name) for named in _named(folder)]
    names = names or [composed(folder.absolute().name)]
    own, above = names[0], names[1] if len(names) > 1 else ""
    is_number = _NUMBER.fullmatch(own) is not None
    if not above or not (is_session(own) or is_number):
        return FolderCase("_".join(reversed(names[: depth + 1])), "")
    parts = names[: depth + 2]
    is_person = not is_container(above) and (not is_number or _PERSON.fullmatch(above) is not None)
    patient = "_".join(reversed(parts[1:])) if is_person else ""
    return FolderCase("_".join(reversed(parts)), patient)


def _named(folder: Path) -> Iterator[Path]:
    """The folder and those above it, nearest first, without those that lie inside a case."""
    whole = folder.absolute()
    for one in (whole, *whole.parents):
        if one.name and not _INSIDE_CASE.fullmatch(one.name):
            yield one
