"""File names: the role that a NIfTI file has in which case.

A file name is read as `<case><separator><role word>.nii[.gz]`, or as the role word alone, in which
case the folder is the case. Letter case never matters, and nothing here touches a disk.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from brats_cache.common.names import composed
from brats_cache.discovery.bids import parse_bids
from brats_cache.discovery.folder_names import case_of_folder
from brats_cache.discovery.mask_names import find_mask_word
from brats_cache.discovery.namings import MASK, naming_of
from brats_cache.discovery.patients import is_session

__all__ = [
    "FileRole",
    "begins_with",
    "case_is_a_role",
    "is_nifti",
    "modality_of",
    "parse_name",
    "plain_word",
    "stem_of",
    "words_of",
]

# Words without separators: t1_gd and T2-FLAIR are found as t1gd and t2flair.
_WORDS = {
    "t1": "t1 t1n t1w t1pre t1native t1nativew pret1 t1precontrast t1wpre",
    "t1ce": "t1ce t1c t1gd t1gad t1post t1wce t1wc t1wgd t1wpost t1cw t1cew t1contrast "
    "t1postcontrast t1km ct1 ct1w cet1 cet1w gdt1 t1cegd",
    "t2": "t2 t2w",
    "flair": "flair t2f t2flair t2wflair fla t2fla flairw",
}
_ROLE_OF = {word: role for role, words in _WORDS.items() for word in words.split()}
_WEIGHTINGS = ("t1", "t2", "fla")
_MOST_WORDS = 3  # t1_post_contrast
_NIFTI = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_WORD = re.compile(r"[^_\-. ]+")
# Of several files of one modality the one that was corrected for the bias field is taken.
_CORRECTED = ("bias", "biascorr", "biascorrected", "n4", "n4corrected", "n4bias", "bfc")
_RANK_CORRECTED, _RANK_PLAIN = -1, 0
# A word between the case and the role that belongs to neither: x_brain_t1.nii.gz
_BETWEEN = ("brain",)
# The public copy of BraTS 2020 carries one mask under its author's working name.
_MISNAMED_MASKS = {("brats20_training_355", "w39_1998.09.19_segm")}
# BraTS 2012 to 2015 as downloaded: VSD.Brain.XX.O.MR_T1c.54514, VSD.Brain_3more.XX.O.OT.54517
_VSD = re.compile(r"vsd\.brain.*\.(?:mr_(?P<scan>t1c?|t2|flair)|(?P<truth>ot))\.\d+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FileRole:
    """One file in one role of one case.

    Attributes:
        case: Id of the case, as spelled in the name.
        role: A name of `MODALITIES`, or `MASK`.
        path: The file.
        data_dir: The DATA argument under which it was found.
        folder: The folder in which its name stands: its own, or the one above where a folder
            named like a scan holds the file.
        is_named_by_folder: Whether the name has no case id, so that the folder is the case.
        patient: Id of the patient where folders or BIDS tell, else "".
        channel: Index along the 4th axis of a 4-D file, else None.
        naming: What the case's id says, or "msd".
        labels: Value and name of each label where a dataset.json tells.
        rank: Of several files in one role, those of the lowest rank are taken.
        is_misnamed: Whether this is a known misnomer of a public copy.
    """

    case: str
    role: str
    path: Path
    data_dir: Path
    folder: Path
    is_named_by_folder: bool = False
    patient: str = ""
    channel: int | None = None
    naming: str = "plain"
    labels: tuple[tuple[int, str], ...] = ()
    rank: int = 0
    is_misnamed: bool = False


@dataclass(frozen=True, kw_only=True)
class _Name:
    """What a stem alone says; `case` is "" where it holds no id."""

    case: str
    role: str
    rank: int = 0
    patient: str = ""


def is_nifti(name: str) -> bool:
    """Whether a file name ends in .nii or .nii.gz."""
    return _NIFTI.search(name) is not None


def stem_of(name: str) -> str:
    """Returns a file name, composed, without .nii or .nii.gz."""
    return composed(_NIFTI.sub("", name))


def plain_word(text: str) -> str:
    """Returns a word in lower case without anything but letters and digits."""
    return re.sub(r"[^a-z0-9]", "", stem_of(text).lower())


def words_of(stem: str) -> list[str]:
    """Returns the words of a name in lower case, without what separates them."""
    return [word.lower() for word in _WORD.findall(stem)]


def begins_with(name: str, case_id: str) -> bool:
    """Whether a name is a case id or continues one behind a separator."""
    rest = name[len(case_id) :]
    return name.lower().startswith(case_id.lower()) and (not rest or rest[0] in "_-. ")


def modality_of(word: str) -> str | None:
    """Returns the modality that a word such as `T1gd` or `FLAIR` stands for, None for others."""
    return _ROLE_OF.get(plain_word(word))


def parse_name(
    path: Path, data_dir: Path, *, named: Path | None = None, mask_words: Collection[str] = ()
) -> FileRole | None:
    """Reads the role of a NIfTI file from its name.

    Args:
        path: The file.
        data_dir: The DATA argument under which it was found.
        named: The path whose name counts, where it is not the file's own.
        mask_words: Words besides the known ones that mean a mask, as `plain_word` gives them.

    Returns:
        The role, None where the name holds no role word.
    """
    named = named or path
    stem, folder = stem_of(named.name), named.parent
    own_folder = folder.name or folder.absolute().name
    is_misnamed = (own_folder.lower(), stem.lower()) in _MISNAMED_MASKS
    name = _Name(case=own_folder, role=MASK) if is_misnamed else _parse_stem(stem, mask_words)
    if name is None:
        return None
    is_of_folder = not name.case or is_session(name.case)
    of_folder = case_of_folder(folder)
    case = of_folder.id if is_of_folder else name.case
    return FileRole(
        case=case,
        role=name.role,
        path=path,
        data_dir=data_dir,
        folder=folder,
        is_named_by_folder=is_of_folder,
        patient=name.patient or of_folder.patient,
        naming=naming_of(case),
        rank=name.rank,
        is_misnamed=is_misnamed,
    )


def case_is_a_role(case: str) -> bool:
    """Whether an id ends in a modality: `x_t1ce-t1` is a subtraction and no T1 of `x_t1ce`."""
    words = words_of(case)
    return bool(words) and words[-1] in _ROLE_OF


def _parse_stem(stem: str, mask_words: Collection[str]) -> _Name | None:
    spans = list(_WORD.finditer(stem))
    words = [span[0].lower() for span in spans]
    mask = find_mask_word(words, mask_words)
    if mask is not None and mask.rank == 0 and "".join(words[-mask.num_words :]) in mask_words:
        return _Name(case=_before(stem, spans, mask.num_words), role=MASK, rank=mask.rank)
    if vsd := _VSD.fullmatch(stem):
        return _Name(case="", role=MASK if vsd["truth"] else _ROLE_OF[vsd["scan"].lower()])
    if bids := parse_bids(stem):
        if not bids.role:
            return None
        return _Name(case=bids.case, role=bids.role, rank=bids.rank, patient=bids.patient)
    if mask is not None:
        if not mask.is_tumor:
            return None
        return _Name(case=_before(stem, spans, mask.num_words), role=MASK, rank=mask.rank)
    return _parse_modality(stem, spans, words)


def _parse_modality(stem: str, spans: list[re.Match[str]], words: list[str]) -> _Name | None:
    end = len(words)
    while end > 1 and words[end - 1] in (*_CORRECTED, "corrected"):
        end -= 1
    rank = _RANK_PLAIN if end == len(words) else _RANK_CORRECTED
    for count in range(min(_MOST_WORDS, end), 0, -1):
        role = _ROLE_OF.get("".join(words[end - count : end]))
        # c_t1 is T1 of a case c and not CT1: of separate words the first one names the weighting.
        if role is None or (count > 1 and not words[end - count].startswith(_WEIGHTINGS)):
            continue
        start = end - count
        while start > 0 and words[start - 1] in _BETWEEN:
            start -= 1
        case = _before(stem, spans, len(words) - start)
        return None if case_is_a_role(case) else _Name(case=case, role=role, rank=rank)
    return None


def _before(stem: str, spans: list[re.Match[str]], num_words: int) -> str:
    """The stem without its last words and what separates them."""
    start = len(spans) - num_words
    return stem[: spans[start - 1].end()] if start > 0 else ""
