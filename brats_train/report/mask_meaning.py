"""What the values of a mask to be shown mean: names of tissues instead of numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from brats_cache.common.errors import LabelSchemeError
from brats_cache.discovery.cases import Case
from brats_cache.imaging.labels import NO_LABEL, SCHEMES, Scheme, canonical_table
from brats_cache.imaging.scheme_detection import detect_scheme
from brats_train.report.palette import TISSUES

__all__ = ["Meaning", "meaning_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Meaning:
    """What the values of one mask mean.

    Attributes:
        table: (256,) uint8, the canonical label of each value.
        names: Of the canonical labels that occur in the mask.
        regions: The regions that the labels tell.
        doubt: Why `names` are no names of tissues, "" where they are.
    """

    table: np.ndarray
    names: Mapping[int, str]
    regions: tuple[str, ...]
    doubt: str = ""


def meaning_of(values: Collection[int], case: Case, label_scheme: str) -> Meaning:
    """Finds what the values of a mask of a case mean.

    Args:
        values: All that occur in the mask.
        case: Its names may tell.
        label_scheme: Name of a scheme, or "auto". Where nothing tells then, every value is shown as
            a label of its own, of the whole tumour.

    Raises:
        BratsError: The named scheme is unknown.
        LabelSchemeError: It has not all the values.
    """
    found = frozenset(values)
    try:
        scheme = detect_scheme(case.naming, {case.id: found}, case.labels, label_scheme)
    except LabelSchemeError:
        if label_scheme != "auto":
            raise
        return _unknown(found)
    table = canonical_table(scheme)
    labels = sorted({int(table[value]) for value in found} - {0})
    return Meaning(
        table=np.where(table == NO_LABEL, 0, table),
        names={label: _name(scheme, label) for label in labels},
        regions=scheme.regions,
    )


def _name(scheme: Scheme, label: int) -> str:
    """What a canonical label is in a scheme; two schemes have wider ones."""
    if scheme.name == "binary":
        return "tumour"
    if scheme.name == "hdglio" and label == 2:
        return "T2/FLAIR abnormality"
    return TISSUES[label][0]


def _unknown(values: frozenset[int]) -> Meaning:
    """Each value as it is, as far as there are colours; regions are not told from each other."""
    table = np.zeros(256, np.uint8)
    names: dict[int, str] = {}
    for number, value in enumerate(sorted(values - {0})):
        label = 1 + number % len(TISSUES)
        table[value] = label
        names[label] = f"{names[label]}, {value}" if label in names else f"label {value}"
    schemes = [name for name, scheme in SCHEMES.items() if values <= scheme.values]
    way_out = f"--label-scheme {' or '.join(schemes)} names them." if schemes else ""
    return Meaning(
        table=table,
        names=names,
        regions=("wt",),
        doubt=f"its labels have no names, for nothing tells what they mean. {way_out}".rstrip(),
    )
