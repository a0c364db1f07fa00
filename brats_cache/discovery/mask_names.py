"""Words in file names that mean a tumour mask, and words that mean anything but one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

__all__ = ["KNOWN_MASK_WORDS", "MaskName", "find_mask_word", "is_known_non_mask"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Shown to a person; the rule below also takes their plurals and combinations.
KNOWN_MASK_WORDS = (
    "seg",
    "segmentation",
    "tumor_segmentation",
    "tumorMask",
    "mask",
    "label",
    "GlistrBoost",
    "GlistrBoost_ManuallyCorrected",
    "final_seg",
    "OT",
    "gt",
    "gtv",
    "dseg",
)
_GENERIC = _words("seg segs segm segms segmentation segmentations dseg mask masks label labels lbl")
_OWN = _words(
    "glistrboost ot gt gtv groundtruth truth tumor tumour tumors tumours tumorseg "
    "tumourseg rtumorseg tumorsegm tumorsegmentation tumoursegmentation tumormask "
    "tumourmask lesionseg lesionmask"
)
_MASK_WORDS = _GENERIC | _OWN
_WEAK = frozenset(("mask", "masks"))  # a brain mask is often called so, too
_MANUAL = _words(
    "manual manually manuallycorrected corrected correction edited reviewed expert "
    "approved consensus"
)
_AUTOMATIC = _words("auto automated automatic approx fets")
_NEUTRAL = _words("final tumor tumour tumors lesion lesions glioma gbm brats")
_QUALIFIERS = _MANUAL | _AUTOMATIC | _NEUTRAL
_BRAIN = _words(
    "brain brains brainmask brainextractionmask bet hdbet betmask skull skullmask "
    "skullstrip skullstripped stripped ss strip parenchyma head headmask tissue tissues "
    "wm gm csf aseg aparcaseg ventricle ventricles vessel vessels body foreground fov "
    "nonzero face eyes air nawm hemisphere"
)
_OTHER_SCANS = _words(
    "adc dwi asl swi swan dti fa md ad rd tr l1 l2 l3 noreg trace b0 b1000 ivim dsc dce "
    "perfusion cbf cbv rcbv mtt ttp tmax ktrans psr ph aif pd pdw bold rest fmri t2star "
    "t2s t1map t2map qsm mra tof ct pet mrs unstripped biasfield warp field jacobian prob "
    "probs probability probabilities pseg probseg softmax uncertainty entropy"
)


class MaskName(NamedTuple):
    """A mask word at the end of a file name.

    Attributes:
        num_words: How many words of the name it takes.
        rank: 0 where the user named it or it was corrected by hand, 1 for a segmentation, 2 for an
            automatic one, 3 for a bare "mask". Of several masks of a case the lowest is taken.
        is_tumor: False where the words say that it is a mask of the brain.
    """

    num_words: int
    rank: int
    is_tumor: bool = True


def find_mask_word(words: Sequence[str], extra: Collection[str] = ()) -> MaskName | None:
    """Finds the mask word that ends a file name.

    Args:
        words: The words of the name in lower case, without separators.
        extra: Words of the user's that mean a mask, in lower case without separators.

    Returns:
        The word, or None where the name does not end in one.

    Example:
        >>> find_mask_word(["upenn", "automated", "approx", "segm"])
        MaskName(num_words=3, rank=2, is_tumor=True)
        >>> find_mask_word(["x", "brain", "mask"]).is_tumor
        False
    """
    for count in range(len(words), 0, -1):
        if "".join(words[-count:]) in extra:
            return MaskName(count, 0)
    end = len(words)
    while end > 1 and words[end - 1] in _QUALIFIERS - _MASK_WORDS:
        end -= 1
    if not end or words[end - 1] not in _MASK_WORDS:
        return None
    start = end - 1
    while start > 0 and words[start - 1] in _QUALIFIERS:
        start -= 1
    used = set(words[start:])
    is_named_tumor = bool(used & (_NEUTRAL | _MANUAL | _OWN)) or words[end - 1] in _OWN
    if start > 0 and words[start - 1] in _BRAIN:
        if not is_named_tumor:
            return MaskName(len(words) - start, 3, is_tumor=False)
        start -= 1
    if used & _MANUAL:
        rank = -1 if words[end - 1] == "rtumorseg" else 0  # UTSW: registered to the scans
    elif used & _AUTOMATIC or words[end - 1] == "glistrboost":
        rank = 2
    else:
        rank = 3 if used <= _WEAK else 1
    return MaskName(len(words) - start, rank)


def is_known_non_mask(words: Collection[str]) -> bool:
    """Whether the words that a file name has besides the case id say that it is no tumour mask.

    Args:
        words: In lower case, without separators.
    """
    is_tumor = not _NEUTRAL.isdisjoint(words) or not _OWN.isdisjoint(words)
    is_brain = not _BRAIN.isdisjoint(words) and not is_tumor
    return is_brain or not _OTHER_SCANS.isdisjoint(words)
