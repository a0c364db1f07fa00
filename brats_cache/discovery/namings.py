"""What a name says: the role of a file within a case, and the family and patient of a case id.

Nothing here touches a disk. A file name is read as `<case><separator><role word>.nii[.gz]`, or as
the role word alone, in which case the folder is the case. Letter case never matters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "MASK",
    "MODALITIES",
    "NAMINGS",
    "Claim",
    "collection_of",
    "is_nifti",
    "modality_of",
    "naming_of",
    "parse_name",
    "patient_of",
    "year_of",
]

MODALITIES = ("t1", "t1ce", "t2", "flair")
MASK = "mask"
NAMINGS = ("brats2013", "brats2017", "brats2023", "msd", "plain")
# Words without separators; `t1_gd` and `t2-flair` are found by the pattern below.
_WORDS = {
    "t1": ("t1", "t1n", "t1w", "t1pre"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1post"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f", "t2flair"),
    MASK: ("seg", "segm", "segmentation", "mask", "label", "tumorsegmentation"),
}
_ROLE_OF = {word: role for role, words in _WORDS.items() for word in words}
_NIFTI = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
# The case part is as short as possible, so that `x_t2_flair` is FLAIR of x and not of `x_t2`.
_NAME = re.compile(
    r"(?:(?P<case>.+?)[_\-. ])?"
    r"(?P<role>t1[_-]?(?:ce|c|gd|post|pre)|t1[nw]?|t2[_-]?flair|t2[fw]?|flair"
    r"|tumor[_-]segmentation|segmentation|segm?|mask|label)",
    re.IGNORECASE,
)
# The public copy of BraTS 2020 carries one mask under its author's working name.
_MISNAMED_MASKS = {("brats20_training_355", "w39_1998.09.19_segm")}
# In each family the number at the end counts scan sessions of one patient.
_SESSION = re.compile(
    r"(?P<patient>brats_(?:2013|tcia)_pat\w+?|brats1[789]_[^_]+_[^_]+|brats-[a-z-]+-\d+"
    r"|upenn-gbm-\d+)[_-]\d+",
    re.IGNORECASE,
)
_TCGA = re.compile(r"tcga[-_.]([a-z0-9]{2})[-_.]([a-z0-9]{4})(?![a-z0-9])", re.IGNORECASE)
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


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One file that claims one role of one case.

    case        id of the case, as spelled in the name
    role        a name of `MODALITIES`, or `MASK`
    path        the file
    data_dir    the DATA argument under which it was found
    channel     index along the 4th axis of a 4-D file, else None
    naming      what the case's id says, or "msd"
    labels      value and name of each label where a dataset.json tells
    is_misnamed whether a known defect of a public copy was mended here
    """

    case: str
    role: str
    path: Path
    data_dir: Path
    channel: int | None = None
    naming: str = "plain"
    labels: tuple[tuple[int, str], ...] = ()
    is_misnamed: bool = False


def is_nifti(name: str) -> bool:
    """Whether a file name ends in .nii or .nii.gz."""
    return _NIFTI.search(name) is not None


def modality_of(word: str) -> str | None:
    """The modality a word such as `T1gd` or `FLAIR` stands for, None where it stands for none."""
    role = _ROLE_OF.get(re.sub(r"[^a-z0-9]", "", word.lower()))
    return role if role in MODALITIES else None


def parse_name(path: Path, data_dir: Path) -> Claim | None:
    """The role that a NIfTI file's name claims, None where the name holds no role word."""
    stem = _NIFTI.sub("", path.name)
    folder = path.parent.name or path.parent.absolute().name
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    is_misnamed = (folder.lower(), stem.lower()) in _MISNAMED_MASKS
    case = folder if is_misnamed else match["case"] or folder
    return Claim(
        case=case,
        role=_ROLE_OF[re.sub("[_-]", "", match["role"].lower())],
        path=path,
        data_dir=data_dir,
        naming=naming_of(case),
        is_misnamed=is_misnamed,
    )


def naming_of(case_id: str) -> str:
    """The family of `NAMINGS` an id belongs to; "plain" where the id says nothing."""
    return next((name for pattern, name in _FAMILIES if pattern.match(case_id)), "plain")


def year_of(case_id: str) -> int:
    """The first BraTS year that used this form of id, 0 for other ids."""
    return next((year for pattern, year in _YEARS if pattern.match(case_id)), 0)


def collection_of(case_id: str, naming: str) -> str:
    """The public collection an id comes from, "" where that is unknown.

    One person may be in several of these under several ids.
    """
    if naming == "msd":
        return "MSD Task01"
    year = year_of(case_id)
    if year:
        return {2013: "BraTS 2013 to 2016", 2023: "BraTS 2023 on"}.get(year, f"BraTS {year}")
    return "TCGA" if _TCGA.match(case_id) else ""


def patient_of(case_id: str) -> str:
    """The patient an id names: the id without the number of the scan session, a TCGA barcode in its
    own spelling, or the id itself where it has no such structure."""
    barcode = _TCGA.match(case_id)
    if barcode:
        return f"TCGA-{barcode[1]}-{barcode[2]}".upper()
    session = _SESSION.fullmatch(case_id)
    return session["patient"] if session else case_id
